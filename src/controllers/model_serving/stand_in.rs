//! Writes the stand-in of a model: the pod, its Service, and the pod's readiness gate.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, Service},
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{
    ModelServingContext,
    apply::{AppliedObject, Existing, Failure, api, apply_object, remove_object},
    uid,
};
use crate::cluster::{Error, server_side_apply};
use kthena_keda_core::{
    observed::{LiveStandIn, LiveStandInService, Observed},
    plan::{Desired, GateChange, StandInPlan, readiness_gate, stand_in_fingerprint},
};

/// Name of the pod's kind in the history.
const KIND: &str = "Pod";

/// Outcome for the pod.
#[derive(Default)]
struct AppliedPod {
    /// The pod that exists now; `None` if there is none, or it is being deleted.
    uid: Option<String>,
    /// Time until it may be created, where another client deletes it again and again.
    delay: Option<Duration>,
}

/// Applies the Service before the pod, which looks the engines up when it starts, and changes the gate.
///
/// # Errors
/// A write that failed.
pub(super) async fn apply_stand_in(
    context: &ModelServingContext,
    observed: &Observed,
    plan: &StandInPlan,
) -> Result<AppliedObject, Failure> {
    let StandInPlan { pod, service, gate, state: _ } = plan;
    let applied = apply_service(context, observed, service).await?;
    let AppliedPod { uid, delay } = apply_pod(context, observed, pod).await?;
    if let (Some(GateChange(is_open)), Some(uid)) = (gate, uid) {
        set_gate(context, observed, &uid, *is_open).await?;
    }
    Ok(AppliedObject { delay: applied.delay.into_iter().chain(delay).min(), ..applied })
}

async fn apply_service(
    context: &ModelServingContext,
    observed: &Observed,
    desired: &Desired<Box<Service>>,
) -> Result<AppliedObject, Failure> {
    let (name, slot) = (observed.model_serving.stand_in_name(), LiveStandInService::kind(&()));
    let object = observed.stand_in.service.as_ref();
    let ownership = observed.stand_in_service_ownership();
    let existing = Existing { ownership, object, persistent: &[] };
    match desired {
        Desired::Apply(desired) => {
            if object.is_none() {
                expect_no_other::<LiveStandInService>(context, observed, &name).await?;
            }
            apply_object(context, observed, &slot, existing, &**desired).await
        }
        Desired::Remove => remove_object::<LiveStandInService>(context, observed, &slot, &name, object).await,
        Desired::Keep => Ok(AppliedObject::default()),
    }
}

/// Creates the pod, or deletes it. A pod that exists is never changed.
async fn apply_pod(
    context: &ModelServingContext,
    observed: &Observed,
    desired: &Desired<Box<Pod>>,
) -> Result<AppliedPod, Failure> {
    let name = observed.model_serving.stand_in_name();
    let found = observed.stand_in.pod.as_ref().map(|found| &found.owned);
    match (desired, found) {
        (Desired::Apply(desired), None) => create_pod(context, observed, desired).await,
        (Desired::Remove, found) => {
            remove_object::<LiveStandIn>(context, observed, KIND, &name, found).await?;
            Ok(AppliedPod::default())
        }
        (Desired::Apply(_), Some(_)) | (Desired::Keep, _) => {
            Ok(AppliedPod { uid: found.map(|found| found.uid.clone()), delay: None })
        }
    }
}

/// Creates the pod.
///
/// Time between two creations doubles where the pod is deleted again and again.
async fn create_pod(
    context: &ModelServingContext,
    observed: &Observed,
    pod: &Pod,
) -> Result<AppliedPod, Failure> {
    let (history, uid, name) = (&context.history, uid(&observed.model_serving), pod.name_any());
    let fingerprint = stand_in_fingerprint(pod);
    if let Some(delay) = history.repair_delay(&uid, KIND, fingerprint) {
        return Ok(AppliedPod { uid: None, delay: Some(delay) });
    }
    expect_no_other::<LiveStandIn>(context, observed, &name).await?;
    let created = match api::<LiveStandIn>(context, observed) {
        Ok(api) => server_side_apply::create(&api, &name, pod).await,
        Err(error) => Err(error),
    };
    if created.as_ref().is_err_and(Error::is_namespace_terminating) {
        return Ok(AppliedPod::default());
    }
    let live = created.map_err(|error| Failure::new(format!("Pod {name}"), error))?;
    context.shared.caches.stores.record::<LiveStandIn, _>(&live);
    if history.record_applied(&uid, KIND.into(), fingerprint) {
        history.record_repair(&uid, KIND);
    }
    tracing::info!(namespace = live.namespace(), name, "created a stand-in");
    Ok(AppliedPod { uid: live.uid(), delay: None })
}

/// Fails if an object without the label of stand-ins has the name: the watch does not show it, and a server-side apply
/// would change it. The permissions are those of the watch, which has no `get`.
async fn expect_no_other<L>(
    context: &ModelServingContext,
    observed: &Observed,
    name: &str,
) -> Result<(), Failure>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let kind = L::kind(&());
    let is_free = match api::<L>(context, observed) {
        Ok(api) => server_side_apply::is_free(&api, name).await,
        Err(error) => Err(error),
    };
    let object = format!("{kind} {name}");
    is_free.map_err(|error| Failure::new(object, error))
}

/// Changes the readiness gate of the pod with this uid.
async fn set_gate(
    context: &ModelServingContext,
    observed: &Observed,
    uid: &str,
    is_open: bool,
) -> Result<(), Failure> {
    let name = observed.model_serving.stand_in_name();
    let gated = readiness_gate(uid, is_open, Timestamp::now());
    let written = match api::<LiveStandIn>(context, observed) {
        Ok(api) => server_side_apply::merge_conditions(&api, &name, &gated).await,
        Err(error) => Err(error),
    };
    let live: Option<LiveStandIn> =
        written.map_err(|error| Failure::new(format!("the status of Pod {name}"), error))?;
    let Some(live) = live else { return Ok(()) };
    context.shared.caches.stores.record::<LiveStandIn, _>(&live);
    tracing::info!(namespace = live.namespace(), name, is_open, "changed the readiness gate of a stand-in");
    Ok(())
}
