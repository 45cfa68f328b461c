//! `ServiceMonitor`: has Prometheus scrape what stands behind a Service.
//!
//! Source: Prometheus Operator `pkg/apis/monitoring/v1/servicemonitor_types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use super::{Endpoint, NamespaceSelector};

/// What we set, or look at, of a ServiceMonitor's spec.
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
    /// Where it looks.
    #[serde(default)]
    pub namespace_selector: NamespaceSelector,
    /// Which Services it selects, by their labels.
    #[serde(default)]
    pub selector: LabelSelector,
    /// What is scraped of each; an atomic list.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}
