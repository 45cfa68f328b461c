//! Applies a plan: one write for each object that differs, and none where every object is as desired.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{ModelServingContext, report, roles, stand_in::apply_stand_in, uid};
use crate::{
    cluster::{
        Error,
        server_side_apply::{self, Generated},
    },
    controllers::foreign_fields::listed,
    sources::kinds::WatchedKind,
};
use kthena_keda_core::{
    api::{keda::ScaledObject, monitoring::PodMonitor},
    observed::{
        LiveObject as _, LivePodMonitor, LiveScaledObject, Observed, OwnedObject, Ownership, PersistentFields,
    },
    plan::{Desired, PauseChange, Plan},
};

/// A write that failed, and the object that it was for.
pub(super) struct Failure {
    object: String,
    pub(super) error: Error,
}

impl Failure {
    /// The failure to write an object.
    pub(super) fn new(object: impl Into<String>, error: Error) -> Self {
        Self { object: object.into(), error }
    }

    /// The rejection as the condition reports it; `None` for a failure that a retry resolves.
    pub(super) fn rejection(&self) -> Option<String> {
        let needs_action = self.error.class().needs_action();
        needs_action.then(|| format!("{} was rejected: {}", self.object, self.error.user_message()))
    }
}

/// Live object under the name of a generated one.
pub(super) struct Existing<'a> {
    pub(super) ownership: Ownership,
    pub(super) object: Option<&'a OwnedObject>,
    /// Fields that are left alone.
    pub(super) persistent: &'a [String],
}

/// Outcome of an apply. A model whose stand-in cannot be written is scaled all the same.
pub(super) struct Outcome {
    /// The objects by which the model is scaled.
    pub(super) scaling: Result<Applied, Failure>,
    pub(super) stand_in: Result<AppliedObject, Failure>,
}

/// Outcome for the objects by which the model is scaled.
#[derive(Debug, Default)]
pub(super) struct Applied {
    scaled_object: AppliedObject,
    pod_monitor: AppliedObject,
    pause_delay: Option<Duration>,
    roles_delay: Option<Duration>,
}

/// Outcome for one object.
#[derive(Debug, Default)]
pub(super) struct AppliedObject {
    /// Time until the object may be written, where another client changes it again and again.
    pub(super) delay: Option<Duration>,
    /// Fields that are left alone.
    pub(super) persistent: Vec<String>,
}

impl Applied {
    /// # Errors
    /// A write that failed, that of the ScaledObject first.
    fn of(
        scaled_object: Result<AppliedObject, Failure>,
        pause_delay: Result<Option<Duration>, Failure>,
        pod_monitor: Result<AppliedObject, Failure>,
        roles_delay: Result<Option<Duration>, Failure>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            scaled_object: scaled_object?,
            pause_delay: pause_delay?,
            pod_monitor: pod_monitor?,
            roles_delay: roles_delay?,
        })
    }

    /// When to reconcile again although nothing changes.
    pub(super) fn delay(&self) -> Option<Duration> {
        let delays = [self.scaled_object.delay, self.pod_monitor.delay, self.pause_delay, self.roles_delay];
        delays.into_iter().flatten().min()
    }

    /// Fields that are left alone from now on.
    pub(super) fn persistent(&self) -> PersistentFields {
        PersistentFields {
            scaled_object: self.scaled_object.persistent.clone(),
            pod_monitor: self.pod_monitor.persistent.clone(),
        }
    }
}

/// Applies every object of the plan, also where another one fails.
pub(super) async fn apply(context: &ModelServingContext, observed: &Observed, plan: &Plan) -> Outcome {
    let Plan {
        scaled_object,
        pause,
        pod_monitor,
        stand_in,
        selector: _,
        condition: _,
        findings,
        warnings: _,
        explanation: _,
        roles,
        shadow: _,
    } = plan;
    for finding in findings {
        let (namespace, name) = (observed.model_serving.namespace(), observed.model_serving.name());
        tracing::debug!(namespace, name, reason = finding.reason.as_str(), "not scaled");
    }
    let pause_delay = apply_pause(context, observed, *pause).await;
    let pod_monitor = apply_pod_monitor(context, observed, pod_monitor).await;
    let scaled_object = apply_scaled_object(context, observed, scaled_object).await;
    let roles_delay = roles::apply_roles(context, observed, roles).await;
    let stand_in = apply_stand_in(context, observed, stand_in).await;
    Outcome { scaling: Applied::of(scaled_object, pause_delay, pod_monitor, roles_delay), stand_in }
}

/// Pauses or resumes a ScaledObject that is kept. Returns how long the write has to wait where another client undoes it again and again.
async fn apply_pause(
    context: &ModelServingContext,
    observed: &Observed,
    change: Option<PauseChange>,
) -> Result<Option<Duration>, Failure> {
    let found = observed.scaled_object_digest().map(|found| found.uid.as_str());
    apply_pause_of(context, observed, change, &observed.model_serving.scaled_object_name(), found).await
}

/// The same for the ScaledObject of this name.
pub(super) async fn apply_pause_of(
    context: &ModelServingContext,
    observed: &Observed,
    change: Option<PauseChange>,
    name: &str,
    found: Option<&str>,
) -> Result<Option<Duration>, Failure> {
    let (Some(PauseChange(pause)), Some(found)) = (change, found) else { return Ok(None) };
    let (model_serving, uid) = (&observed.model_serving, uid(&observed.model_serving));
    if let Some(delay) = context.history.pause_delay(&uid) {
        return Ok(Some(delay));
    }
    let namespace = model_serving.namespace().unwrap_or_default();
    let client = &context.shared.client;
    let applied = server_side_apply::apply_pause::<LiveScaledObject>(client, &namespace, name, found, pause);
    let live =
        applied.await.map_err(|error| Failure::new(format!("the pause of ScaledObject {name}"), error))?;
    context.history.record_pause(&uid);
    if let Some(live) = live {
        context.shared.caches.stores.record::<LiveScaledObject, _>(&live);
        tracing::info!(namespace, name, ?pause, "changed the pause of a ScaledObject that is kept");
    }
    Ok(None)
}

async fn apply_pod_monitor(
    context: &ModelServingContext,
    observed: &Observed,
    desired: &Desired<Box<PodMonitor>>,
) -> Result<AppliedObject, Failure> {
    let existing = Existing {
        ownership: observed.pod_monitor_ownership(),
        object: observed.pod_monitor.as_ref(),
        persistent: &observed.persistent_fields.pod_monitor,
    };
    match desired {
        Desired::Apply(desired) => {
            let slot = PodMonitor::kind(&());
            apply_object(context, observed, &slot, existing, &**desired).await
        }
        Desired::Remove => {
            let (slot, name) = (PodMonitor::kind(&()), observed.model_serving.pod_monitor_name());
            remove_object::<LivePodMonitor>(context, observed, &slot, &name, existing.object).await
        }
        Desired::Keep => Ok(existing.kept()),
    }
}

async fn apply_scaled_object(
    context: &ModelServingContext,
    observed: &Observed,
    desired: &Desired<Box<ScaledObject>>,
) -> Result<AppliedObject, Failure> {
    let existing = Existing {
        ownership: observed.scaled_object_ownership(),
        object: observed.scaled_object_digest(),
        persistent: &observed.persistent_fields.scaled_object,
    };
    match desired {
        Desired::Apply(desired) => {
            let slot = ScaledObject::kind(&());
            apply_object(context, observed, &slot, existing, &**desired).await
        }
        Desired::Remove => {
            let (slot, name) = (ScaledObject::kind(&()), observed.model_serving.scaled_object_name());
            remove_object::<LiveScaledObject>(context, observed, &slot, &name, existing.object).await
        }
        Desired::Keep => Ok(existing.kept()),
    }
}

impl Existing<'_> {
    /// Outcome where the object stays as it is.
    fn kept(&self) -> AppliedObject {
        AppliedObject { delay: None, persistent: self.persistent.to_vec() }
    }
}

/// `true` if an apply of this plan would write an object.
pub(super) fn has_pending_write(observed: &Observed, plan: &Plan) -> bool {
    let Plan {
        scaled_object,
        pause: _,
        pod_monitor,
        // The condition does not wait for it.
        stand_in: _,
        selector: _,
        condition: _,
        findings: _,
        warnings: _,
        explanation: _,
        roles,
        shadow: _,
    } = plan;
    roles::has_pending_write(observed, roles)
        || is_pending(scaled_object, observed.scaled_object_digest())
        || is_pending(pod_monitor, observed.pod_monitor.as_ref())
}

pub(super) fn is_pending<K: Generated>(desired: &Desired<Box<K>>, found: Option<&OwnedObject>) -> bool {
    let Desired::Apply(desired) = desired else { return false };
    found.is_none_or(|found| found.fingerprint != desired.fingerprint())
}

/// Applies one object if it differs, and publishes an event if another client had changed it. `slot` names it in the history of the model.
pub(super) async fn apply_object<K>(
    context: &ModelServingContext,
    observed: &Observed,
    slot: &str,
    existing: Existing<'_>,
    desired: &K,
) -> Result<AppliedObject, Failure>
where
    K: Generated<Live: WatchedKind>,
{
    let (history, model_serving) = (&context.history, &observed.model_serving);
    let (uid, kind, name) = (uid(model_serving), K::kind(&()), desired.name_any());
    let fingerprint = desired.fingerprint();
    let accepts = |found: &OwnedObject| history.accepts(&uid, slot, fingerprint, found.fingerprint);
    if existing.object.is_some_and(accepts) {
        return Ok(existing.kept());
    }
    if let Some(delay) = history.repair_delay(&uid, slot, fingerprint) {
        return Ok(AppliedObject { delay: Some(delay), ..existing.kept() });
    }
    let left_alone = history.persistent_fields(&uid, slot);
    let Existing { ownership, object, persistent: _ } = existing;
    let written = match api::<K::Live>(context, observed) {
        Ok(api) => {
            server_side_apply::apply_if_changed(&api, ownership, object, desired, fingerprint, &left_alone)
                .await
        }
        Err(error) => Err(error),
    };
    // The ModelServing is about to be deleted with its namespace.
    if written.as_ref().is_err_and(Error::is_namespace_terminating) {
        return Ok(AppliedObject::default());
    }
    let written = written.map_err(|error| Failure::new(format!("{kind} {name}"), error))?;
    let is_repair = history.record_applied(&uid, slot.to_owned().into(), fingerprint);
    let Some(written) = written else { return Ok(AppliedObject::default()) };
    context.shared.caches.stores.record::<K::Live, _>(&written.live);
    tracing::info!(namespace = model_serving.namespace(), name, %kind, removed = listed(&written.removed), "applied");
    let removed = history.record_outcome(&uid, slot, fingerprint, &written);
    let times = if is_repair { history.record_repair(&uid, slot) } else { 0 };
    report::publish_repair(context, model_serving, &format!("{kind} {name}"), times, &removed);
    let live = written.live.owned_object().fingerprint;
    Ok(AppliedObject { delay: None, persistent: history.left_alone(&uid, slot, live) })
}

pub(super) async fn remove_object<L>(
    context: &ModelServingContext,
    observed: &Observed,
    slot: &str,
    name: &str,
    found: Option<&OwnedObject>,
) -> Result<AppliedObject, Failure>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let Some(found) = found else { return Ok(AppliedObject::default()) };
    let kind = L::kind(&());
    let deleted = match api::<L>(context, observed) {
        Ok(api) => server_side_apply::delete(&api, name, &found.uid).await,
        Err(error) => Err(error),
    };
    deleted.map_err(|error| Failure::new(format!("deletion of {kind} {name}"), error))?;
    context.history.record_removal(&uid(&observed.model_serving), slot);
    tracing::info!(namespace = observed.model_serving.namespace(), name, %kind, "removed");
    Ok(AppliedObject::default())
}

pub(super) fn api<L>(context: &ModelServingContext, observed: &Observed) -> Result<Api<L>, Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    Ok(Api::namespaced(context.shared.client.clone(), &namespace))
}
