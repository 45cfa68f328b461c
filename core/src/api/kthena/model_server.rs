//! `ModelServer`: which pods serve, with what engine, on which port.
//!
//! Source: Kthena `pkg/apis/networking/v1alpha1/modelserver_types.go`.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::api::lenient;

/// What we look at of a ModelServer's spec.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "networking.serving.volcano.sh",
    version = "v1alpha1",
    kind = "ModelServer",
    plural = "modelservers",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelServerSpec {
    /// Which pods of its namespace serve.
    #[serde(deserialize_with = "lenient")]
    pub workload_selector: Option<WorkloadSelector>,
    /// `vLLM` or `SGLang`.
    #[serde(deserialize_with = "lenient")]
    pub inference_engine: Option<String>,
    /// Where they listen.
    #[serde(deserialize_with = "lenient")]
    pub workload_port: Option<WorkloadPort>,
}

/// Which pods serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that all of them have.
    pub match_labels: BTreeMap<String, String>,
    /// Whether prefill and decode are done by different pods.
    #[serde(deserialize_with = "is_there")]
    pub pd_group: bool,
}

/// Where engines listen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPort {
    /// The number.
    pub port: u16,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}
