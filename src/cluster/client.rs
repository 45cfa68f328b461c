//! The client, with a limit to every request.

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder};
use tower::timeout::TimeoutLayer;

use super::Error;

/// How long the API server may take to start answering; KEDA's admission webhook alone may take 10 s.
///
/// The limit stands outside kube's own retries, which would otherwise go on for minutes, and ends requests on connections that accept
/// and never answer. It counts until the response's headers, so that watches are not cut.
const LIMIT: Duration = Duration::from_secs(12);

/// Connects as kubectl would: from `KUBECONFIG`, else as the pod's service account.
///
/// # Errors
/// When there is neither, or they cannot be read; nothing is sent yet.
pub async fn connect() -> Result<Client, Error> {
    let config = Config::infer().await.map_err(|error| Error::Config(Box::new(error)))?;
    let builder = ClientBuilder::try_from(config).map_err(Error::from)?;
    Ok(builder.with_layer(&TimeoutLayer::new(LIMIT)).build())
}
