//! kthena-router: its Services, and the monitors that may scrape it.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString};
use kube_core::ResourceExt as _;

use super::{MonitorDigest, Ownership};
use crate::domain::Key;

/// Inputs of the plan for the router's ServiceMonitor.
#[derive(Clone, Debug, Default)]
pub struct ObservedRouter {
    /// Namespace of the router.
    pub namespace: String,
    /// Services of that namespace.
    pub services: Vec<RouterService>,
    /// Object with the name of the generated ServiceMonitor, of any owner.
    pub service_monitor: Option<MonitorDigest>,
    /// All ServiceMonitors, the generated one included, by namespace and name.
    pub service_monitors: Vec<(Key, MonitorDigest)>,
    /// All PodMonitors, by namespace and name.
    pub pod_monitors: Vec<(Key, MonitorDigest)>,
}

impl ObservedRouter {
    /// Ownership of the object with the name of the generated ServiceMonitor.
    pub fn ownership(&self) -> Ownership {
        self.service_monitor.as_ref().map_or(Ownership::Absent, |digest| digest.owned.ownership(None))
    }
}

/// Digest of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterService {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Labels by which it selects pods.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<RouterPort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPort {
    /// Name; empty if it has none.
    pub name: String,
    /// Container port, by name or number.
    pub target: IntOrString,
}

impl From<&Service> for RouterService {
    fn from(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| RouterPort {
            name: port.name.unwrap_or_default(),
            target: port.target_port.unwrap_or(IntOrString::Int(port.port)),
        });
        Self {
            name: service.name_any(),
            labels: service.labels().clone(),
            selector: spec.selector.unwrap_or_default(),
            ports: ports.collect(),
        }
    }
}
