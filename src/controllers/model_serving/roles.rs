//! Roles: their scale targets, ScaledObjects and status, and the numbers that the ModelServing gets.

use std::time::Duration;

use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _, api::ObjectMeta};

use super::{
    ModelServingContext,
    apply::{Existing, Failure, api, apply_object, apply_pause_of, remove_object},
    report, uid,
};
use crate::{
    cluster::{Class, Error, server_side_apply},
    runtime::delays::{ROLES_MOVE, ROLES_REST},
    sources::pod_metadata,
};
use kthena_keda_core::{
    api::{
        kthena::ModelServing,
        model_serving_role::{APPLIED, ModelServingRoleStatus},
    },
    domain::Status,
    observed::{
        Fingerprint, INSTANCES_MAX, InstanceCount, LiveRole, LiveScaledObject, Observed, ObservedRole,
        OwnedObject, RoleInstances,
    },
    plan::{Desired, RoleChange, RolePlan, RoleStatus, RolesPlan},
};

/// Most pods that are looked at: twice the instances, since each can be replaced by another one at the same time.
const PODS_MAX: usize = 2 * INSTANCES_MAX as usize;

/// Slot of the history in which the numbers of all roles are one object.
const NUMBERS: &str = "the numbers of roles";

/// Counts the instances of the roles of a model, if its roles are scaled and not too many.
///
/// # Errors
/// Any failure except a missing permission.
pub(super) async fn count_instances(
    context: &ModelServingContext,
    observed: &Observed,
) -> Result<InstanceCount, Error> {
    let model_serving = &observed.model_serving;
    let is_scaled = observed.asks_for_roles() && observed.may_scale_roles;
    if !is_scaled || model_serving.instances(|_, replicas| replicas) > INSTANCES_MAX.into() {
        return Ok(InstanceCount::NotCounted);
    }
    let pods: Api<Pod> = Api::namespaced(context.shared.client.clone(), observed.namespace());
    let entries =
        format!("modelserving.volcano.sh/name={},modelserving.volcano.sh/entry=true", model_serving.name());
    match pod_metadata(&pods, &entries, PODS_MAX, RoleInstances::fields_read).await.map_err(Error::from) {
        Ok(found) => {
            let owner_uid = model_serving.metadata.uid.as_deref();
            Ok(InstanceCount::Counted(RoleInstances::of(&found, owner_uid)))
        }
        Err(error) if error.class() == Class::Forbidden => Ok(InstanceCount::Forbidden),
        Err(error) => Err(error),
    }
}

/// Time until the instances are counted again; no watch shows their pods.
pub(super) fn count_delay(observed: &Observed) -> Option<Duration> {
    let InstanceCount::Counted(instances) = &observed.role_instances else {
        return (observed.role_instances == InstanceCount::Forbidden).then_some(ROLES_REST);
    };
    let template = &observed.model_serving.spec.template;
    let is_at_rest = observed.roles.iter().all(|role| {
        let number = template.role(&role.name).map(|(_, count)| count.replicas);
        let written = role.object.as_ref().map(|object| object.status.replicas);
        number.is_none_or(|number| instances.get(&role.name) == number && written == Some(number))
    });
    Some(if is_at_rest { ROLES_REST } else { ROLES_MOVE })
}

/// `true` if an apply of this plan would write for a role.
pub(super) fn has_pending_write(observed: &Observed, plan: &RolesPlan) -> bool {
    let is_pending = |role: &RolePlan| {
        let found = find(observed, role);
        let object = found.and_then(|found| found.object.as_ref()).map(|object| &object.owned);
        let scaled_object = found.and_then(|found| found.scaled_object.as_ref()).map(|object| &object.owned);
        super::apply::is_pending(&role.object, object)
            || super::apply::is_pending(&role.scaled_object, scaled_object)
    };
    !plan.changes.is_empty() || plan.roles.iter().any(is_pending)
}

fn find<'a>(observed: &'a Observed, role: &RolePlan) -> Option<&'a ObservedRole> {
    observed.roles.iter().find(|found| found.object_name == role.object_name)
}

/// Applies the objects of all roles, and carries their numbers over. Returns when to apply again where another client undoes the writes.
///
/// # Errors
/// A write that failed, the first by role; those of other roles are made all the same.
pub(super) async fn apply_roles(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &RolesPlan,
) -> Result<Option<Duration>, Failure> {
    let numbers = carry_over(context, observed, &plan.changes).await;
    let mut delays = Vec::new();
    let mut failure = None;
    for role in &plan.roles {
        match apply_role(context, observed, plan, role, numbers.as_ref().err()).await {
            Ok(delay) => delays.extend(delay),
            Err(failed) => failure = failure.or(Some(failed)),
        }
    }
    delays.extend(numbers?);
    failure.map_or_else(|| Ok(delays.into_iter().min()), Err)
}

async fn apply_role(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &RolesPlan,
    role: &RolePlan,
    failure: Option<&Failure>,
) -> Result<Option<Duration>, Failure> {
    let found = find(observed, role);
    let object = found.and_then(|found| found.object.as_ref()).map(|object| &object.owned);
    let scaled_object = found.and_then(|found| found.scaled_object.as_ref()).map(|found| &found.owned);
    let is_changing = plan.changes.iter().any(|change| change.name == role.name);
    let mut delays = [None; 3];
    if let Desired::Apply(target) = &role.object {
        let existing = existing(observed, object);
        let slot = format!("ModelServingRole {}", role.object_name);
        delays[0] = apply_object(context, observed, &slot, existing, &**target).await?.delay;
    }
    // A number that is on its way is reported once it has arrived, which requests another reconcile.
    if let (Desired::Apply(status), false) = (&role.status, is_changing) {
        write_status(context, observed, role, status).await?;
    } else if let Some(rejection) = failure.and_then(Failure::rejection).filter(|_| is_changing) {
        report_rejection(context, observed, role, rejection).await?;
    }
    let slot = format!("ScaledObject {}", role.object_name);
    match &role.scaled_object {
        Desired::Apply(desired) => {
            let existing = existing(observed, scaled_object);
            delays[1] = apply_object(context, observed, &slot, existing, &**desired).await?.delay;
        }
        Desired::Remove => {
            remove_object::<LiveScaledObject>(context, observed, &slot, &role.object_name, scaled_object)
                .await?;
        }
        Desired::Keep => {
            let uid = scaled_object.map(|found| found.uid.as_str());
            delays[2] = apply_pause_of(context, observed, role.pause, &role.object_name, uid).await?;
        }
    }
    if matches!(role.object, Desired::Remove) {
        let slot = format!("ModelServingRole {}", role.object_name);
        remove_object::<LiveRole>(context, observed, &slot, &role.object_name, object).await?;
    }
    Ok(delays.into_iter().flatten().min())
}

fn existing<'a>(observed: &Observed, object: Option<&'a OwnedObject>) -> Existing<'a> {
    Existing { ownership: observed.ownership_of(object), object, persistent: &[] }
}

async fn report_rejection(
    context: &ModelServingContext,
    observed: &Observed,
    role: &RolePlan,
    rejection: String,
) -> Result<(), Failure> {
    let Some(found) = find(observed, role) else { return Ok(()) };
    let before = found.object.as_ref().filter(|object| !object.status.selector.is_empty());
    let (Some(before), Some(replicas)) = (before, observed.instances_of(found)) else { return Ok(()) };
    let status = RoleStatus {
        replicas,
        selector: before.status.selector.clone(),
        applied: (Status::False, "Rejected", rejection),
    };
    if status.is_written(before) { Ok(()) } else { write_status(context, observed, role, &status).await }
}

/// Writes the status of a scale target. No other client writes it, so that no version of it is a condition.
async fn write_status(
    context: &ModelServingContext,
    observed: &Observed,
    role: &RolePlan,
    status: &RoleStatus,
) -> Result<(), Failure> {
    let (state, reason, message) = &status.applied;
    let before = find(observed, role).and_then(|found| found.object.as_ref()?.condition(APPLIED));
    let since = before.filter(|before| before.status == state.as_str());
    let condition = Condition {
        type_: APPLIED.to_owned(),
        status: state.as_str().to_owned(),
        reason: (*reason).to_owned(),
        message: message.clone(),
        last_transition_time: since
            .map_or_else(|| Time(Timestamp::now()), |before| before.last_transition_time.clone()),
        observed_generation: None,
    };
    let desired = ModelServingRoleStatus {
        replicas: status.replicas,
        selector: status.selector.clone(),
        conditions: vec![condition],
    };
    let failed = |error| Failure::new(format!("the status of ModelServingRole {}", role.object_name), error);
    let api: Api<LiveRole> = api(context, observed).map_err(failed)?;
    let written = server_side_apply::merge_status(&api, &role.object_name, None, desired).await;
    match written {
        Ok(live) => context.shared.caches.stores.record::<LiveRole, LiveRole>(&live),
        // Deleted meanwhile; the watch requests another reconcile.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

/// Writes the numbers of roles into exactly this version of the ModelServing, each only where the role has its name. Returns how long the
/// write has to wait where another client undoes it again and again.
///
/// # Errors
/// [`Error::Contended`] if the ModelServing changed since it was read, or any other rejection by the API server.
async fn carry_over(
    context: &ModelServingContext,
    observed: &Observed,
    changes: &[RoleChange],
) -> Result<Option<Duration>, Failure> {
    let (model_serving, uid) = (&observed.model_serving, uid(&observed.model_serving));
    // This reconcile wrote the status, so the version is another one; its watch event requests the next reconcile.
    if changes.is_empty() || context.history.is_stale(model_serving) {
        return Ok(None);
    }
    let numbers: Vec<(&str, i32)> =
        changes.iter().map(|change| (change.name.as_str(), change.replicas)).collect();
    let fingerprint = Fingerprint::of_desired(&ObjectMeta::default(), &numbers);
    if let Some(delay) = context.history.repair_delay(&uid, NUMBERS, fingerprint) {
        return Ok(Some(delay));
    }
    let listed: Vec<String> = numbers.iter().map(|(role, number)| format!("{role}={number}")).collect();
    let listed = listed.join(", ");
    let failed = |error| Failure::new(format!("the number of roles ({listed})"), error);
    let api: Api<ModelServing> = api(context, observed).map_err(failed)?;
    let version = model_serving.resource_version().unwrap_or_default();
    let written = server_side_apply::patch(&api, model_serving.name(), patch(&version, changes)).await;
    let written = written.map_err(|error| failed(error.or_contended()))?;
    context.history.record_write(&written);
    context.history.record_roles(&uid);
    tracing::info!(
        namespace = model_serving.namespace(),
        name = model_serving.name(),
        roles = listed,
        "changed the number of roles"
    );
    let is_repair = context.history.record_applied(&uid, NUMBERS.into(), fingerprint);
    let times = if is_repair && observed.roles_writer.is_some() {
        context.history.record_repair(&uid, NUMBERS)
    } else {
        0
    };
    report::publish_repair(context, model_serving, "spec.template.roles", times, &[]);
    Ok(None)
}

fn patch(version: &str, changes: &[RoleChange]) -> Patch {
    let test =
        |path: PointerBuf, value: &str| PatchOperation::Test(TestOperation { path, value: value.into() });
    let of_role = |change: &RoleChange, field: &str| {
        PointerBuf::from_tokens(["spec", "template", "roles", &change.index.to_string(), field])
    };
    let version = test(PointerBuf::from_tokens(["metadata", "resourceVersion"]), version);
    let of_changes = changes.iter().flat_map(|change| {
        let number = AddOperation { path: of_role(change, "replicas"), value: change.replicas.into() };
        [test(of_role(change, "name"), &change.name), PatchOperation::Add(number)]
    });
    Patch([version].into_iter().chain(of_changes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The role that has moved or is renamed keeps its number.
    #[test]
    fn changes_a_role_only_under_its_name() {
        let change = RoleChange { index: 1, name: "decode".to_owned(), replicas: 4 };
        let patch = patch("7", &[change]);
        let object = |version: &str, second: &str| {
            let roles = json!([{"name": "prefill", "replicas": 1}, {"name": second, "replicas": 1}]);
            json!({"metadata": {"resourceVersion": version}, "spec": {"template": {"roles": roles}}})
        };
        let mut found = object("7", "decode");
        json_patch::patch(&mut found, &patch).unwrap();
        assert_eq!(found["spec"]["template"]["roles"][1], json!({"name": "decode", "replicas": 4}));
        for mut other in [object("8", "decode"), object("7", "generate")] {
            let before = other.clone();
            assert!(json_patch::patch(&mut other, &patch).is_err());
            assert_eq!(other, before);
        }
    }
}
