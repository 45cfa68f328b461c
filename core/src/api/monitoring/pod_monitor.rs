//! `PodMonitor`: selects pods for Prometheus to scrape.
//!
//! Source: Prometheus Operator `pkg/apis/monitoring/v1/podmonitor_types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use super::{Endpoint, NamespaceSelector};

/// The fields of a PodMonitor's spec that the operator reads or sets.
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
    /// Namespaces of the pods.
    #[serde(default)]
    pub namespace_selector: NamespaceSelector,
    /// Labels of the pods.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Labels of the pods that become labels of the series.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_target_labels: Vec<String>,
    /// Samples of one scrape that are kept, beyond which the scrape fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_limit: Option<u64>,
    /// Ports of each pod; an atomic list.
    #[serde(default)]
    pub pod_metrics_endpoints: Vec<Endpoint>,
}
