//! `AutoscalingPolicy` and `AutoscalingPolicyBinding`: Kthena's own autoscaler, in every shape in which it was released.
//!
//! From 1.0 on a policy holds its targets; before that a binding does, whose fields were named otherwise in 0.1.
//! Source: Kthena `pkg/apis/workload/v1alpha1/autoscalingpolicy_types.go` and `autoscalingpolicybinding_types.go`.

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use crate::api::lenient;

/// What we look at of a policy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "workload.serving.volcano.sh",
    version = "v1alpha1",
    kind = "AutoscalingPolicy",
    plural = "autoscalingpolicies",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingPolicySpec {
    /// What is scaled.
    #[serde(flatten)]
    pub targets: PolicyTargets,
}

/// What we look at of a binding.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "workload.serving.volcano.sh",
    version = "v1alpha1",
    kind = "AutoscalingPolicyBinding",
    plural = "autoscalingpolicybindings",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingPolicyBindingSpec {
    /// What is scaled.
    #[serde(flatten)]
    pub targets: PolicyTargets,
}

/// What is scaled, under every name that a release has for it. A target of roles alone is left out: it writes another field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargets {
    /// One target; `scalingConfiguration` in 0.1.
    #[serde(alias = "scalingConfiguration", deserialize_with = "lenient")]
    pub homogeneous_target: Option<One>,
    /// Several targets; `optimizerConfiguration` in 0.1.
    #[serde(alias = "optimizerConfiguration", deserialize_with = "lenient")]
    pub heterogeneous_target: Option<Several>,
}

/// One target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct One {
    /// What it names.
    pub target: PolicyTarget,
}

/// Several targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Several {
    /// Each with its own cost.
    pub params: Vec<One>,
}

/// What a target names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTarget {
    /// The object.
    pub target_ref: TargetRef,
    /// A part of it, such as a role.
    pub sub_targets: Option<SubTarget>,
}

/// A part of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubTarget {
    /// `Role`.
    pub kind: Option<String>,
}

/// An object, which may be in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `ModelServing` where it is absent.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The policy's own where it is absent.
    pub namespace: Option<String>,
}

impl PolicyTargets {
    /// The ModelServings whose ServingGroups are scaled, by namespace and name.
    pub fn model_servings(&self, own_namespace: &str) -> Vec<(String, String)> {
        let one = self.homogeneous_target.iter();
        let targets = one
            .chain(self.heterogeneous_target.iter().flat_map(|several| &several.params))
            .map(|one| &one.target);
        let whole = targets.filter(|target| {
            target.sub_targets.as_ref().is_none_or(|part| part.kind.as_deref() != Some("Role"))
        });
        let named = whole.map(|target| &target.target_ref).filter(|target| {
            target.kind.as_deref().is_none_or(|kind| kind == "ModelServing" || kind.is_empty())
        });
        named
            .filter_map(|target| {
                let namespace = target
                    .namespace
                    .as_deref()
                    .filter(|namespace| !namespace.is_empty())
                    .unwrap_or(own_namespace);
                Some((namespace.to_owned(), target.name.clone()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::v0_1(json!({"scalingConfiguration": {"target": {"targetRef": {"name": "a"}}}}), &["n/a"])]
    #[case::v0_1_several(json!({"optimizerConfiguration": {"params": [{"target": {"targetRef": {"name": "a", "namespace": "o"}}}]}}), &["o/a"])]
    #[case::v0_2(json!({"homogeneousTarget": {"target": {"targetRef": {"kind": "ModelServing", "name": "a"}}}}), &["n/a"])]
    #[case::v0_2_role(json!({"homogeneousTarget": {"target": {"targetRef": {"name": "a"}, "subTargets": {"kind": "Role", "name": "decode"}}}}), &[])]
    #[case::v1_0(json!({"heterogeneousTarget": {"params": [{"target": {"targetRef": {"name": "a"}}}, {"target": {"targetRef": {"name": "b"}}}]}}), &["n/a", "n/b"])]
    #[case::v1_0_roles(json!({"disaggregatedTarget": {"targetRef": {"name": "a"}}}), &[])]
    #[case::another_kind(json!({"homogeneousTarget": {"target": {"targetRef": {"kind": "Deployment", "name": "a"}}}}), &[])]
    #[case::odd(json!({"homogeneousTarget": 3}), &[])]
    fn every_shape(#[case] spec: Value, #[case] expected: &[&str]) {
        let policy: AutoscalingPolicySpec = serde_json::from_value(spec).unwrap();
        let found: Vec<String> = policy
            .targets
            .model_servings("n")
            .into_iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        assert_eq!(found, expected);
    }
}
