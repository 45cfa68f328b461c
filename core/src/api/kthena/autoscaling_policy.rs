//! `AutoscalingPolicy` and `AutoscalingPolicyBinding`: Kthena's own autoscaler, in the shapes of all
//! releases.
//!
//! In 1.0 and later a policy holds the targets. Before, a binding holds them, and its fields have other names
//! in 0.1. Source: Kthena `pkg/apis/workload/v1alpha1/autoscalingpolicy_types.go` and
//! `autoscalingpolicybinding_types.go`.

use kube_derive::CustomResource;
use serde::{Deserialize, Serialize};

use super::ModelServing;
use crate::api::lenient;

/// The fields of a policy that the operator reads.
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
    /// Scaled objects.
    #[serde(flatten)]
    pub targets: PolicyTargets,
}

/// The fields of a binding that the operator reads.
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
    /// Policy, in the binding's namespace.
    #[serde(deserialize_with = "lenient")]
    pub policy_ref: Option<PolicyRef>,
    /// Scaled objects.
    #[serde(flatten)]
    pub targets: PolicyTargets,
}

/// The policy of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyRef {
    /// Name.
    pub name: Option<String>,
}

/// Scaled objects, under the field names of all releases. Targets that are only roles are missing, because
/// they scale another field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTargets {
    /// One target; `scalingConfiguration` in 0.1.
    #[serde(alias = "scalingConfiguration", deserialize_with = "lenient")]
    pub homogeneous_target: Option<SingleTarget>,
    /// Several targets; `optimizerConfiguration` in 0.1.
    #[serde(alias = "optimizerConfiguration", deserialize_with = "lenient")]
    pub heterogeneous_target: Option<MultipleTargets>,
    /// Roles of one target, in 1.0 and later.
    #[serde(deserialize_with = "lenient")]
    pub disaggregated_target: Option<PolicyTarget>,
}

/// One target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SingleTarget {
    /// Scaled object, or a part of it.
    pub target: PolicyTarget,
}

/// Several targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultipleTargets {
    /// Targets, each with its own cost.
    pub params: Vec<SingleTarget>,
}

/// Scaled object, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyTarget {
    /// The scaled object.
    pub target_ref: TargetRef,
    /// Part of the object, such as a role.
    pub sub_targets: Option<SubTarget>,
}

/// A part of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubTarget {
    /// Kind of the part: `Role`.
    pub kind: Option<String>,
}

/// An object, which may be in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// Group and version; absent for a `ModelServing`. Releases before 1.0 do not look at it.
    pub api_version: Option<String>,
    /// Kind; absent for a `ModelServing`.
    pub kind: Option<String>,
    /// Name of the object.
    pub name: Option<String>,
    /// Namespace; absent for the policy's own.
    pub namespace: Option<String>,
}

impl PolicyTargets {
    /// The targets that Kthena 1.0 and later accepts: those of another API group are left out.
    #[must_use]
    pub fn of_policy(mut self) -> Self {
        self.homogeneous_target = self.homogeneous_target.filter(|target| target.target.is_of_kthena());
        self.disaggregated_target = self.disaggregated_target.filter(PolicyTarget::is_of_kthena);
        if let Some(several) = &mut self.heterogeneous_target {
            several.params.retain(|target| target.target.is_of_kthena());
        }
        self
    }

    /// Namespaces and names of the ModelServings whose roles the policy scales.
    pub fn model_servings_of_roles(&self, own_namespace: &str) -> Vec<(String, String)> {
        let several = self.heterogeneous_target.iter().flat_map(|several| &several.params);
        let parts = self.homogeneous_target.iter().chain(several).map(|target| &target.target);
        let parts = parts.filter(|target| target.is_a_role());
        self.disaggregated_target
            .iter()
            .chain(parts)
            .filter_map(|target| target.named_model_serving(own_namespace))
            .collect()
    }

    /// Namespaces and names of the ModelServings whose ServingGroups the policy scales.
    pub fn model_servings(&self, own_namespace: &str) -> Vec<(String, String)> {
        let several = self.heterogeneous_target.iter().flat_map(|several| &several.params);
        self.homogeneous_target
            .iter()
            .chain(several)
            .filter_map(|target| target.target.model_serving(own_namespace))
            .collect()
    }
}

impl PolicyTarget {
    fn is_of_kthena(&self) -> bool {
        let group =
            |version: &str| version.split_once('/').map_or("", |(group, _)| group) == ModelServing::GROUP;
        self.target_ref.api_version.as_deref().is_none_or(|version| version.is_empty() || group(version))
    }

    /// Namespace and name, if the target is a whole ModelServing.
    fn model_serving(&self, own_namespace: &str) -> Option<(String, String)> {
        if self.is_a_role() { None } else { self.named_model_serving(own_namespace) }
    }

    fn is_a_role(&self) -> bool {
        self.sub_targets.as_ref().and_then(|part| part.kind.as_deref()) == Some("Role")
    }

    /// Namespace and name, if the target is a ModelServing or a part of one.
    fn named_model_serving(&self, own_namespace: &str) -> Option<(String, String)> {
        let TargetRef { api_version: _, kind, name, namespace } = &self.target_ref;
        if !matches!(kind.as_deref(), None | Some("" | "ModelServing")) {
            return None;
        }
        let namespace =
            namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(own_namespace);
        Some((namespace.to_owned(), name.clone()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::v0_2(json!({"homogeneousTarget": {"target": {"targetRef": {"name": "a"}, "subTargets": {"kind": "Role", "name": "decode"}}}}), &["n/a"])]
    #[case::v1_0(json!({"disaggregatedTarget": {"targetRef": {"name": "a"}, "roles": {"decode": {"maxReplicas": 4}}}}), &["n/a"])]
    #[case::groups(json!({"homogeneousTarget": {"target": {"targetRef": {"name": "a"}}}}), &[])]
    fn finds_targets_whose_roles_are_scaled(#[case] spec: Value, #[case] expected: &[&str]) {
        let policy: AutoscalingPolicySpec = serde_json::from_value(spec).unwrap();
        let found = policy.targets.model_servings_of_roles("n");
        let found: Vec<String> =
            found.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case::v0_1(json!({"scalingConfiguration": {"target": {"targetRef": {"name": "a"}}}}), &["n/a"])]
    #[case::v0_1_several(json!({"optimizerConfiguration": {"params": [{"target": {"targetRef": {"name": "a", "namespace": "o"}}}]}}), &["o/a"])]
    #[case::v0_2(json!({"homogeneousTarget": {"target": {"targetRef": {"kind": "ModelServing", "name": "a"}}}}), &["n/a"])]
    #[case::v0_2_role(json!({"homogeneousTarget": {"target": {"targetRef": {"name": "a"}, "subTargets": {"kind": "Role", "name": "decode"}}}}), &[])]
    #[case::v1_0(json!({"heterogeneousTarget": {"params": [{"target": {"targetRef": {"name": "a"}}}, {"target": {"targetRef": {"name": "b"}}}]}}), &["n/a", "n/b"])]
    #[case::v1_0_roles(json!({"disaggregatedTarget": {"targetRef": {"name": "a"}}}), &[])]
    #[case::another_kind(json!({"homogeneousTarget": {"target": {"targetRef": {"kind": "Deployment", "name": "a"}}}}), &[])]
    #[case::odd(json!({"homogeneousTarget": 3}), &[])]
    fn finds_targets_of_each_release(#[case] spec: Value, #[case] expected: &[&str]) {
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
