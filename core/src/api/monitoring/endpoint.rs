//! What ServiceMonitors and PodMonitors have in common: where they look, and what they scrape there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::api::lenient;

/// The namespaces in which a monitor looks; by default its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// All of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any: bool,
    /// These, if any are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_names: Vec<String>,
}

/// One port that is scraped of whatever was selected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name of the Service's port, or of the container's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The container's port by name or number; `port` wins.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// The container's port by number; PodMonitors only.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub port_number: Option<i32>,
    /// The path, `/metrics` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often, as a Prometheus duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// What becomes of each target's labels, in this order, before it is scraped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relabelings: Vec<Relabeling>,
    /// What somebody else added; never written, but seen, since the list belongs to one owner as a whole.
    #[serde(flatten)]
    pub foreign: BTreeMap<String, serde_json::Value>,
}

/// One change of a target's labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relabeling {
    /// What is done, such as `replace`, `drop` or `labeldrop`.
    #[serde(default)]
    pub action: String,
    /// The labels whose values are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// What the values, or the names of labels, must match as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The label that is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    /// What it is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// What somebody else added; never written, but seen.
    #[serde(flatten)]
    pub foreign: BTreeMap<String, serde_json::Value>,
}
