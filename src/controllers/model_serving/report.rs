//! Events on transitions of the condition, and the history that they are compared with.

use kube::ResourceExt as _;

use super::{ModelServingContext, history::ReportedCondition, status::user_input, uid};
use crate::{cluster::events::Events, controllers::foreign_fields::listed};
use kthena_keda_core::{
    api::kthena::{AutoscalingReady, ModelServing},
    domain::{Status, VerdictReason},
    observed::Observed,
    plan::{Desired, Plan, Verdict, erasable_annotations, mistyped_opt_in},
};

/// Repairs in a row from which on another client is reported to undo them.
const CONTESTED: u32 = 4;

/// Records a condition that was just written, and publishes an event for a new problem, its end, or the end of autoscaling.
pub(super) fn report_condition_write(
    context: &ModelServingContext,
    observed: &Observed,
    condition: &Desired<Verdict>,
) {
    let model_serving = &observed.model_serving;
    let uid = uid(model_serving);
    match condition {
        Desired::Keep => {}
        Desired::Remove => {
            context.history.forget(&uid);
            publish_opted_out(&context.events, model_serving);
        }
        Desired::Apply(verdict) => {
            context.history.record_condition_write(&uid, user_input(context, observed));
            publish_transition(context, model_serving, model_serving.condition().map(reported), verdict);
        }
    }
}

/// Publishes the beginning of a dry run, and its end. The end of a problem in between is an event of its own.
fn publish_shadow(
    events: &Events,
    model_serving: &ModelServing,
    before: Option<&ReportedCondition>,
    verdict: &Verdict,
) {
    let shadow = VerdictReason::Shadow.as_str();
    let was_in_shadow = before.is_some_and(|before| before.reason == shadow);
    let was_problem = before.is_some_and(|before| is_problem(before.is_good, &before.reason));
    if was_in_shadow && !model_serving.is_in_shadow() {
        events.normal(
            model_serving,
            "ShadowEnded",
            "the dry run has ended; the operator scales this model unless the condition reports a problem",
        );
    } else if verdict.reason == VerdictReason::Shadow && !was_in_shadow && !was_problem {
        let publish = if model_serving.replicas() == 0 { Events::warning } else { Events::normal };
        publish(events, model_serving, shadow, &verdict.message);
    }
}

fn reported(condition: &AutoscalingReady) -> ReportedCondition {
    ReportedCondition {
        is_good: condition.status == Status::True.as_str(),
        reason: condition.reason.clone().into(),
    }
}

/// Publishes the end of autoscaling where no condition is written, and so none was removed.
pub(super) fn publish_opted_out_without_condition(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &Plan,
) {
    let uid = uid(&observed.model_serving);
    let has_ended = plan.explanation.is_none() && plan.condition == Desired::Keep;
    if has_ended && context.history.reported(&uid).is_some() {
        context.history.forget(&uid);
        publish_opted_out(&context.events, &observed.model_serving);
    }
}

/// Publishes an annotation that has no effect, once for each change.
pub(super) fn publish_mistyped_opt_in(context: &ModelServingContext, model_serving: &ModelServing) {
    if context.history.record_mistyped(&uid(model_serving), model_serving.mistyped_opt_in())
        && let Some(note) = mistyped_opt_in(model_serving)
    {
        context.events.warning(model_serving, "NotOptedIn", &note);
    }
}

fn publish_opted_out(events: &Events, model_serving: &ModelServing) {
    if model_serving.replicas() > 0 {
        events.normal(model_serving, "OptedOut", "autoscaling disabled; replicas left unchanged");
        return;
    }
    let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name());
    let note = format!(
        "autoscaling disabled at 0 replicas, so no request will wake the model. Scale it up: kubectl scale modelserving {name} -n {namespace} --replicas=1"
    );
    events.warning(model_serving, "OptedOut", &note);
}

/// Publishes a warning about annotations that a ModelBooster erases, when the condition begins to carry it: a restart repeats nothing.
pub(super) fn publish_erasable_annotations(
    context: &ModelServingContext,
    observed: &Observed,
    condition: &Desired<Verdict>,
) {
    let (Desired::Apply(verdict), Some(warning)) = (condition, erasable_annotations(observed)) else {
        return;
    };
    let before = observed.model_serving.condition();
    let warned_before =
        before.is_some_and(|before| before.message.text().is_some_and(|text| text.contains(&warning)));
    if verdict.message.contains(&warning) && !warned_before {
        context.events.warning(&observed.model_serving, "AnnotationsNotOnModelBooster", &warning);
    }
}

/// Publishes a new problem, or the end of one.
pub(super) fn publish_transition(
    context: &ModelServingContext,
    model_serving: &ModelServing,
    before: Option<ReportedCondition>,
    verdict: &Verdict,
) {
    context.history.record_report(&uid(model_serving), verdict);
    publish_shadow(&context.events, model_serving, before.as_ref(), verdict);
    let problem_before = before.filter(|before| is_problem(before.is_good, &before.reason));
    if is_problem(verdict.is_good(), verdict.reason.as_str()) {
        if problem_before.is_none_or(|before| before.reason != verdict.reason.as_str()) {
            context.events.warning(model_serving, verdict.reason.as_str(), &verdict.message);
        }
    } else if let Some(before) = problem_before {
        let note = format!("{} is resolved; {}", before.reason, verdict.message);
        context.events.normal(model_serving, "Resolved", &note);
    }
}

/// Publishes the repair of a generated object: the first of a row, the removal of a field that was not removed before, and once that another
/// client undoes the repairs.
pub(super) fn publish_repair(
    context: &ModelServingContext,
    model_serving: &ModelServing,
    object: &str,
    times: u32,
    removed: &[String],
) {
    if !removed.is_empty() {
        let note = format!("{object}: removed {}, which another client had added", listed(removed));
        context.events.normal(model_serving, "Repaired", &note);
    } else if times == 1 {
        let note = format!("{object} was changed by another client and has been restored");
        context.events.normal(model_serving, "Repaired", &note);
    } else if times == CONTESTED {
        let note = format!(
            "another client keeps changing {object}, so the operator restores it at most every 30 s; stop that client, whose name is in metadata.managedFields"
        );
        context.events.warning(model_serving, "RepeatedRepair", &note);
    }
}

fn is_problem(is_good: bool, reason: &str) -> bool {
    !is_good && reason != VerdictReason::Pending.as_str()
}
