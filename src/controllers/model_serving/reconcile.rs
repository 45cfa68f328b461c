//! The reconcile of one ModelServing: observe, plan, write the status, apply, record.

use std::{mem, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, runtime::controller::Action};

use super::{
    ModelServingContext,
    apply::{Applied, Failure, Outcome, apply},
    report,
    roles::{count_delay, count_instances},
    status::{Phase, StatusWrite, waits_for_apply, write_status},
    uid,
};
use crate::{cluster::Error, runtime::delays::KEDA_RESUME};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::Capabilities,
    observed::{LivePodMonitor, LiveScaledObject, Observed, OwnedObject, PersistentFields},
    plan::{Plan, plan},
};

/// Maximum number of attempts to write a status, each on the ModelServing as it was read after the conflict before.
const STATUS_ATTEMPTS: u32 = 4;

/// Brings everything of one ModelServing to its desired state.
///
/// The status comes before the objects, since the HPA needs the selector before it sees a ScaledObject. What the API server rejects is
/// in the condition before this returns.
pub(super) async fn reconcile(
    model_serving: Arc<ModelServing>,
    context: Arc<ModelServingContext>,
) -> Result<Action, Error> {
    if let Some(later) = postpone(&context, &model_serving) {
        return Ok(later);
    }
    let Some((mut observed, mut capabilities)) = observe(&context, &model_serving) else {
        return Ok(Action::await_change());
    };
    for _ in 0..STATUS_ATTEMPTS {
        observed.role_instances = count_instances(&context, &observed).await?;
        let plan = plan(&observed, capabilities, &context.shared.settings.defaults);
        match write_status(&context, &observed, &plan, Phase::BeforeApply).await? {
            StatusWrite::Current(delay) => {
                let outcome = apply(&context, &observed, &plan).await;
                return record(&context, observed, plan, capabilities, delay, outcome).await;
            }
            StatusWrite::Stale(live) => {
                let Some(again) = observe(&context, &live) else { return Ok(Action::await_change()) };
                (observed, capabilities) = again;
            }
            StatusWrite::Gone => return Ok(Action::await_change()),
        }
    }
    Err(Error::Contended)
}

/// A reason not to reconcile now: a ModelServing that is being deleted takes its objects with it, an overloaded API server is left alone,
/// and a cache that lags behind our own write is awaited.
fn postpone(context: &ModelServingContext, model_serving: &ModelServing) -> Option<Action> {
    if model_serving.metadata.deletion_timestamp.is_some() || context.history.is_stale(model_serving) {
        return Some(Action::await_change());
    }
    context.overload.left().map(Action::requeue)
}

/// Everything that the plan depends on; `None` before the initial lists are complete.
fn observe(context: &ModelServingContext, model_serving: &ModelServing) -> Option<(Observed, Capabilities)> {
    let served = context.shared.served.borrow().clone()?;
    let router = context.router.borrow().clone()?;
    let caches = &context.shared.caches;
    if !caches.has_synced(&served) {
        return None;
    }
    let mut observed = caches.observe(model_serving, &served, router);
    observed.second_writer = context.history.record_replicas_writer(model_serving);
    observed.may_scale_roles = context.shared.settings.scale_roles;
    observed.roles_writer = context.history.roles_writer(model_serving);
    observed.persistent_fields = persistent_fields(context, &observed);
    observed.stand_in.image.clone_from(&context.shared.stand_in_image);
    observed.stand_in.rejection = context.history.stand_in_rejection(&uid(model_serving));
    observed.pause_is_outdated = ended_pause(context, &observed).is_some_and(|age| age >= KEDA_RESUME);
    Some((observed, served.capabilities))
}

/// Fields of the generated objects, as they are cached now, that the operator leaves alone.
fn persistent_fields(context: &ModelServingContext, observed: &Observed) -> PersistentFields {
    let uid = uid(&observed.model_serving);
    let of_kind = |kind: &str, found: Option<&OwnedObject>| {
        found.map(|found| context.history.left_alone(&uid, kind, found.fingerprint)).unwrap_or_default()
    };
    PersistentFields {
        scaled_object: of_kind(&LiveScaledObject::kind(&()), observed.scaled_object_digest()),
        pod_monitor: of_kind(&LivePodMonitor::kind(&()), observed.pod_monitor.as_ref()),
    }
}

/// Time for which KEDA has reported a pause that no annotation asks for; `None` if it does not. After a restart it begins anew, while a
/// message that was written before stays for longer than that.
fn ended_pause(context: &ModelServingContext, observed: &Observed) -> Option<Duration> {
    let is_reported = !observed.ended_pauses().is_empty();
    context.history.record_ended_pause(&uid(&observed.model_serving), is_reported)
}

/// Time until KEDA's report of a pause that has ended is outdated; its watch shows no event by then.
fn resume_delay(context: &ModelServingContext, observed: &Observed) -> Option<Duration> {
    let age = ended_pause(context, observed).filter(|_| !observed.pause_is_outdated)?;
    Some(KEDA_RESUME.saturating_sub(age) + Duration::from_secs(1))
}

/// Time until the stand-in may go; its watch shows no event by then.
fn stand_in_delay(observed: &Observed) -> Option<Duration> {
    let left = observed.stand_in.pod.as_ref()?.time_to_go(Timestamp::now())?;
    let left = Duration::try_from(left).ok().filter(|left| !left.is_zero())?;
    Some(left + Duration::from_secs(1))
}

/// Completes the condition with the outcome of the apply, and returns when to reconcile again.
async fn record(
    context: &ModelServingContext,
    mut observed: Observed,
    plan: Plan,
    capabilities: Capabilities,
    status_delay: Option<Duration>,
    Outcome { scaling, stand_in }: Outcome,
) -> Result<Action, Error> {
    report::publish_opted_out_without_condition(context, &observed, &plan);
    report::publish_mistyped_opt_in(context, &observed.model_serving);
    observed.rejection = scaling.as_ref().err().and_then(Failure::rejection);
    let stand_in_changed = record_stand_in(context, &mut observed, stand_in.as_ref().err());
    let persistent =
        scaling.as_ref().map_or_else(|_| observed.persistent_fields.clone(), Applied::persistent);
    let has_changed = persistent != observed.persistent_fields;
    observed.persistent_fields = persistent;
    let condition_delay = if has_changed
        || stand_in_changed
        || observed.rejection.is_some()
        || waits_for_apply(&observed, &plan)
    {
        complete_condition(context, &mut observed, capabilities).await?
    } else {
        None
    };
    let scaling_delay = scaling.map_err(|failure| failure.error)?.delay();
    let stand_in_write_delay = stand_in.map_err(|failure| failure.error)?.delay;
    context.failures.forget(&uid(&observed.model_serving));
    let delays = [
        status_delay,
        scaling_delay,
        stand_in_write_delay,
        condition_delay,
        resume_delay(context, &observed),
        stand_in_delay(&observed),
        count_delay(&observed),
    ];
    Ok(delays.into_iter().flatten().min().map_or_else(Action::await_change, Action::requeue))
}

/// Records the rejection of the stand-in, or that there is none any more. Returns `true` if that is a change.
fn record_stand_in(
    context: &ModelServingContext,
    observed: &mut Observed,
    failure: Option<&Failure>,
) -> bool {
    // A failure that a retry resolves says nothing about the last rejection.
    let rejection =
        failure.and_then(|failure| failure.rejection().or_else(|| observed.stand_in.rejection.clone()));
    let has_changed = rejection != observed.stand_in.rejection;
    context.history.record_stand_in_rejection(&uid(&observed.model_serving), rejection.clone());
    observed.stand_in.rejection = rejection;
    has_changed
}

/// Writes the condition that depends on the outcome of the apply. Returns the time until a throttled one may be written.
async fn complete_condition(
    context: &ModelServingContext,
    observed: &mut Observed,
    capabilities: Capabilities,
) -> Result<Option<Duration>, Error> {
    for _ in 0..STATUS_ATTEMPTS {
        let plan = plan(observed, capabilities, &context.shared.settings.defaults);
        match write_status(context, observed, &plan, Phase::AfterApply).await? {
            StatusWrite::Current(delay) => return Ok(delay),
            StatusWrite::Stale(live) => {
                let Some((again, _)) = observe(context, &live) else { return Ok(None) };
                let role_instances = mem::take(&mut observed.role_instances);
                let rejection = observed.rejection.take();
                let persistent_fields = mem::take(&mut observed.persistent_fields);
                *observed = Observed { rejection, persistent_fields, role_instances, ..again };
            }
            StatusWrite::Gone => return Ok(None),
        }
    }
    Err(Error::Contended)
}
