//! Who else scales a ModelServing.

use kube_core::ResourceExt as _;

use super::{HpaDigest, PolicyDigest, ScaledObjectDigest};
use crate::{api::kthena::ModelServing, domain::Key};

/// Another autoscaler of the same ModelServing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompetingAutoscaler {
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
    pub fn competing_with(&self, model_serving: &ModelServing) -> Vec<CompetingAutoscaler> {
        let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
        let ours = model_serving.scaled_object_name();
        let here = |key: &Key| key.0 == namespace;
        let competitor = |kind: &'static str, key: &Key| CompetingAutoscaler {
            kind,
            name: format!("{}/{}", key.0, key.1),
        };
        let hpas = self.hpas.iter().filter(|(key, hpa)| here(key) && !hpa.is_kedas && hpa.target.is(&name));
        let scaled = self
            .scaled_objects
            .iter()
            .filter(|(key, found)| here(key) && key.1 != ours && found.target.is(&name));
        let policies = self.policies.iter().filter(|(_, policy)| policy.scales(&namespace, &name));
        let bindings = self.bindings.iter().filter(|(_, binding)| binding.scales(&namespace, &name));
        let owners = model_serving.metadata.owner_references.iter().flatten();
        let groups = owners.filter(|owner| owner.kind == "LeaderWorkerSet");
        let mut competing: Vec<CompetingAutoscaler> =
            hpas.map(|(key, _)| competitor("HorizontalPodAutoscaler", key)).collect();
        competing.extend(scaled.map(|(key, _)| competitor("ScaledObject", key)));
        competing.extend(policies.map(|(key, _)| competitor("AutoscalingPolicy", key)));
        competing.extend(bindings.map(|(key, _)| competitor("AutoscalingPolicyBinding", key)));
        competing.extend(groups.map(|owner| CompetingAutoscaler {
            kind: "LeaderWorkerSet",
            name: format!("{namespace}/{}", owner.name),
        }));
        competing.sort();
        competing
    }
}
