//! `ModelRoute`: which ModelServers a model name leads to.
//!
//! Source: Kthena `pkg/apis/networking/v1alpha1/modelroute_types.go`.

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use crate::api::lenient;

/// What we look at of a ModelRoute's spec.
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
    /// The name that clients send; empty where only adapters are routed.
    #[serde(deserialize_with = "lenient")]
    pub model_name: Option<String>,
    /// LoRA adapters, each a name that clients send, too.
    #[serde(deserialize_with = "lenient")]
    pub lora_adapters: Option<Vec<String>>,
    /// The first rule that matches a request counts.
    #[serde(deserialize_with = "lenient")]
    pub rules: Option<Vec<RouteRule>>,
}

/// Where requests of one kind go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// One of them is picked for each request, by weight.
    pub target_models: Vec<TargetModel>,
}

/// One place that requests go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetModel {
    /// A ModelServer in the route's namespace; none for a provider outside the cluster.
    pub model_server_name: Option<String>,
    /// Its share; 100 where it is absent.
    pub weight: Option<u32>,
}
