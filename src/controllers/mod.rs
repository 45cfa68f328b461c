//! The controllers of ModelServings, the router's ServiceMonitor and profiles, the signal probe, and dry runs.

mod foreign_fields;
pub mod keda_silence;
mod lagging_models;
pub mod measurements;
pub mod model_serving;
pub mod profile;
pub mod router_monitor;
pub mod shadow;
pub mod signal_probe;
mod throttle;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{Notify, watch};

use crate::{
    cluster::discovery::ServedApis, settings::Settings, sources::Caches, telemetry::metrics::Metrics,
};

/// Dependencies that all controllers share: handles without state of their own.
#[derive(Clone)]
pub struct Context {
    /// Client of the API server; its writes are refused while this instance does not lead.
    pub client: Client,
    /// Settings of the process.
    pub settings: Settings,
    /// This instance writes the objects that exist once for all models.
    pub cluster_duties: bool,
    /// Image of the stand-ins that this instance makes, if it makes any.
    pub stand_in_image: Option<String>,
    /// APIs that the cluster serves; `None` before the first discovery.
    pub served: watch::Receiver<Option<ServedApis>>,
    /// Asks for discovery at once.
    pub rediscover: Arc<Notify>,
    /// Caches of the watches and of the signal probe.
    pub caches: Arc<Caches>,
    /// Metrics of the process.
    pub metrics: Metrics,
}
