//! Carries a plan out: one write for each part of it, and none where everything stands already.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Context, ModelServingContext, identity,
    status::{self, Written},
};
use crate::cluster::{Error, server_side_apply};
use kthena_keda_core::{
    api::{keda::ScaledObject, monitoring::PodMonitor},
    domain::Capabilities,
    observed::{Fingerprint, LivePodMonitor, LiveScaledObject, Observed, OwnedObject, Ownership},
    plan::{Desired, Plan},
};

/// Writes what the plan wants and the cluster does not have; answers when to look again although nothing changes.
///
/// Opting out takes the ScaledObject first and our condition last; everything else begins with the status, since the HPA needs the
/// selector before it sees a ScaledObject.
pub(super) async fn apply(
    models: &ModelServingContext,
    observed: Observed,
    plan: Plan,
    capabilities: Capabilities,
) -> Result<Option<Duration>, Error> {
    let context = &models.context;
    if matches!(plan.scaled_object, Desired::Remove) {
        remove::<LiveScaledObject>(
            context,
            &observed.model_serving.scaled_object_name(),
            observed.owned_scaled_object(),
            &observed,
        )
        .await?;
    }
    let Some(Written { observed, plan, held }) = status::write(models, observed, plan, capabilities).await?
    else {
        return Ok(None);
    };
    let Plan { scaled_object, pod_monitor, selector: _, condition: _, findings, warnings: _, explanation: _ } =
        plan;
    let of_pod_monitor = match pod_monitor {
        Desired::Apply(pod_monitor) => write_pod_monitor(models, &observed, *pod_monitor).await?,
        Desired::Remove => {
            remove::<LivePodMonitor>(
                context,
                &observed.model_serving.pod_monitor_name(),
                observed.pod_monitor.as_ref(),
                &observed,
            )
            .await?;
            None
        }
        Desired::Keep => None,
    };
    let of_scaled_object = match scaled_object {
        Desired::Apply(scaled_object) => write_scaled_object(models, &observed, *scaled_object).await?,
        Desired::Remove | Desired::Keep => None,
    };
    for finding in &findings {
        tracing::debug!(
            namespace = observed.model_serving.namespace(),
            name = observed.model_serving.name_any(),
            reason = finding.reason.as_str(),
            "not scaled"
        );
    }
    Ok([held, of_pod_monitor, of_scaled_object].into_iter().flatten().min())
}

async fn remove<L>(
    context: &Context,
    name: &str,
    found: Option<&OwnedObject>,
    observed: &Observed,
) -> Result<(), Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (Some(found), Some(namespace)) = (found, observed.model_serving.namespace()) else {
        return Ok(());
    };
    let api: Api<L> = Api::namespaced(context.client.clone(), &namespace);
    server_side_apply::delete(&api, name, &found.uid).await?;
    tracing::info!(namespace, name, kind = %L::kind(&()), "removed");
    Ok(())
}

async fn write_scaled_object(
    models: &ModelServingContext,
    observed: &Observed,
    wanted: ScaledObject,
) -> Result<Option<Duration>, Error> {
    let fingerprint = wanted.fingerprint();
    let (existing, found) = (observed.ownership(), observed.owned_scaled_object());
    let wrote = |live: &LiveScaledObject| models.context.caches.scaled_objects.record_write(live);
    bring(models, observed, existing, found, (wanted, fingerprint), wrote).await
}

async fn write_pod_monitor(
    models: &ModelServingContext,
    observed: &Observed,
    wanted: PodMonitor,
) -> Result<Option<Duration>, Error> {
    let fingerprint = wanted.fingerprint();
    let (existing, found) = (observed.pod_monitor_ownership(), observed.pod_monitor.as_ref());
    let wrote = |live: &LivePodMonitor| models.context.caches.pod_monitors.record_write(live);
    bring(models, observed, existing, found, (wanted, fingerprint), wrote).await
}

/// Writes an object if it does not stand already; tells of it where somebody else had changed it. Answers how long that has to wait
/// where somebody changes it again and again.
async fn bring<L, K>(
    models: &ModelServingContext,
    observed: &Observed,
    existing: Ownership,
    found: Option<&OwnedObject>,
    (wanted, fingerprint): (K, Fingerprint),
    wrote: impl FnOnce(&L),
) -> Result<Option<Duration>, Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K: Resource<DynamicType = ()> + Serialize + Debug,
{
    let (memory, model_serving) = (&models.memory, &observed.model_serving);
    let (identity, kind, name) = (identity(model_serving), K::kind(&()), wanted.name_any());
    let stands = found.is_some_and(|found| found.fingerprint == fingerprint);
    if let Some(rest) = memory.rest(&identity, &kind, fingerprint).filter(|_| !stands) {
        return Ok(Some(rest));
    }
    let namespace = model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let api: Api<L> = Api::namespaced(models.context.client.clone(), &namespace);
    let live = server_side_apply::apply_if_changed(&api, existing, found, wanted, fingerprint)
        .await
        .inspect_err(|error| {
            // What heals by itself is tried again without a word.
            if error.class().needs_action() {
                memory.refused(&identity, format!("{kind} {name} is refused: {}", error.user_message()));
            }
        })?;
    let as_before = memory.wanted(&identity, K::kind(&()), fingerprint);
    let Some(live) = live else { return Ok(None) };
    wrote(&live);
    tracing::info!(namespace, name, %kind, "applied");
    if as_before {
        memory.repaired(&identity, &kind);
        models.events.normal(
            model_serving,
            "Repaired",
            &format!("{kind} {name} was changed by somebody else and is as it was again"),
        );
    }
    Ok(None)
}
