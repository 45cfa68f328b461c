//! What there is of kthena-router: its Services, and who scrapes them.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString};
use kube_core::ResourceExt as _;

use super::{MonitorDigest, Ownership};
use crate::domain::Key;

/// Everything that the plan for the router's ServiceMonitor depends on.
#[derive(Clone, Debug, Default)]
pub struct ObservedRouter {
    /// The namespace in which the router runs.
    pub namespace: String,
    /// The Services of that namespace.
    pub services: Vec<RouterService>,
    /// What stands under the name of our ServiceMonitor.
    pub service_monitor: Option<MonitorDigest>,
    /// Everybody's ServiceMonitors, ours included, by namespace and name.
    pub service_monitors: Vec<(Key, MonitorDigest)>,
    /// Everybody's PodMonitors, by namespace and name.
    pub pod_monitors: Vec<(Key, MonitorDigest)>,
}

impl ObservedRouter {
    /// Whose the object under the name of our ServiceMonitor is.
    pub fn ownership(&self) -> Ownership {
        self.service_monitor.as_ref().map_or(Ownership::Absent, |digest| digest.owned.ownership(None))
    }
}

/// What matters of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterService {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of its pods, as far as it names them.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<RouterPort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPort {
    /// Its name; empty if it has none.
    pub name: String,
    /// The container's port, by name or number.
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
