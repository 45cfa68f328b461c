//! Asks Prometheus the operator's own questions, with limits to time and size; KEDA's are its own.
//!
//! In: where Prometheus is and what is asked. Out: elements, or why there are none, in words for a message.

mod client;
mod external_metrics;
mod response;
mod service_proxy;

pub use client::{ClientConfig, ClientConfigError, Prometheus};
pub use external_metrics::external;
pub use response::read;

use kube::Client;

use kthena_keda_core::{intent::PrometheusSettings, observed::Sample, promql::Expr};

/// A way to Prometheus.
#[derive(Clone)]
pub enum Querier {
    /// At its own address.
    Direct(Prometheus),
    /// Through the API server.
    Proxied(Client),
}

impl Querier {
    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub async fn query(&self, settings: &PrometheusSettings, query: &Expr) -> Result<Vec<Sample>, String> {
        self.query_text(settings, &query.to_string()).await
    }

    /// Asks what is written already.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub async fn query_text(
        &self,
        settings: &PrometheusSettings,
        query: &str,
    ) -> Result<Vec<Sample>, String> {
        match self {
            Self::Direct(prometheus) => prometheus.query(settings, query).await,
            Self::Proxied(client) => service_proxy::query(client, settings, query).await,
        }
    }
}
