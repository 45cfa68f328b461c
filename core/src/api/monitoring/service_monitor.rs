//! `ServiceMonitor`: selects Services whose endpoints Prometheus scrapes.
//!
//! Source: Prometheus Operator `pkg/apis/monitoring/v1/servicemonitor_types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use super::{Endpoint, NamespaceSelector};

/// The fields of a ServiceMonitor's spec that the operator reads or sets.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "ServiceMonitor",
    plural = "servicemonitors",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    /// Namespaces of the Services.
    #[serde(default)]
    pub namespace_selector: NamespaceSelector,
    /// Labels of the Services.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Ports of each Service; an atomic list.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}
