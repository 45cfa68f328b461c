//! Writes the label selector and our condition, in one patch, without losing anybody else's.

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

use super::{ModelServingContext, history::ReportedCondition, identity};
use crate::cluster::{Error, events::Events, server_side_apply};
use kthena_keda_core::{
    api::kthena::{AUTOSCALING_READY, Conditions, ModelServing},
    domain::{Capabilities, Status, VerdictReason},
    observed::Observed,
    plan::{Desired, Plan, Verdict, plan},
};

/// How often a lost race is run again at once.
const TRIES: u32 = 3;

/// What the rest of a pass goes by.
pub(super) struct Written {
    /// What was read last.
    pub(super) observed: Observed,
    /// The plan for it.
    pub(super) plan: Plan,
    /// When the condition may be written that had to wait.
    pub(super) held: Option<Duration>,
}

/// Writes what the plan wants of the status, and tells of it; answers nothing where the ModelServing is gone.
///
/// It is written over exactly the version that the plan was made for. Where that is history the ModelServing is read, and planned again.
pub(super) async fn write(
    models: &ModelServingContext,
    mut observed: Observed,
    current: Plan,
    capabilities: Capabilities,
) -> Result<Option<Written>, Error> {
    let context = &models.context;
    tell_end_without_condition(models, &observed, &current);
    let (mut current, mut held) = damped(models, &observed, current);
    if !is_due(&current) {
        return Ok(Some(Written { observed, plan: current, held }));
    }
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let name = observed.model_serving.name_any();
    let api: Api<ModelServing> = Api::namespaced(context.client.clone(), &namespace);
    for _ in 0..TRIES {
        let refusal =
            match server_side_apply::patch_status(&api, &name, changes(&observed.model_serving, &current)?)
                .await
            {
                Ok(written) => {
                    told(models, &observed, &current);
                    models.memory.wrote(&written);
                    return Ok(Some(Written { observed, plan: current, held }));
                }
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if error.is_stale_write() => error,
                Err(error) => return Err(error),
            };
        let Some(live) = api.get_opt(&name).await?.filter(|live| live.metadata.deletion_timestamp.is_none())
        else {
            return Ok(None);
        };
        if live.resource_version() == observed.model_serving.resource_version() {
            return Err(refusal);
        }
        observed.model_serving = live;
        (current, held) =
            damped(models, &observed, plan(&observed, capabilities, &context.settings.defaults));
        if !is_due(&current) {
            return Ok(Some(Written { observed, plan: current, held }));
        }
    }
    Err(Error::Contended)
}

/// The plan without a condition that would be rewritten too soon, or is not to be written at all; and how long it has to wait.
fn damped(models: &ModelServingContext, observed: &Observed, mut plan: Plan) -> (Plan, Option<Duration>) {
    let Desired::Apply(verdict) = &plan.condition else { return (plan, None) };
    let identity = identity(&observed.model_serving);
    if !models.writes_conditions {
        tell_change(models, &observed.model_serving, models.memory.said(&identity), verdict);
        plan.condition = Desired::Keep;
        return (plan, None);
    }
    let held = models.memory.hold(&identity, observed.model_serving.condition(), verdict);
    if held.is_some() {
        plan.condition = Desired::Keep;
    }
    (plan, held)
}

/// Remembers what was written, and tells what is news to people: a problem, its end, and the end of autoscaling.
fn told(models: &ModelServingContext, observed: &Observed, plan: &Plan) {
    let (model_serving, identity) = (&observed.model_serving, identity(&observed.model_serving));
    match &plan.condition {
        Desired::Keep => {}
        Desired::Remove => {
            models.memory.forget(&identity);
            tell_end(&models.events, model_serving);
        }
        Desired::Apply(verdict) => {
            models.memory.told(&identity);
            let before = model_serving.condition();
            let said = |before: &Condition| ReportedCondition {
                is_good: before.status == Status::True.as_str(),
                reason: before.reason.clone(),
            };
            tell_change(models, model_serving, before.map(said), verdict);
        }
    }
}

/// Where no condition is written, none is removed when autoscaling ends.
fn tell_end_without_condition(models: &ModelServingContext, observed: &Observed, plan: &Plan) {
    let identity = identity(&observed.model_serving);
    let has_ended = plan.explanation.is_none() && plan.condition == Desired::Keep;
    if has_ended && models.memory.said(&identity).is_some() {
        models.memory.forget(&identity);
        tell_end(&models.events, &observed.model_serving);
    }
}

fn tell_end(events: &Events, model_serving: &ModelServing) {
    if model_serving.replicas() > 0 {
        events.normal(
            model_serving,
            "OptedOut",
            "it is not scaled any more; the number of ServingGroups stays as it is",
        );
        return;
    }
    let (namespace, name) = (model_serving.namespace().unwrap_or_default(), model_serving.name_any());
    let note = format!(
        "it is not scaled any more and has no ServingGroups, so nothing will wake it: kubectl scale modelserving {name} -n {namespace} --replicas=1"
    );
    events.warning(model_serving, "OptedOut", &note);
}

fn tell_change(
    models: &ModelServingContext,
    model_serving: &ModelServing,
    before: Option<ReportedCondition>,
    verdict: &Verdict,
) {
    models.memory.say(&identity(model_serving), verdict);
    let is_problem = |is_good: bool, reason: &str| !is_good && reason != VerdictReason::Pending.as_str();
    let problem_before = before.filter(|before| is_problem(before.is_good, &before.reason));
    if is_problem(verdict.is_good(), verdict.reason.as_str()) {
        if problem_before.is_none_or(|before| before.reason != verdict.reason.as_str()) {
            models.events.warning(model_serving, verdict.reason.as_str(), &verdict.message);
        }
    } else if let Some(before) = problem_before {
        models.events.normal(
            model_serving,
            "Resolved",
            &format!("{} is over; {}", before.reason, verdict.message),
        );
    }
}

fn is_due(plan: &Plan) -> bool {
    plan.selector != Desired::Keep || plan.condition != Desired::Keep
}

/// What changes of this version of a ModelServing. Everybody else's conditions are not even sent.
fn changes(of: &ModelServing, plan: &Plan) -> Result<Patch, Error> {
    let mut operations = vec![PatchOperation::Test(TestOperation {
        path: path(&["metadata", "resourceVersion"]),
        value: of.resource_version().unwrap_or_default().into(),
    })];
    if !of.has_status {
        operations.push(add(&["status"], Value::Object(Map::new())));
    }
    if let Desired::Apply(selector) = &plan.selector {
        operations.push(add(&["status", "labelSelector"], selector.as_str().into()));
    }
    operations.extend(change_of_condition(of, plan)?);
    Ok(Patch(operations))
}

fn change_of_condition(of: &ModelServing, plan: &Plan) -> Result<Option<PatchOperation>, Error> {
    let Conditions { are_there, place, autoscaling_ready } = &of.status.conditions;
    let place = place.map(|place| path(&["status", "conditions", &place.to_string()]));
    let verdict = match &plan.condition {
        Desired::Keep => return Ok(None),
        Desired::Remove => return Ok(place.map(|path| PatchOperation::Remove(RemoveOperation { path }))),
        Desired::Apply(verdict) => verdict,
    };
    let value = serde_json::to_value(condition(verdict, autoscaling_ready.as_ref()))
        .map_err(kube::Error::SerdeError)?;
    Ok(Some(match place {
        Some(path) => PatchOperation::Replace(ReplaceOperation { path, value }),
        None if *are_there => add(&["status", "conditions", "-"], value),
        None => add(&["status", "conditions"], Value::Array(vec![value])),
    }))
}

fn add(to: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: path(to), value })
}

fn path(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

/// The time of transition moves only with the status. No observed generation: it would be out of date at every scaling, and
/// `kubectl wait` does not believe a condition then.
fn condition(verdict: &Verdict, before: Option<&Condition>) -> Condition {
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
