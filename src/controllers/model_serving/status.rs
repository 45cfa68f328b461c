//! Writes the label selector and our condition, in one patch, without losing anybody else's.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject},
};
use serde::Serialize;
use serde_json::Value;

use super::Context;
use crate::{
    api::kthena::{AUTOSCALING_READY, ModelServing},
    cluster::{Error, apply},
    observed::Observed,
    plan::{Capabilities, Desired, Plan, Verdict, plan},
};

/// How often a lost race is run again at once.
const TRIES: u32 = 3;

/// What is changed of the status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    label_selector: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Vec<Value>>,
}

/// Writes what the plan wants of the status; answers what the rest of the pass goes by, nothing where the ModelServing is gone.
///
/// The list of conditions is replaced as a whole by whoever writes it, so it is read fresh, and the plan made again from what was read.
pub(super) async fn write(
    context: &Context,
    mut observed: Observed,
    mut current: Plan,
    capabilities: Capabilities,
) -> Result<Option<(Observed, Plan)>, Error> {
    if !is_due(&current) {
        return Ok(Some((observed, current)));
    }
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let name = observed.model_serving.name_any();
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &ApiResource::erase::<ModelServing>(&()));
    for _ in 0..TRIES {
        let Some(live) = api.get_opt(&name).await?.filter(|live| live.metadata.deletion_timestamp.is_none()) else {
            return Ok(None);
        };
        observed.model_serving = decode(&live)?;
        current = plan(&observed, capabilities, &context.settings.defaults);
        if !is_due(&current) {
            return Ok(Some((observed, current)));
        }
        let changes = changes(&live, &observed, &current)?;
        match apply::status(&api, &name, live.resource_version(), changes).await {
            Ok(_) => return Ok(Some((observed, current))),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Contended)
}

fn is_due(plan: &Plan) -> bool {
    plan.selector != Desired::Keep || plan.condition != Desired::Keep
}

fn decode(live: &DynamicObject) -> Result<ModelServing, Error> {
    let value = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    Ok(serde_json::from_value(value).map_err(kube::Error::SerdeError)?)
}

fn changes(live: &DynamicObject, observed: &Observed, plan: &Plan) -> Result<Changes, Error> {
    let before = observed.model_serving.status.autoscaling_ready.as_ref();
    let conditions = match &plan.condition {
        Desired::Keep => None,
        Desired::Remove => Some(others(live).collect()),
        Desired::Apply(verdict) => {
            let ours = serde_json::to_value(condition(verdict, before)).map_err(kube::Error::SerdeError)?;
            Some(others(live).chain([ours]).collect())
        }
    };
    let label_selector = match &plan.selector {
        Desired::Apply(selector) => Some(selector.clone()),
        Desired::Keep | Desired::Remove => None,
    };
    Ok(Changes { label_selector, conditions })
}

/// Everybody else's conditions, as they stand.
fn others(live: &DynamicObject) -> impl Iterator<Item = Value> {
    let conditions = live.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().filter(|condition| condition.get("type").is_none_or(|t| t != AUTOSCALING_READY)).cloned()
}

/// The time of transition moves only with the status. No observed generation: it would be out of date at every scaling, and
/// `kubectl wait` does not believe a condition then.
fn condition(verdict: &Verdict, before: Option<&Condition>) -> Condition {
    let since = before.filter(|before| before.status == verdict.status.as_str()).map(|before| before.last_transition_time.clone());
    Condition {
        type_: AUTOSCALING_READY.to_owned(),
        status: verdict.status.as_str().to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: None,
    }
}
