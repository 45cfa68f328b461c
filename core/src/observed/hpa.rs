//! HPAs: the one that KEDA creates for an owned ScaledObject, and those that compete with it.

use k8s_openapi::{
    api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};

use super::condition::ConditionDigest;
use crate::api::{
    LenientDe, fields, kthena::ModelServing, metadata::LeanMetadata, model_serving_role::ModelServingRole,
};

/// An HPA as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = HorizontalPodAutoscaler, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveHpa {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    target: ScaleTarget,
    conditions: Vec<ConditionDigest>,
}

/// Scale target of an HPA or a ScaledObject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleTarget {
    /// Group and version.
    api_version: String,
    /// Kind.
    kind: String,
    /// Name, in the same namespace.
    name: String,
}

fields!(ScaleTarget { "apiVersion" => api_version, "kind" => kind, "name" => name });

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<IgnoredAny>,
    spec: Spec,
    status: Status,
}

fields!(Wire { "metadata" => metadata, "spec" => spec, "status" => status });

#[derive(Default)]
struct Spec {
    scale_target_ref: ScaleTarget,
}

fields!(Spec { "scaleTargetRef" => scale_target_ref });

#[derive(Default)]
struct Status {
    conditions: Vec<ConditionDigest>,
}

fields!(Status { "conditions" => conditions });

impl From<LenientDe<Wire>> for LiveHpa {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        Self {
            metadata: wire.metadata.into(),
            target: wire.spec.scale_target_ref,
            conditions: wire.status.conditions,
        }
    }
}

impl ScaleTarget {
    /// `true` if the target is the ModelServing of this name, in any version.
    pub fn is(&self, name: &str) -> bool {
        self.is_a_model_serving() && self.name == name
    }

    /// Name of the target if it is a ModelServing.
    pub fn model_serving(&self) -> Option<&str> {
        self.is_a_model_serving().then_some(self.name.as_str())
    }

    /// Name of the target if it is a ModelServingRole.
    pub fn role(&self) -> Option<&str> {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        let is_role = group == ModelServingRole::GROUP && self.kind == ModelServingRole::KIND;
        is_role.then_some(self.name.as_str())
    }

    fn is_a_model_serving(&self) -> bool {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        group == ModelServing::GROUP && self.kind == ModelServing::KIND
    }
}

/// Digest of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaDigest {
    /// Scale target.
    pub target: ScaleTarget,
    /// `true` if a ScaledObject owns it, so KEDA created it.
    pub is_kedas: bool,
    /// Conditions reported by the HPA controller.
    pub conditions: Vec<ConditionDigest>,
}

impl From<&LiveHpa> for HpaDigest {
    fn from(live: &LiveHpa) -> Self {
        let owners = live.metadata.owner_references.iter().flatten();
        Self {
            target: live.target.clone(),
            is_kedas: owners.into_iter().any(|owner| owner.kind == "ScaledObject"),
            conditions: live.conditions.clone(),
        }
    }
}
