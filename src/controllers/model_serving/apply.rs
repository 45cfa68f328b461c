//! Applies a plan: one write for each object that differs, and none where every object is as desired.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{ModelServingContext, uid};
use crate::{
    cluster::{
        Error,
        server_side_apply::{self, Generated},
    },
    sources::kinds::WatchedKind,
};
use kthena_keda_core::{
    observed::{LivePodMonitor, LiveScaledObject, Observed, OwnedObject, Ownership},
    plan::{Desired, Plan},
};

/// A write that failed, and the object that it was for.
pub(super) struct Failure {
    object: String,
    pub(super) error: Error,
}

impl Failure {
    /// The rejection as the condition reports it; `None` for a failure that a retry resolves.
    pub(super) fn rejection(&self) -> Option<String> {
        let needs_action = self.error.class().needs_action();
        needs_action.then(|| format!("{} was rejected: {}", self.object, self.error.user_message()))
    }
}

/// What exists under the name of a generated object.
struct Existing<'a> {
    ownership: Ownership,
    object: Option<&'a OwnedObject>,
}

/// Applies every object of the plan. Returns when to reconcile again although nothing changes.
///
/// # Errors
/// The first write that failed.
pub(super) async fn apply(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &Plan,
) -> Result<Option<Duration>, Failure> {
    let Plan { scaled_object, pod_monitor, selector: _, condition: _, findings, warnings: _, explanation: _ } =
        plan;
    for finding in findings {
        let (namespace, name) = (observed.model_serving.namespace(), observed.model_serving.name());
        tracing::debug!(namespace, name, reason = finding.reason.as_str(), "not scaled");
    }
    let pod_monitor_delay = match pod_monitor {
        Desired::Apply(desired) => {
            let existing = Existing {
                ownership: observed.pod_monitor_ownership(),
                object: observed.pod_monitor.as_ref(),
            };
            apply_object(context, observed, existing, (**desired).clone()).await?
        }
        Desired::Remove => {
            let name = observed.model_serving.pod_monitor_name();
            remove_object::<LivePodMonitor>(context, observed, &name, observed.pod_monitor.as_ref()).await?
        }
        Desired::Keep => None,
    };
    let scaled_object_delay = match scaled_object {
        Desired::Apply(desired) => {
            let existing = Existing {
                ownership: observed.scaled_object_ownership(),
                object: observed.scaled_object_digest(),
            };
            apply_object(context, observed, existing, (**desired).clone()).await?
        }
        Desired::Remove => {
            let name = observed.model_serving.scaled_object_name();
            remove_object::<LiveScaledObject>(context, observed, &name, observed.scaled_object_digest())
                .await?
        }
        Desired::Keep => None,
    };
    Ok([pod_monitor_delay, scaled_object_delay].into_iter().flatten().min())
}

/// `true` if an apply of this plan would write an object.
pub(super) fn has_pending_write(observed: &Observed, plan: &Plan) -> bool {
    let Plan {
        scaled_object,
        pod_monitor,
        selector: _,
        condition: _,
        findings: _,
        warnings: _,
        explanation: _,
    } = plan;
    is_pending(scaled_object, observed.scaled_object_digest())
        || is_pending(pod_monitor, observed.pod_monitor.as_ref())
}

fn is_pending<K: Generated>(desired: &Desired<Box<K>>, found: Option<&OwnedObject>) -> bool {
    let Desired::Apply(desired) = desired else { return false };
    found.is_none_or(|found| found.fingerprint != desired.fingerprint())
}

/// Applies one object if it differs, and publishes an event if another client had changed it. Returns how long the write has to wait
/// where another client changes the object again and again.
async fn apply_object<K>(
    context: &ModelServingContext,
    observed: &Observed,
    existing: Existing<'_>,
    desired: K,
) -> Result<Option<Duration>, Failure>
where
    K: Generated<Live: WatchedKind>,
{
    let (history, model_serving) = (&context.history, &observed.model_serving);
    let (uid, kind, name) = (uid(model_serving), K::kind(&()), desired.name_any());
    let fingerprint = desired.fingerprint();
    if let Some(delay) = history.repair_delay(&uid, &kind, fingerprint) {
        return Ok(Some(delay));
    }
    let written = match api::<K::Live>(context, observed) {
        Ok(api) => {
            server_side_apply::apply_if_changed(
                &api,
                existing.ownership,
                existing.object,
                desired,
                fingerprint,
            )
            .await
        }
        Err(error) => Err(error),
    };
    let written = written.map_err(|error| Failure { object: format!("{kind} {name}"), error })?;
    let is_repair = history.record_applied(&uid, kind.clone(), fingerprint);
    let Some(live) = written else { return Ok(None) };
    context.shared.caches.stores.record::<K::Live, _>(&live);
    tracing::info!(namespace = model_serving.namespace(), name, %kind, "applied");
    if is_repair {
        history.record_repair(&uid, &kind);
        let note = format!("{kind} {name} was changed by another client and has been restored");
        context.events.normal(model_serving, "Repaired", &note);
    }
    Ok(None)
}

async fn remove_object<L>(
    context: &ModelServingContext,
    observed: &Observed,
    name: &str,
    found: Option<&OwnedObject>,
) -> Result<Option<Duration>, Failure>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let Some(found) = found else { return Ok(None) };
    let kind = L::kind(&());
    let deleted = match api::<L>(context, observed) {
        Ok(api) => server_side_apply::delete(&api, name, &found.uid).await,
        Err(error) => Err(error),
    };
    deleted.map_err(|error| Failure { object: format!("deletion of {kind} {name}"), error })?;
    context.history.record_removal(&uid(&observed.model_serving), &kind);
    tracing::info!(namespace = observed.model_serving.namespace(), name, %kind, "removed");
    Ok(None)
}

fn api<L>(context: &ModelServingContext, observed: &Observed) -> Result<Api<L>, Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    Ok(Api::namespaced(context.shared.client.clone(), &namespace))
}
