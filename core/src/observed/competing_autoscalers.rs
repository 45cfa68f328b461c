//! Other autoscalers of a ModelServing.

use kube_core::ResourceExt as _;

use super::{HpaDigest, PolicyDigest, ScaledObjectDigest};
use crate::{
    api::kthena::ModelServing,
    domain::{Key, shortened},
};

/// Another autoscaler of the same ModelServing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompetingAutoscaler {
    /// Kind of the autoscaler.
    pub kind: &'static str,
    /// Namespace and name, as `<namespace>/<name>`.
    pub name: String,
}

/// All autoscalers of the cluster, or of the part of it that may be listed.
#[derive(Clone, Copy, Debug)]
pub struct Autoscalers<'a> {
    /// ScaledObjects.
    pub scaled_objects: &'a [(&'a Key, &'a ScaledObjectDigest)],
    /// HPAs.
    pub hpas: &'a [(&'a Key, &'a HpaDigest)],
    /// Kthena's AutoscalingPolicies, those of the bindings among them.
    pub policies: &'a [(&'a Key, &'a PolicyDigest)],
    /// Kthena's AutoscalingPolicyBindings.
    pub bindings: &'a [(&'a Key, &'a PolicyDigest)],
}

impl Autoscalers<'_> {
    /// Other autoscalers of a ModelServing, sorted by kind and name.
    ///
    /// HPAs that KEDA created are left out: their ScaledObjects stand for them, and the HPA of a deleted
    /// ScaledObject outlives it for a moment.
    pub fn competing_with(&self, model_serving: &ModelServing) -> Vec<CompetingAutoscaler> {
        let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
        let own = model_serving.scaled_object_name();
        let hpas =
            self.hpas.iter().filter(|(key, hpa)| key.0 == namespace && !hpa.is_kedas && hpa.target.is(&name));
        let scaled = self
            .scaled_objects
            .iter()
            .filter(|(key, found)| key.0 == namespace && key.1 != own && found.target.is(&name));
        let policies = self.policies.iter().filter(|(_, policy)| policy.scales(&namespace, &name));
        let bindings = self
            .bindings
            .iter()
            .filter(|(_, binding)| binding.scales(&namespace, &name) && self.acts(binding));
        let owners = model_serving.metadata.owner_references.iter().flatten();
        let groups = owners.filter(|owner| owner.kind == "LeaderWorkerSet");
        let mut competing: Vec<CompetingAutoscaler> =
            hpas.map(|(key, _)| competitor("HorizontalPodAutoscaler", key)).collect();
        competing.extend(scaled.map(|(key, _)| competitor("ScaledObject", key)));
        competing.extend(policies.map(|(key, _)| competitor("AutoscalingPolicy", key)));
        competing.extend(bindings.map(|(key, _)| competitor("AutoscalingPolicyBinding", key)));
        competing.extend(groups.map(|owner| CompetingAutoscaler {
            kind: "LeaderWorkerSet",
            name: format!("{namespace}/{}", shortened(&owner.name)),
        }));
        competing.sort();
        competing
    }

    /// Other autoscalers of the roles of a ModelServing, sorted by kind and name.
    pub fn scaling_roles_of(&self, model_serving: &ModelServing) -> Vec<CompetingAutoscaler> {
        let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
        let policies = self.policies.iter().filter(|(_, policy)| policy.scales_roles(&namespace, &name));
        let bindings = self
            .bindings
            .iter()
            .filter(|(_, binding)| binding.scales_roles(&namespace, &name) && self.acts(binding));
        let mut scaling: Vec<CompetingAutoscaler> =
            policies.map(|(key, _)| competitor("AutoscalingPolicy", key)).collect();
        scaling.extend(bindings.map(|(key, _)| competitor("AutoscalingPolicyBinding", key)));
        scaling.sort();
        scaling
    }

    /// `true` if the policy of a binding exists. Kthena ignores a binding without it (Kthena 0.4
    /// `pkg/autoscaler/controller/autoscale_controller.go`).
    fn acts(&self, binding: &PolicyDigest) -> bool {
        binding.policy().is_some_and(|policy| self.policies.iter().any(|(key, _)| *key == policy))
    }
}

fn competitor(kind: &'static str, (namespace, name): &Key) -> CompetingAutoscaler {
    CompetingAutoscaler { kind, name: format!("{namespace}/{name}") }
}
