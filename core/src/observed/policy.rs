//! AutoscalingPolicies and AutoscalingPolicyBindings of Kthena's own autoscaler.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    api::{
        BestEffort, LenientDe, fields,
        kthena::{AutoscalingPolicy, AutoscalingPolicyBinding, AutoscalingPolicyBindingSpec, PolicyTargets},
        metadata::LeanMetadata,
    },
    domain::Key,
};

/// An AutoscalingPolicy as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicy, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<PolicyTargets>>>")]
pub struct LivePolicy {
    /// Name and identity.
    pub metadata: ObjectMeta,
    targets: PolicyTargets,
}

/// An AutoscalingPolicyBinding as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingPolicyBinding, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<AutoscalingPolicyBindingSpec>>>")]
pub struct LiveBinding {
    /// Name and identity.
    pub metadata: ObjectMeta,
    spec: AutoscalingPolicyBindingSpec,
}

#[derive(Default)]
struct Wire<S> {
    metadata: LeanMetadata<IgnoredAny>,
    spec: S,
}

fields!(Wire<S> where S { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<Wire<BestEffort<PolicyTargets>>>> for LivePolicy {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<PolicyTargets>>>) -> Self {
        Self { metadata: wire.metadata.into(), targets: wire.spec.0.unwrap_or_default() }
    }
}

impl From<LenientDe<Wire<BestEffort<AutoscalingPolicyBindingSpec>>>> for LiveBinding {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<AutoscalingPolicyBindingSpec>>>) -> Self {
        Self { metadata: wire.metadata.into(), spec: wire.spec.0.unwrap_or_default() }
    }
}

/// Digest of either kind: the ModelServings that it scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDigest {
    targets: Vec<Key>,
    /// ModelServings whose roles it scales.
    role_targets: Vec<Key>,
    /// Policy of a binding, without which Kthena ignores it; `None` for a policy.
    policy: Option<Key>,
}

impl PolicyDigest {
    /// ModelServings that it scales.
    pub fn model_servings(&self) -> &[Key] {
        &self.targets
    }

    /// ModelServings whose roles it scales.
    pub fn model_servings_of_roles(&self) -> &[Key] {
        &self.role_targets
    }

    /// `true` if it scales roles of this ModelServing.
    pub fn scales_roles(&self, namespace: &str, name: &str) -> bool {
        self.role_targets.iter().any(|(of, found)| of == namespace && found == name)
    }

    /// Policy of a binding.
    pub fn policy(&self) -> Option<&Key> {
        self.policy.as_ref()
    }

    /// `true` if it scales this ModelServing.
    pub fn scales(&self, namespace: &str, name: &str) -> bool {
        self.targets.iter().any(|(of, found)| of == namespace && found == name)
    }
}

impl From<&LivePolicy> for PolicyDigest {
    fn from(live: &LivePolicy) -> Self {
        let namespace = live.namespace().unwrap_or_default();
        let targets = live.targets.clone().of_policy();
        Self {
            targets: targets.model_servings(&namespace),
            role_targets: targets.model_servings_of_roles(&namespace),
            policy: None,
        }
    }
}

impl From<&LiveBinding> for PolicyDigest {
    fn from(live: &LiveBinding) -> Self {
        let namespace = live.namespace().unwrap_or_default();
        let policy = live.spec.policy_ref.as_ref().and_then(|policy| policy.name.clone());
        Self {
            targets: live.spec.targets.model_servings(&namespace),
            role_targets: live.spec.targets.model_servings_of_roles(&namespace),
            policy: policy.map(|name| (namespace, name)),
        }
    }
}
