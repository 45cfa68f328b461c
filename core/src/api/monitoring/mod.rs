//! The Prometheus Operator's kinds. The operator writes its own monitors, and reads those of other owners to
//! detect one that scrapes the router.

mod endpoint;
mod pod_monitor;
mod service_monitor;
mod tls;

pub use endpoint::{Endpoint, NamespaceSelector, Relabeling};
pub use pod_monitor::{PodMonitor, PodMonitorSpec};
pub use service_monitor::{ServiceMonitor, ServiceMonitorSpec};
pub use tls::{KeyReference, Scheme, SecretOrConfigMap, TlsConfig};
