//! Asks Prometheus the operator's own questions, with limits to time and size; KEDA's are its own.
//!
//! In: where Prometheus is and what is asked. Out: elements, or why there are none, in words for a message.

mod answer;
mod client;
mod external;
mod proxied;

pub use answer::{Element, read};
pub use client::{Access, AccessError, Prometheus};
pub use external::external;

use kube::Client;

use crate::{intent::PrometheusSettings, promql::Expr};

/// A way to Prometheus.
#[derive(Clone)]
pub enum Asker {
    /// At its own address.
    Direct(Prometheus),
    /// Through the API server.
    Proxied(Client),
}

impl Asker {
    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub async fn ask(&self, settings: &PrometheusSettings, query: &Expr) -> Result<Vec<Element>, String> {
        self.ask_text(settings, &query.to_string()).await
    }

    /// Asks what is written already.
    ///
    /// # Errors
    /// Why there is no answer, in words for a message.
    pub async fn ask_text(&self, settings: &PrometheusSettings, query: &str) -> Result<Vec<Element>, String> {
        match self {
            Self::Direct(prometheus) => prometheus.ask(settings, query).await,
            Self::Proxied(client) => proxied::ask(client, settings, query).await,
        }
    }
}
