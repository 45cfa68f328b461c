//! Clients of the API server, with a time limit on every request.

use http::{Method, Request};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::KubeConfigOptions,
};
use tower::{BoxError, filter::FilterLayer, layer::layer_fn, timeout::TimeoutLayer, util::MapResultLayer};

use super::{Error, page_limit::PageLimit, request_metrics::RequestMetrics, retry_after::map_overload};
use crate::{
    runtime::{
        delays::{API_REQUEST, API_SILENCE},
        lease::{Candidate, WriteFence},
    },
    telemetry::metrics::Metrics,
};

/// Connects as kubectl does: with `KUBECONFIG` and its `context` if one is given, else as the pod's service
/// account.
///
/// # Errors
/// [`Error::Config`] if there is neither, [`Error::Kubeconfig`] if the context cannot be used. No request is
/// sent.
pub async fn connect(context: Option<String>) -> Result<Client, Error> {
    let config = match context {
        None => config().await?,
        context => {
            let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(|error| Error::Kubeconfig(Box::new(error)))?
        }
    };
    let builder = ClientBuilder::try_from(config).map_err(Error::from)?;
    Ok(builder.with_layer(&TimeoutLayer::new(API_REQUEST)).build())
}

/// The clients of the controller manager.
#[derive(Clone)]
pub struct Clients {
    /// Client for everything but the Lease: its writes start only while the fence holds.
    pub all: Client,
    /// Client for the Lease alone, whose writes open the fence.
    pub lease: Client,
}

impl Clients {
    /// Connects like [`connect`] without a context, and counts all requests.
    ///
    /// kube's own retries are off: a retry would not check the fence, and every caller has delays of its own.
    ///
    /// # Errors
    /// Those of [`connect`].
    pub async fn connect(
        fence: WriteFence,
        metrics: &Metrics,
        election: Option<&Candidate>,
    ) -> Result<Self, Error> {
        Self::from_config(config().await?, fence, metrics, election)
    }

    fn from_config(
        mut config: Config,
        fence: WriteFence,
        metrics: &Metrics,
        election: Option<&Candidate>,
    ) -> Result<Self, Error> {
        config.default_retry = false;
        config.read_timeout = Some(API_SILENCE);
        let count_requests = layer_fn(|inner| RequestMetrics { inner, metrics: metrics.clone() });
        let fence =
            FilterLayer::new(move |request: Request<Body>| refuse_writes_of_followers(&fence, request));
        // Counting is outside the timeout, so that requests that time out are counted, too.
        let builder = |limit| {
            let builder = ClientBuilder::try_from(config.clone()).map_err(Error::from)?;
            Ok::<_, Error>(
                builder
                    .with_layer(&layer_fn(|inner| PageLimit { inner }))
                    .with_layer(&TimeoutLayer::new(limit))
                    .with_layer(&count_requests)
                    .with_layer(&MapResultLayer::new(map_overload)),
            )
        };
        Ok(Self {
            all: builder(API_REQUEST)?.with_layer(&fence).build(),
            lease: builder(election.map_or(API_REQUEST, Candidate::request_limit))?.build(),
        })
    }
}

/// A write that was not sent, because another instance may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("write not sent: this instance no longer holds the leader lease")]
struct NotLeader;

fn refuse_writes_of_followers(fence: &WriteFence, request: Request<Body>) -> Result<Request<Body>, BoxError> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read || fence.holds() { Ok(request) } else { Err(NotLeader.into()) }
}

async fn config() -> Result<Config, Error> {
    Config::infer().await.map_err(|error| Error::Config(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Uri;
    use prometheus_client::registry::Registry;

    /// A port where no process listens: requests that get past the fence fail with another error.
    fn clients(fence: WriteFence) -> Clients {
        let config = Config::new(Uri::from_static("http://127.0.0.1:9"));
        Clients::from_config(config, fence, &Metrics::new(&mut Registry::default()), None).unwrap()
    }

    async fn is_fenced(client: &Client, method: &Method) -> bool {
        let request = Request::builder()
            .method(method)
            .uri("/api/v1/namespaces/models/pods/chat")
            .body(Vec::new())
            .unwrap();
        format!("{:?}", client.request_text(request).await.unwrap_err()).contains("NotLeader")
    }

    #[tokio::test]
    async fn followers_send_no_writes() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (follower, leader) = (clients(WriteFence::by_election()), clients(WriteFence::for_life()));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(is_fenced(&follower.all, &method).await, "{method}");
            assert!(!is_fenced(&follower.lease, &method).await, "{method}");
            assert!(!is_fenced(&leader.all, &method).await, "{method}");
        }
        assert!(!is_fenced(&follower.all, &Method::GET).await);
    }
}
