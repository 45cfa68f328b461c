//! AutoscalingPolicies and AutoscalingPolicyBindings of Kthena's own autoscaler.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    api::{
        BestEffort, LenientDe, fields,
        kthena::{AutoscalingPolicy, AutoscalingPolicyBinding, PolicyTargets},
        metadata::LeanMetadata,
    },
    domain::Key,
};

/// An AutoscalingPolicy as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicy, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LivePolicy {
    /// Name and identity.
    pub metadata: ObjectMeta,
    targets: PolicyTargets,
}

/// An AutoscalingPolicyBinding as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicyBinding, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveBinding {
    /// Name and identity.
    pub metadata: ObjectMeta,
    targets: PolicyTargets,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<IgnoredAny>,
    spec: BestEffort<PolicyTargets>,
}

fields!(Wire { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<Wire>> for LivePolicy {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        Self { metadata: wire.metadata.into(), targets: wire.spec.0.unwrap_or_default() }
    }
}

impl From<LenientDe<Wire>> for LiveBinding {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        Self { metadata: wire.metadata.into(), targets: wire.spec.0.unwrap_or_default() }
    }
}

/// Digest of either kind: the ModelServings that it scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDigest(Vec<Key>);

impl PolicyDigest {
    /// ModelServings that it scales.
    pub fn model_servings(&self) -> &[Key] {
        &self.0
    }

    /// `true` if it scales this ModelServing.
    pub fn scales(&self, namespace: &str, name: &str) -> bool {
        self.0.iter().any(|(of, found)| of == namespace && found == name)
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
