//! The clients, with a limit to every request.

use std::time::Duration;

use http::{Method, Request};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::KubeConfigOptions,
};
use tower::{BoxError, filter::FilterLayer, layer::layer_fn, timeout::TimeoutLayer, util::MapResultLayer};

use super::{Error, request_metrics::RequestMetrics, retry_after::heard};
use crate::{
    runtime::lease::{Candidate, WriteFence},
    telemetry::metrics::Metrics,
};

/// How long the API server may take to start answering; KEDA's admission webhook alone may take 10 s.
///
/// The limit stands outside kube's own retries, which would otherwise go on for minutes, and ends requests on connections that accept
/// and never answer. It counts until the response's headers, so that watches are not cut.
const LIMIT: Duration = Duration::from_secs(12);

/// How long a connection may be silent once an answer has begun, which [`LIMIT`] no longer counts: a network that loses a connection
/// tells neither end. The API server ends a watch after 60 s, so that none that is well is silent for longer.
const SILENCE: Duration = Duration::from_secs(65);

/// Connects as kubectl would: from `KUBECONFIG`, there by `context` if one is named, else as the pod's service account.
///
/// # Errors
/// When there is neither, or they cannot be read; nothing is sent yet.
pub async fn connect(context: Option<String>) -> Result<Client, Error> {
    let config = match context {
        None => config().await?,
        context => {
            let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| Error::Kubeconfig(Box::new(error)))?
        }
    };
    let builder = ClientBuilder::try_from(config).map_err(Error::from)?;
    Ok(builder.with_layer(&TimeoutLayer::new(LIMIT)).build())
}

/// The clients of the controller manager.
#[derive(Clone)]
pub struct Clients {
    /// For everything: its writes start only while the mandate holds.
    pub all: Client,
    /// For the Lease alone, which is what gives the mandate.
    pub lease: Client,
}

impl Clients {
    /// Connects likewise; what is asked is counted. Nothing is retried underneath, where a retry would not ask for the mandate: whoever
    /// asks has delays of its own.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn connect(
        fence: WriteFence,
        metrics: &Metrics,
        election: Option<&Candidate>,
    ) -> Result<Self, Error> {
        Self::of(config().await?, fence, metrics, election)
    }

    fn of(
        mut config: Config,
        fence: WriteFence,
        metrics: &Metrics,
        election: Option<&Candidate>,
    ) -> Result<Self, Error> {
        config.default_retry = false;
        config.read_timeout = Some(SILENCE);
        let counted = layer_fn(|inner| RequestMetrics { inner, metrics: metrics.clone() });
        let fence =
            FilterLayer::new(move |request: Request<Body>| refuse_writes_of_followers(&fence, request));
        // Counted outside the limit, so that what was not answered in time is counted, too.
        let builder = |limit| {
            let builder = ClientBuilder::try_from(config.clone()).map_err(Error::from)?;
            Ok::<_, Error>(
                builder
                    .with_layer(&TimeoutLayer::new(limit))
                    .with_layer(&counted)
                    .with_layer(&MapResultLayer::new(heard)),
            )
        };
        Ok(Self {
            all: builder(LIMIT)?.with_layer(&fence).build(),
            lease: builder(election.map_or(LIMIT, Candidate::request_limit))?.build(),
        })
    }
}

/// Somebody else may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("not written, since the lease is no longer ours")]
struct NotLeader;

fn refuse_writes_of_followers(fence: &WriteFence, request: Request<Body>) -> Result<Request<Body>, BoxError> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || fence.holds() { Ok(request) } else { Err(NotLeader.into()) }
}

async fn config() -> Result<Config, Error> {
    Config::infer().await.map_err(|error| Error::Config(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;
    use prometheus_client::registry::Registry;

    async fn asked(client: &Client, method: Method) -> String {
        let request = Request::builder()
            .method(method)
            .uri("/api/v1/namespaces/models/pods/chat")
            .body(Vec::new())
            .unwrap();
        format!("{:?}", client.request_text(request).await.unwrap_err())
    }

    /// Nobody listens there: whatever gets as far as that fails otherwise.
    #[tokio::test]
    async fn no_write_starts_without_a_mandate() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = || Config::new(Uri::from_static("http://127.0.0.1:9"));
        let metrics = Metrics::new(&mut Registry::default());
        let clients = |fence| Clients::of(config(), fence, &metrics, None).unwrap();
        let waiting = clients(WriteFence::by_election());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(asked(&waiting.all, method.clone()).await.contains("NotLeader"), "{method}");
            assert!(!asked(&waiting.lease, method.clone()).await.contains("NotLeader"), "{method}");
            assert!(
                !asked(&clients(WriteFence::for_life()).all, method.clone()).await.contains("NotLeader"),
                "{method}"
            );
        }
        assert!(!asked(&waiting.all, Method::GET).await.contains("NotLeader"));
    }
}
