//! A ModelServing that a ModelBooster controls: the ModelBooster's annotations count for it, and Kthena rewrites it.
//!
//! When `spec.backend` of a ModelBooster changes, Kthena replaces the whole ModelServing: its annotations are erased and
//! `spec.replicas` is reset. Source: Kthena `pkg/model-booster-controller/controller/model_serving_handler.go`.

use super::{
    Desired, Finding, Plan, RolesPlan, StandInPlan, StandInState, mistyped_opt_in, pause,
    verdict::{self, HELP},
};
use crate::{
    api::{
        annotations::{AnnotationKey, MODEL_NAME},
        kthena::{Booster, ModelServing, Unread},
    },
    domain::{Capabilities, listed, quoted, shortened},
    observed::{LiveBooster, Observed, Ownership, Readable, UnreadKind},
};

/// Annotations that a warning lists at most.
const LISTED_KEYS: usize = 5;

/// Field manager of Kthena's controller manager.
const KTHENA: &str = "kthena-controller-manager";

/// Keeps everything as it is while the annotations of the ModelBooster are not known: they may opt in or change any setting. A
/// condition is written only where the ModelServing is known to have been opted in.
///
/// A pause on the ModelServing itself precedes any on the ModelBooster, so it is carried out.
pub(super) fn undecided(
    observed: &Observed,
    selector: Desired<String>,
    capabilities: Capabilities,
    finding: Finding,
) -> Plan {
    let findings = if was_opted_in(observed) { vec![finding] } else { Vec::new() };
    let explain = || super::explain(observed, None, capabilities, &findings, &[]);
    let explanation = (!findings.is_empty()).then(explain);
    let condition = explanation.as_ref().map(|found| verdict::condition(observed, &found.verdict));
    Plan {
        scaled_object: Desired::Keep,
        pause: pause::change(observed, &Desired::Keep, capabilities.keda),
        pod_monitor: Desired::Keep,
        stand_in: StandInPlan::keep(StandInState::Off),
        selector,
        condition: condition.unwrap_or(Desired::Keep),
        findings,
        warnings: Vec::new(),
        explanation,
        roles: RolesPlan::default(),
        shadow: None,
    }
}

fn was_opted_in(observed: &Observed) -> bool {
    observed.model_serving.is_managed() || observed.scaled_object_ownership() == Ownership::Owned
}

/// Reports a field manager that set `spec.replicas` after an autoscaler had; Kthena's own does so for a ModelBooster.
pub(super) fn second_writer(observed: &Observed, manager: &str) -> String {
    match observed.model_serving.booster.as_deref() {
        Some(booster) if manager == KTHENA => format!(
            "a change of the ModelBooster {} reset spec.replicas, which reverts the HPA's changes; set modelBooster.keepScaling of the chart to keep the number, see {HELP}#replicas-reset-by-a-modelbooster",
            quoted(&booster.name)
        ),
        _ => {
            let manager = shortened(manager);
            format!(
                "{manager} set spec.replicas after autoscaling began, which reverts the HPA's changes; make {manager} ignore that field, see {HELP}#replicas-reset-by-another-writer"
            )
        }
    }
}

/// The ModelBooster of a ModelServing, if it could not be read.
pub(super) fn unread(model_serving: &ModelServing) -> Option<Finding> {
    let (name, cause) = model_serving.unread_booster()?;
    let readable = match cause {
        Unread::Forbidden => Readable::Forbidden,
        Unread::NotListed => Readable::NotYet,
        Unread::Absent => return Some(Finding::booster_absent(name)),
    };
    let unread = UnreadKind::of::<LiveBooster>(readable)?;
    let effect = format!(
        "the annotations of the ModelBooster {}, which controls this ModelServing, are unknown",
        quoted(name)
    );
    Some(Finding::unread(&unread, &effect))
}

/// Explains why a ModelServing is not opted in: a mistyped annotation, or one that its ModelBooster lacks;
/// `None` if neither is the case.
pub fn not_opted_in(model_serving: &ModelServing) -> Option<String> {
    let Some(booster) = model_serving.booster.as_deref().filter(|_| !model_serving.is_opted_in()) else {
        return mistyped_opt_in(model_serving);
    };
    Some(match &booster.annotations {
        Err(_) => unread(model_serving)?.message,
        Ok(_) => format!(
            "the ModelBooster {} controls this ModelServing and has no annotation {MODEL_NAME} either; a change of its spec.backend erases the annotations of the ModelServing, so set {MODEL_NAME} on the ModelBooster",
            quoted(&booster.name)
        ),
    })
}

/// Warns of annotations that the next change of the ModelBooster erases.
pub fn erasable_annotations(observed: &Observed) -> Option<String> {
    let keys = observed.model_serving.erasable_annotations();
    let booster = observed.model_serving.booster.as_deref().filter(|_| !keys.is_empty())?;
    let [paused, shadow] = [AnnotationKey::Paused, AnnotationKey::Shadow].map(|key| key.to_string());
    let effect = if keys.contains(&MODEL_NAME) && !opts_in(booster) {
        "which ends autoscaling"
    } else if keys.contains(&shadow.as_str()) {
        "which ends or begins the dry run"
    } else if keys.contains(&paused.as_str()) {
        "which ends the pause"
    } else {
        "which changes how it is scaled"
    };
    Some(format!(
        "the ModelBooster {} controls this ModelServing, and the next change of its spec.backend erases {}, {effect}; set the same on the ModelBooster",
        quoted(&booster.name),
        listed(&keys, LISTED_KEYS)
    ))
}

fn opts_in(booster: &Booster) -> bool {
    booster.annotations.as_ref().is_ok_and(|found| found.get(MODEL_NAME).is_some())
}
