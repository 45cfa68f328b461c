//! The Prometheus Operator's kinds: what we write, and what we read of others' to see who scrapes the router already.

mod endpoint;
mod pod_monitor;
mod service_monitor;

pub use endpoint::{Endpoint, NamespaceSelector, Relabeling};
pub use pod_monitor::{PodMonitor, PodMonitorSpec};
pub use service_monitor::{ServiceMonitor, ServiceMonitorSpec};
