//! The operator's own queries to Prometheus, limited in time and size; KEDA has its own connection.
//!
//! In: the address of a Prometheus and a query. Out: samples, or an error text for users.

mod client;
mod external_metrics;
mod response;
mod service_proxy;

pub use client::{ClientConfig, ClientConfigError, Prometheus};
pub use external_metrics::external_metric;
pub use response::read;

use kube::Client;

use kthena_keda_core::{intent::PrometheusSettings, observed::Sample, promql::Expr};

/// Route to Prometheus.
#[derive(Clone)]
pub enum Querier {
    /// Directly, at its address.
    Direct(Prometheus),
    /// Through the API server's service proxy.
    Proxied(Client),
}

impl Querier {
    /// Runs an instant query.
    ///
    /// # Errors
    /// A text for users with the reason for which there are no samples.
    pub async fn query(&self, settings: &PrometheusSettings, query: &Expr) -> Result<Vec<Sample>, String> {
        self.query_text(settings, &query.to_string()).await
    }

    /// Runs an instant query that is given as text.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn query_text(
        &self,
        settings: &PrometheusSettings,
        query: &str,
    ) -> Result<Vec<Sample>, String> {
        if let Some(region) = &settings.aws_region {
            return Err(format!(
                "queries to {region} need a signature for AWS, which the operator cannot make"
            ));
        }
        match self {
            Self::Direct(prometheus) => prometheus.query(settings, query).await,
            Self::Proxied(client) => service_proxy::query(client, settings, query).await,
        }
    }
}
