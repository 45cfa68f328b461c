//! Fields that ServiceMonitors and PodMonitors share: their namespaces and their endpoints.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::api::lenient;

/// Namespaces of the targets; by default the monitor's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// All namespaces.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any: bool,
    /// These namespaces, unless the list is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_names: Vec<String>,
}

/// One port of each selected target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name of the port of the Service or of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Port of the container by name or number; `port` takes precedence.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Port of the container by number; PodMonitors only.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub port_number: Option<i32>,
    /// Path, `/metrics` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Interval between scrapes, as a Prometheus duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Protocol, `http` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// TLS settings: a [`TlsConfig`](super::TlsConfig), or all that another writer set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<serde_json::Value>,
    /// Changes of each target's labels before a scrape, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relabelings: Vec<Relabeling>,
    /// Changes of the samples after a scrape, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_relabelings: Vec<Relabeling>,
    /// Fields of other writers: decoded for comparison, because the list has one field manager as a whole,
    /// and never set.
    #[serde(flatten)]
    pub foreign: BTreeMap<String, serde_json::Value>,
}

/// One change of a target's labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relabeling {
    /// Action, such as `replace`, `drop` or `labeldrop`.
    #[serde(default)]
    pub action: String,
    /// Labels whose values the action matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// Anchored pattern for the values, or for the names of labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Label that the action sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    /// Value of the label that the action sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Fields of other writers: decoded for comparison and never set.
    #[serde(flatten)]
    pub foreign: BTreeMap<String, serde_json::Value>,
}
