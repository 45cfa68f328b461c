//! The operator's own queries to Prometheus, limited in time and size; KEDA has its own connection.
//!
//! In: the address of a Prometheus and a query. Out: samples, or an error text for users.

mod client;
mod external_metrics;
mod range;
mod response;
mod service_proxy;

pub use client::{ClientConfig, ClientConfigError, Prometheus};
pub use external_metrics::external_metric;
pub use range::{RangeError, RangeQuery, RangeStats, query_ranges};
pub use response::read;

use std::time::Duration;

use kube::Client;
use reqwest::StatusCode;

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
        if let Some(error) = unsigned(settings) {
            return Err(error);
        }
        match self {
            Self::Direct(prometheus) => prometheus.query(settings, query).await,
            Self::Proxied(client) => service_proxy::query(client, settings, query).await,
        }
    }

    /// Requests a path of the API, and returns the status and the body.
    async fn api(
        &self,
        settings: &PrometheusSettings,
        path: &str,
        parameters: &[(&str, &str)],
        limit: Duration,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        match self {
            Self::Direct(prometheus) => prometheus.api(settings, path, parameters, limit).await,
            Self::Proxied(client) => service_proxy::api(client, settings, path, parameters, limit).await,
        }
    }
}

/// Error for a Prometheus that requires signatures.
fn unsigned(settings: &PrometheusSettings) -> Option<String> {
    let region = settings.aws_region.as_ref()?;
    Some(format!("queries to {region} need a signature for AWS, which the operator cannot make"))
}
