//! `ModelServer`: the pods that serve a model, their engine and their port.
//!
//! Source: Kthena `pkg/apis/networking/v1alpha1/modelserver_types.go`.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::api::lenient;

/// The fields of a ModelServer's spec that the operator reads.
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
    /// Selector of the pods, in the ModelServer's namespace.
    #[serde(deserialize_with = "lenient")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Name to which the router changes the model name of a request.
    #[serde(deserialize_with = "lenient")]
    pub model: Option<String>,
    /// Inference engine: `vLLM` or `SGLang`.
    #[serde(deserialize_with = "lenient")]
    pub inference_engine: Option<String>,
    /// Port on which the engines listen.
    #[serde(deserialize_with = "lenient")]
    pub workload_port: Option<WorkloadPort>,
}

/// Selector of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Labels that the pods have.
    pub match_labels: BTreeMap<String, String>,
    /// `true` if different pods do prefill and decode.
    #[serde(deserialize_with = "is_present")]
    pub pd_group: bool,
}

/// Port on which the engines listen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadPort {
    /// Port number.
    pub port: u16,
    /// Protocol of the engines: `http` or `https`.
    #[serde(default, deserialize_with = "lenient")]
    pub protocol: Option<String>,
}

fn is_present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}
