//! `status.labelSelector`, filled where Kthena leaves it empty, so that the HPA finds pods.

use super::Desired;
use crate::{api::kthena::ModelServing, domain::Capabilities};

/// The selector that Kthena writes from 1.0 on: the entry pod of instance 0 of the first role, so one pod per
/// ServingGroup.
///
/// Source: Kthena `UpdateModelServingStatus`, which sorts the `key=value` strings; `role-id=` comes before
/// `role=`.
pub fn canonical_selector(name: &str, first_role: &str) -> String {
    [
        label("entry", "true"),
        label("name", name),
        label("role-id", &format!("{first_role}-0")),
        label("role", first_role),
    ]
    .join(",")
}

fn label(key: &str, value: &str) -> String {
    format!("modelserving.volcano.sh/{key}={value}")
}

/// Desired selector. One that Kthena or another writer set is never changed; one that the operator wrote
/// follows the name of the first role, if that is readable.
pub(super) fn desired(model_serving: &ModelServing, capabilities: Capabilities) -> Desired<String> {
    let (Some(name), Some(role)) = (&model_serving.metadata.name, model_serving.spec.template.roles.first())
    else {
        return Desired::Keep;
    };
    if !capabilities.scale || role.name.is_empty() {
        return Desired::Keep;
    }
    let wanted = canonical_selector(name, &role.name);
    match model_serving.label_selector() {
        None => Desired::Apply(wanted),
        Some(found) if model_serving.selector_is_ours && found != wanted => Desired::Apply(wanted),
        Some(_) => Desired::Keep,
    }
}
