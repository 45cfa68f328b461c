//! `ModelRoute`: routes the requests for a model name to ModelServers.
//!
//! Source: Kthena `pkg/apis/networking/v1alpha1/modelroute_types.go`.

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use crate::api::lenient;

/// The fields of a ModelRoute's spec that the operator reads.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "networking.serving.volcano.sh",
    version = "v1alpha1",
    kind = "ModelRoute",
    plural = "modelroutes",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelRouteSpec {
    /// Name that clients send; empty if the route is only for adapters.
    #[serde(deserialize_with = "lenient")]
    pub model_name: Option<String>,
    /// LoRA adapters; clients send their names, too.
    #[serde(deserialize_with = "lenient")]
    pub lora_adapters: Option<Vec<String>>,
    /// Rules; the first one that matches a request applies.
    #[serde(deserialize_with = "lenient")]
    pub rules: Option<Vec<RouteRule>>,
}

/// Destinations of the requests that match a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// Destinations; the router picks one for each request, by weight.
    pub target_models: Vec<TargetModel>,
}

/// One destination of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetModel {
    /// ModelServer in the route's namespace; absent for a provider outside the cluster.
    pub model_server_name: Option<String>,
    /// Weight; absent for 100.
    pub weight: Option<u32>,
}
