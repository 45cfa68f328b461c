//! The shells around the pure core: they observe, let `plan` decide, apply and report.

pub mod model_serving;
pub mod profile;
pub mod router_monitor;
pub mod signal_probe;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{Notify, watch};

use crate::{
    cluster::discovery::ServedApis, settings::Settings, sources::Caches, telemetry::metrics::Metrics,
};

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
    pub served: watch::Receiver<Option<ServedApis>>,
    /// Asks for discovery at once.
    pub rediscover: Arc<Notify>,
    /// What the watches have seen.
    pub caches: Arc<Caches>,
    /// What is counted.
    pub metrics: Metrics,
}
