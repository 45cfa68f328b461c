//! Kthena's own autoscaler: what its policies and bindings scale.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, de::IgnoredAny};

use super::{Key, topics};
use crate::{
    api::{
        Read, Whole, fields,
        kthena::{AutoscalingPolicy, AutoscalingPolicyBinding, PolicyTargets},
        metadata::LeanMetadata,
    },
    process::index::{Digest, Topic},
};

/// An AutoscalingPolicy as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicy)]
#[serde(from = "Read<Wire>")]
pub struct LivePolicy {
    /// Name and identity.
    pub metadata: ObjectMeta,
    targets: PolicyTargets,
}

/// An AutoscalingPolicyBinding as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicyBinding)]
#[serde(from = "Read<Wire>")]
pub struct LiveBinding {
    /// Name and identity.
    pub metadata: ObjectMeta,
    targets: PolicyTargets,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<IgnoredAny>,
    spec: Whole<PolicyTargets>,
}

fields!(Wire { "metadata" => metadata, "spec" => spec });

impl From<Read<Wire>> for LivePolicy {
    fn from(Read(wire): Read<Wire>) -> Self {
        Self { metadata: wire.metadata.into(), targets: wire.spec.0.unwrap_or_default() }
    }
}

impl From<Read<Wire>> for LiveBinding {
    fn from(Read(wire): Read<Wire>) -> Self {
        Self { metadata: wire.metadata.into(), targets: wire.spec.0.unwrap_or_default() }
    }
}

/// What matters of either: the ModelServings that it scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDigest(Vec<Key>);

impl PolicyDigest {
    /// Whether it scales this ModelServing.
    pub fn scales(&self, namespace: &str, name: &str) -> bool {
        self.0.iter().any(|(of, found)| of == namespace && found == name)
    }
}

impl Digest for PolicyDigest {
    fn topics(&self, _: &Key) -> Vec<Topic> {
        self.0.iter().map(|(namespace, name)| topics::model_serving(namespace, name)).collect()
    }
}

impl From<&LivePolicy> for PolicyDigest {
    fn from(live: &LivePolicy) -> Self {
        Self(live.targets.model_servings(&live.namespace().unwrap_or_default()))
    }
}

impl From<&LiveBinding> for PolicyDigest {
    fn from(live: &LiveBinding) -> Self {
        Self(live.targets.model_servings(&live.namespace().unwrap_or_default()))
    }
}
