//! Who else scales a ModelServing.

use kube::ResourceExt as _;

use super::{HpaDigest, Key, PolicyDigest, ScaledObjectDigest};
use crate::{api::kthena::ModelServing, plan::scaled_object_name};

/// Another autoscaler of the same ModelServing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rival {
    /// What it is.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: String,
}

/// Everything that scales anything.
#[derive(Clone, Copy, Debug)]
pub struct Autoscalers<'a> {
    /// ScaledObjects.
    pub scaled_objects: &'a [(&'a Key, &'a ScaledObjectDigest)],
    /// HPAs.
    pub hpas: &'a [(&'a Key, &'a HpaDigest)],
    /// Kthena's policies.
    pub policies: &'a [(&'a Key, &'a PolicyDigest)],
    /// Kthena's bindings.
    pub bindings: &'a [(&'a Key, &'a PolicyDigest)],
}

impl Autoscalers<'_> {
    /// Whoever scales it besides us. KEDA's HPAs speak for their ScaledObjects; ours, also of a ScaledObject just deleted, is none.
    pub fn rivals(&self, model_serving: &ModelServing) -> Vec<Rival> {
        let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
        let ours = scaled_object_name(model_serving);
        let here = |key: &Key| key.0 == namespace;
        let rival = |kind: &'static str, key: &Key| Rival { kind, name: format!("{}/{}", key.0, key.1) };
        let hpas = self.hpas.iter().filter(|(key, hpa)| here(key) && !hpa.is_kedas && hpa.target.is(&name));
        let scaled = self.scaled_objects.iter().filter(|(key, found)| here(key) && key.1 != ours && found.target.is(&name));
        let policies = self.policies.iter().filter(|(_, policy)| policy.scales(&namespace, &name));
        let bindings = self.bindings.iter().filter(|(_, binding)| binding.scales(&namespace, &name));
        let owners = model_serving.metadata.owner_references.iter().flatten();
        let groups = owners.filter(|owner| owner.kind == "LeaderWorkerSet");
        let mut rivals: Vec<Rival> = hpas.map(|(key, _)| rival("HorizontalPodAutoscaler", key)).collect();
        rivals.extend(scaled.map(|(key, _)| rival("ScaledObject", key)));
        rivals.extend(policies.map(|(key, _)| rival("AutoscalingPolicy", key)));
        rivals.extend(bindings.map(|(key, _)| rival("AutoscalingPolicyBinding", key)));
        rivals.extend(groups.map(|owner| Rival { kind: "LeaderWorkerSet", name: format!("{namespace}/{}", owner.name) }));
        rivals.sort();
        rivals
    }
}
