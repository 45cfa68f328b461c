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

/// Scale target of an HPA or a ScaledObject, in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScaleTarget {
    /// The ModelServing of this name, in any version.
    ModelServing(Box<str>),
    /// The ModelServingRole of this name, in any version.
    Role(Box<str>),
    /// An object of another kind.
    #[default]
    Other,
}

/// A scale target as the API server sends it.
#[derive(Default)]
pub(super) struct WireTarget {
    api_version: String,
    kind: String,
    name: String,
}

fields!(WireTarget { "apiVersion" => api_version, "kind" => kind, "name" => name });

impl From<WireTarget> for ScaleTarget {
    fn from(WireTarget { api_version, kind, name }: WireTarget) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind.as_str()) {
            (ModelServing::GROUP, ModelServing::KIND) => Self::ModelServing(name.into()),
            (ModelServingRole::GROUP, ModelServingRole::KIND) => Self::Role(name.into()),
            _ => Self::Other,
        }
    }
}

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

fields!(Spec { "scaleTargetRef" => scale_target_ref as WireTarget });

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
    /// `true` if the target is the ModelServing of this name.
    pub fn is(&self, name: &str) -> bool {
        self.model_serving() == Some(name)
    }

    /// Name of the target if it is a ModelServing.
    pub fn model_serving(&self) -> Option<&str> {
        match self {
            Self::ModelServing(name) => Some(name),
            Self::Role(_) | Self::Other => None,
        }
    }

    /// Name of the target if it is a ModelServingRole.
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::Role(name) => Some(name),
            Self::ModelServing(_) | Self::Other => None,
        }
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
