//! The shells around the pure core: they observe, let `plan` decide, apply and report.

pub mod model_serving;
pub mod profile;
pub mod router_monitor;
pub mod signals_check;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{Notify, watch};

use crate::{cluster::capabilities::Served, observed::Stores, settings::Settings, telemetry::metrics::Metrics};

/// What every controller works with: handles, no state of its own.
#[derive(Clone)]
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// What the process was told.
    pub settings: Settings,
    /// Whether this is the instance that writes what there is once for all models.
    pub cluster_duties: bool,
    /// What the cluster serves.
    pub served: watch::Receiver<Option<Served>>,
    /// Asks for discovery at once.
    pub rediscover: Arc<Notify>,
    /// What the watches have seen.
    pub stores: Arc<Stores>,
    /// What is counted.
    pub metrics: Metrics,
}
