//! Shadow: a dry run. Everything is planned and checked, the decisions of KEDA and the HPA are simulated, and nothing is
//! scaled. Any other autoscaler may scale the model meanwhile.

use super::{
    Explanation, ResolvedIntent, scaled_object,
    verdict::{HELP, basis},
};
use crate::{
    api::{
        annotations::{AnnotationKey, PREFIX},
        keda::ScaledObject,
    },
    domain::{Keda, listed},
    intent::{Intent, requested_pause},
    observed::{CompetingAutoscaler, Observed, Ownership, ShadowState},
};

/// Autoscalers that a message lists at most.
const LISTED: usize = 5;

/// The ScaledObject whose decisions are simulated: that of the plan without the annotation.
pub(super) fn object(
    observed: &Observed,
    explanation: &Explanation,
    keda: Option<Keda>,
) -> Option<Box<ScaledObject>> {
    let ResolvedIntent { intent, triggers, .. } = explanation.resolved.as_ref()?;
    let target = scaled_object::model_serving(&observed.model_serving);
    scaled_object::build(&observed.model_serving, target, intent, triggers, keda?)
}

/// The autoscalers that scale the model now, sorted by kind and name. An object with the name of the generated
/// ScaledObject is one of them.
pub fn scaled_by(observed: &Observed) -> Vec<CompetingAutoscaler> {
    let mut scaling = observed.competing_autoscalers.clone();
    let model_serving = &observed.model_serving;
    let is_foreign = is_left_alone(observed)
        && observed.scaled_object.as_ref().is_some_and(|found| found.target.is(model_serving.name()));
    if is_foreign {
        let name = format!("{}/{}", observed.namespace(), model_serving.scaled_object_name());
        scaling.push(CompetingAutoscaler { kind: "ScaledObject", name });
        scaling.sort();
    }
    scaling
}

/// `true` if the object with the name of the ScaledObject is not the operator's to remove: another user owns it, or
/// applied output of `render`.
fn is_left_alone(observed: &Observed) -> bool {
    let uid = observed.model_serving.metadata.uid.as_deref();
    match observed.scaled_object_ownership() {
        Ownership::Foreign => true,
        Ownership::Owned => observed.scaled_object_digest().is_some_and(|found| !found.is_controlled_by(uid)),
        Ownership::Absent | Ownership::Terminating | Ownership::Orphaned => false,
    }
}

/// Content of the condition of a model in shadow without a problem.
pub(super) fn message(observed: &Observed, intent: Option<&Intent>) -> String {
    let annotation = AnnotationKey::Shadow;
    let what = match (observed.shadow, intent) {
        (state @ ShadowState::BeyondLimit(_), _) => {
            format!("{state}; end an older one, or raise --shadow-max")
        }
        (state, Some(intent)) => format!("{state}; it would scale on {}", basis(intent)),
        (state, None) => state.to_string(),
    };
    let scaled_by = scaled_by(observed);
    let (now, remedy) = if scaled_by.is_empty() {
        ("nothing else scales it".to_owned(), "remove")
    } else {
        (format!("{} scales it now", names(&scaled_by)), "delete that and remove")
    };
    format!(
        "in shadow, so nothing is scaled on purpose: {what}; {now}; {remedy} the annotation {annotation} to start scaling"
    )
}

pub(super) fn names(autoscalers: &[CompetingAutoscaler]) -> String {
    let names: Vec<String> =
        autoscalers.iter().map(|found| format!("{} {}", found.kind, found.name)).collect();
    listed(&names, LISTED)
}

/// Notices of a model in shadow.
pub(super) fn warnings(observed: &Observed, intent: &Intent) -> Vec<String> {
    let model_serving = &observed.model_serving;
    let mut warnings = Vec::new();
    let is_woken = || scaled_by(observed).iter().any(|found| found.kind == "ScaledObject");
    if model_serving.replicas() == 0 && !is_woken() {
        warnings.push(format!(
            "the model is at 0 ServingGroups and no request wakes it while it is in shadow; scale it up: kubectl scale modelserving {} -n {} --replicas=1",
            model_serving.name(),
            observed.namespace()
        ));
    }
    if requested_pause(&model_serving.effective_annotations()).is_ok_and(|pause| pause.is_some()) {
        warnings.push(format!(
            "the annotation {} has no effect in shadow, where nothing is scaled; the numbers are those without it",
            AnnotationKey::Paused
        ));
    }
    if is_left_alone(observed) {
        warnings.push(format!(
            "ScaledObject {} has the generated name and is not controlled by this ModelServing, so the operator leaves it alone; delete it at its source before you remove {}",
            model_serving.scaled_object_name(),
            AnnotationKey::Shadow
        ));
    }
    if model_serving.replicas() > intent.replicas.max() && !intent.max_is_explicit {
        warnings.push(format!(
            "more ServingGroups run than the maximum of {}, so the operator will not begin to scale the model; set {PREFIX}max-replicas before you remove {}, see {HELP}#invalidconfiguration",
            intent.replicas.max(),
            AnnotationKey::Shadow
        ));
    }
    warnings
}
