//! Status writes: the label selector and our condition, in one JSON patch that tests the resource version.

use std::time::Duration;

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation,
    jsonptr::PointerBuf,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _};
use serde_json::{Map, Value};

use super::{ModelServingContext, apply::has_pending_write, report, uid};
use crate::cluster::{Error, server_side_apply};
use kthena_keda_core::{
    api::kthena::{AUTOSCALING_READY, AutoscalingReady, Conditions, ModelServing},
    domain::Reason,
    observed::Observed,
    plan::{Desired, Plan, Verdict},
};

/// The part of the reconcile in which the status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Selector and condition, before the objects are applied.
    BeforeApply,
    /// The condition that depends on the outcome of the apply.
    AfterApply,
}

/// Outcome of a status write.
pub(super) enum StatusWrite {
    /// The status is as planned; a throttled condition is due after this delay.
    Current(Option<Duration>),
    /// The ModelServing changed since it was read; this is its current version, to be planned again.
    Stale(Box<ModelServing>),
    /// The ModelServing is gone, or is being deleted.
    Gone,
}

/// The part of the plan that one status write carries out.
struct Change {
    selector: Desired<String>,
    condition: Desired<Verdict>,
    /// Time until a throttled condition may be written.
    delay: Option<Duration>,
}

/// Writes the planned status over exactly the version that the plan was made for.
///
/// # Errors
/// Any rejection by the API server other than a stale version.
pub(super) async fn write_status(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &Plan,
    phase: Phase,
) -> Result<StatusWrite, Error> {
    let model_serving = &observed.model_serving;
    let verdict = plan.explanation.as_ref().map(|explanation| &explanation.verdict);
    context.shared.caches.last_reports.record(model_serving, verdict);
    let change = change(context, observed, plan, phase);
    if change.selector == Desired::Keep && change.condition == Desired::Keep {
        return Ok(StatusWrite::Current(change.delay));
    }
    let namespace = model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let api: Api<ModelServing> = Api::namespaced(context.shared.client.clone(), &namespace);
    let patch = patch(model_serving, &change)?;
    match server_side_apply::patch_status(&api, model_serving.name(), patch).await {
        Ok(written) => {
            report::report_condition_write(context, observed, &change.condition);
            report::publish_erasable_annotations(context, observed, &change.condition);
            context.history.record_write(&written);
            Ok(StatusWrite::Current(change.delay))
        }
        Err(error) if error.is_not_found() => Ok(StatusWrite::Gone),
        Err(error) if error.is_stale_write() => current_version(context, &api, model_serving, error).await,
        Err(error) => Err(error),
    }
}

/// Reads the ModelServing after a conflict. The rejection stands if its version is the one that was written.
async fn current_version(
    context: &ModelServingContext,
    api: &Api<ModelServing>,
    seen: &ModelServing,
    rejection: Error,
) -> Result<StatusWrite, Error> {
    match api.get_opt(seen.name()).await? {
        Some(live) if live.metadata.deletion_timestamp.is_some() => Ok(StatusWrite::Gone),
        Some(live) if live.resource_version() == seen.resource_version() => Err(rejection),
        Some(mut live) => {
            context.shared.caches.inherit(&mut live);
            Ok(StatusWrite::Stale(Box::new(live)))
        }
        None => Ok(StatusWrite::Gone),
    }
}

fn change(context: &ModelServingContext, observed: &Observed, plan: &Plan, phase: Phase) -> Change {
    let selector = match phase {
        Phase::BeforeApply => plan.selector.clone(),
        Phase::AfterApply => Desired::Keep,
    };
    let (condition, delay) = match phase {
        Phase::BeforeApply if waits_for_apply(observed, plan) => (Desired::Keep, None),
        Phase::BeforeApply | Phase::AfterApply => {
            condition_to_write(context, observed, plan, selector == Desired::Keep)
        }
    };
    Change { selector, condition, delay }
}

/// `true` if the condition depends on the outcome of the apply: on opting out it goes last, and one that reports a rejection stays until
/// the API server has accepted the objects. Without the second rule such a condition would change twice at every attempt.
pub(super) fn waits_for_apply(observed: &Observed, plan: &Plan) -> bool {
    if plan.condition == Desired::Remove {
        return true;
    }
    let reports_rejection = observed
        .model_serving
        .condition()
        .is_some_and(|condition| condition.reason == Reason::ScaledObjectNotReady.as_str());
    reports_rejection && has_pending_write(observed, plan)
}

/// The condition to write now, and the time until one that would be written too soon may be. `is_alone`: the write has nothing else.
fn condition_to_write(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &Plan,
    is_alone: bool,
) -> (Desired<Verdict>, Option<Duration>) {
    let (model_serving, uid) = (&observed.model_serving, uid(&observed.model_serving));
    if plan.explanation.is_some() {
        context.history.record_first_input(&uid, || user_input(context, observed));
    }
    // The condition in place is about this input, which the first reconcile after a restart did not know yet.
    if plan.condition == Desired::Keep && observed.has_learned_input() {
        context.history.record_input(&uid, user_input(context, observed));
    }
    let Desired::Apply(verdict) = &plan.condition else { return (plan.condition.clone(), None) };
    if !context.writes_conditions {
        report::publish_transition(context, model_serving, context.history.reported(&uid), verdict);
        return (Desired::Keep, None);
    }
    let before = model_serving.condition();
    let first_delay = (is_alone && before.is_none())
        .then(|| context.history.first_condition_delay(&uid, verdict))
        .flatten();
    let delay = context.history.condition_delay(&uid, before, verdict, user_input(context, observed));
    match delay.max(first_delay) {
        None => (plan.condition.clone(), None),
        Some(delay) => (Desired::Keep, Some(delay)),
    }
}

/// Hash of what may change a condition's message at once.
pub(super) fn user_input(context: &ModelServingContext, observed: &Observed) -> u64 {
    let capabilities = context.shared.served.borrow().as_ref().map(|served| served.capabilities);
    observed.user_input(capabilities)
}

/// The operations that turn the status of this version into the planned one. Conditions of other controllers are not sent.
fn patch(of: &ModelServing, change: &Change) -> Result<Patch, Error> {
    let mut operations = vec![PatchOperation::Test(TestOperation {
        path: path(&["metadata", "resourceVersion"]),
        value: of.resource_version().unwrap_or_default().into(),
    })];
    if !of.has_status {
        operations.push(add(&["status"], Value::Object(Map::new())));
    }
    if let Desired::Apply(selector) = &change.selector {
        operations.push(add(&["status", "labelSelector"], selector.as_str().into()));
    }
    operations.extend(condition_operation(of, change)?);
    Ok(Patch(operations))
}

fn condition_operation(of: &ModelServing, change: &Change) -> Result<Option<PatchOperation>, Error> {
    let Conditions { exists, index, autoscaling_ready } = &of.status.conditions;
    let index = index.map(|index| path(&["status", "conditions", &index.to_string()]));
    let verdict = match &change.condition {
        Desired::Keep => return Ok(None),
        Desired::Remove => return Ok(index.map(|path| PatchOperation::Remove(RemoveOperation { path }))),
        Desired::Apply(verdict) => verdict,
    };
    let value = serde_json::to_value(condition(verdict, autoscaling_ready.as_ref()))
        .map_err(kube::Error::SerdeError)?;
    Ok(Some(match index {
        Some(path) => PatchOperation::Replace(ReplaceOperation { path, value }),
        None if *exists => add(&["status", "conditions", "-"], value),
        None => add(&["status", "conditions"], Value::Array(vec![value])),
    }))
}

fn add(to: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: path(to), value })
}

fn path(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

/// The transition time moves only with the status. The observed generation stays unset: it would be outdated after every scaling, and
/// `kubectl wait` ignores a condition whose generation is outdated.
fn condition(verdict: &Verdict, before: Option<&AutoscalingReady>) -> Condition {
    let since = before
        .filter(|before| before.status == verdict.status.as_str())
        .map(|before| before.last_transition_time.clone());
    Condition {
        type_: AUTOSCALING_READY.to_owned(),
        status: verdict.status.as_str().to_owned(),
        reason: verdict.reason.as_str().to_owned(),
        message: verdict.message.clone(),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: None,
    }
}
