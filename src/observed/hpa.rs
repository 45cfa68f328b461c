//! HPAs as they stand: KEDA's of our ScaledObject, and anybody else's that scales the same.

use k8s_openapi::{api::autoscaling::v2::HorizontalPodAutoscaler, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, de::IgnoredAny};

use super::{Key, told::Told, topics};
use crate::{
    api::{Read, fields, kthena::ModelServing, metadata::LeanMetadata},
    process::index::{Digest, Topic},
};

/// An HPA as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = HorizontalPodAutoscaler)]
#[serde(from = "Read<Wire>")]
pub struct LiveHpa {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    target: ScaleTarget,
    told: Vec<Told>,
}

/// What is scaled.
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
    conditions: Vec<Told>,
}

fields!(Status { "conditions" => conditions });

impl From<Read<Wire>> for LiveHpa {
    fn from(Read(wire): Read<Wire>) -> Self {
        Self { metadata: wire.metadata.into(), target: wire.spec.scale_target_ref, told: wire.status.conditions }
    }
}

impl ScaleTarget {
    /// Whether it is the ModelServing of this name, whatever the version.
    pub fn is(&self, name: &str) -> bool {
        self.is_a_model_serving() && self.name == name
    }

    /// The ModelServing that it is, if it is one.
    pub(super) fn topic(&self, namespace: &str) -> Option<Topic> {
        self.is_a_model_serving().then(|| topics::model_serving(namespace, &self.name))
    }

    fn is_a_model_serving(&self) -> bool {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        group == ModelServing::GROUP && self.kind == ModelServing::KIND
    }
}

impl Digest for HpaDigest {
    fn topics(&self, (namespace, _): &Key) -> Vec<Topic> {
        self.target.topic(namespace).into_iter().collect()
    }
}

/// What matters of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpaDigest {
    /// What it scales.
    pub target: ScaleTarget,
    /// Whether KEDA made it, for a ScaledObject.
    pub is_kedas: bool,
    /// What the HPA controller says of it.
    pub told: Vec<Told>,
}

impl From<&LiveHpa> for HpaDigest {
    fn from(live: &LiveHpa) -> Self {
        let owners = live.metadata.owner_references.iter().flatten();
        Self {
            target: live.target.clone(),
            is_kedas: owners.into_iter().any(|owner| owner.kind == "ScaledObject"),
            told: live.told.clone(),
        }
    }
}
