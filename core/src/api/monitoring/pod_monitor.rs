//! `PodMonitor`: has Prometheus scrape pods.
//!
//! Source: Prometheus Operator `pkg/apis/monitoring/v1/podmonitor_types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use super::{Endpoint, NamespaceSelector};

/// What we set, or look at, of a PodMonitor's spec.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "PodMonitor",
    plural = "podmonitors",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct PodMonitorSpec {
    /// Where it looks.
    #[serde(default)]
    pub namespace_selector: NamespaceSelector,
    /// Which pods it selects, by their labels.
    #[serde(default)]
    pub selector: LabelSelector,
    /// The pods' labels that become labels of the series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_target_labels: Vec<String>,
    /// What is scraped of each; an atomic list.
    #[serde(default)]
    pub pod_metrics_endpoints: Vec<Endpoint>,
}
