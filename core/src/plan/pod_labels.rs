//! Kthena's labels that a pod template overwrites: Kthena copies the labels of the template over its own.
//!
//! Source: Kthena `pkg/model-serving-controller/utils/utils.go`, `addPodLabelAndAnnotation`.

use super::{ResolvedIntent, external_status::uses_value_metric};
use crate::{
    api::kthena::{ModelServing, Role},
    domain::quoted,
    observed::Observed,
};

/// Labels by which Prometheus finds the engines, and that their series carry.
const OF_ENGINES: [&str; 2] = ["modelserving.volcano.sh/name", "modelserving.volcano.sh/entry"];
/// Labels of `status.labelSelector`, which selects pods of the first role.
const OF_SELECTOR: [&str; 4] = [
    "modelserving.volcano.sh/name",
    "modelserving.volcano.sh/entry",
    "modelserving.volcano.sh/role",
    "modelserving.volcano.sh/role-id",
];

/// Warnings about overwritten labels that a signal of the model depends on.
pub(super) fn overwritten(observed: &Observed, resolved: &ResolvedIntent) -> Vec<String> {
    let model_serving = &observed.model_serving;
    let roles = &model_serving.spec.template.roles;
    let engines = resolved.triggers.engines.map(|_| {
        let effect = "so Prometheus does not find its engines and the engine signals have no data";
        roles.iter().filter_map(|role| warning(model_serving, role, &OF_ENGINES, effect)).collect()
    });
    let selector = uses_value_metric(&resolved.triggers).then(|| {
        let effect = "so status.labelSelector matches no pod and the HPA computes a wrong number of ServingGroups for queries of metricType Value";
        roles.iter().take(1).filter_map(|role| warning(model_serving, role, &OF_SELECTOR, effect)).collect()
    });
    let all: [Option<Vec<String>>; 2] = [engines, selector];
    all.into_iter().flatten().flatten().collect()
}

fn warning(model_serving: &ModelServing, role: &Role, labels: &[&str], effect: &str) -> Option<String> {
    let is_overwritten = |label: &&&str| {
        let own = role.labels.iter().find(|(key, _)| key == **label);
        own.is_some_and(|(_, value)| !is_kept(model_serving, role, label, value))
    };
    let label = labels.iter().find(is_overwritten)?;
    Some(format!(
        "the entryTemplate of role {} overwrites the pod label {label}, {effect}; remove the label from the template",
        quoted(&role.name)
    ))
}

/// `true` if the template sets the value that Kthena would set. The label of a role's instance is different in
/// each, so that no template can.
fn is_kept(model_serving: &ModelServing, role: &Role, label: &str, value: &str) -> bool {
    match label.rsplit('/').next() {
        Some("name") => value == model_serving.name(),
        Some("entry") => value == "true",
        Some("role") => value == role.name,
        _ => false,
    }
}
