//! `ModelRoute`: routes the requests for a model name to ModelServers.
//!
//! Source: Kthena `pkg/apis/networking/v1alpha1/modelroute_types.go`.

use std::collections::BTreeMap;

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
    /// Gateways (Gateway API) that the route is attached to; absent for the router's own port.
    #[serde(deserialize_with = "lenient")]
    pub parent_refs: Option<Vec<ParentRef>>,
    /// Rules; the first one that matches a request applies.
    #[serde(deserialize_with = "lenient")]
    pub rules: Option<Vec<RouteRule>>,
}

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParentRef {
    /// Namespace; absent for the route's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

/// Destinations of the requests that match a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRule {
    /// Condition of the rule; absent for all requests.
    #[serde(deserialize_with = "lenient")]
    pub model_match: Option<ModelMatch>,
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

/// Condition of a rule; all of its parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelMatch {
    /// Headers by name.
    pub headers: Option<BTreeMap<String, StringMatch>>,
    /// Path of the request.
    pub uri: Option<StringMatch>,
    /// Body of the request.
    pub body: Option<BodyMatch>,
}

/// Condition on a string: the first part that is set applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// The whole string.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// A regular expression that matches a part of it.
    pub regex: Option<String>,
}

/// Condition on the body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BodyMatch {
    /// Model name or adapter.
    pub model: Option<String>,
}

/// Paths that a condition on the path matches, among those that the router sends to ModelServers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriMatch {
    /// All of them.
    All,
    /// Some of them.
    Some,
    /// None of them.
    None,
}

/// Beginning of the paths that the router sends to ModelServers (`pkg/kthena-router/router/router.go`).
const SERVED_PATHS: &str = "/v1/";

impl StringMatch {
    /// `true` if it matches every string.
    pub fn matches_everything(&self) -> bool {
        self.exact.is_none() && self.prefix.as_ref().map_or(self.regex.is_none(), String::is_empty)
    }

    /// Paths that ModelServers serve and that it matches.
    pub fn of_served_paths(&self) -> UriMatch {
        match self {
            Self { exact: Some(path), .. } if path.starts_with(SERVED_PATHS) => UriMatch::Some,
            Self { exact: Some(_), .. } => UriMatch::None,
            Self { prefix: Some(prefix), .. } if SERVED_PATHS.starts_with(prefix.as_str()) => UriMatch::All,
            Self { prefix: Some(prefix), .. } if prefix.starts_with(SERVED_PATHS) => UriMatch::Some,
            Self { prefix: Some(_), .. } => UriMatch::None,
            Self { regex: Some(_), .. } => UriMatch::Some,
            _ => UriMatch::All,
        }
    }
}
