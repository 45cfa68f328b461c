//! Carries a plan out: one write for each part of it, and none where everything stands already.

use std::fmt::Debug;

use kube::{Api, Resource, ResourceExt as _, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::{Context, status};
use crate::{
    api::{keda::ScaledObject, monitoring::PodMonitor},
    cluster::{Error, apply},
    observed::{Generated, LivePodMonitor, LiveScaledObject, Observed},
    plan::{Capabilities, Desired, Plan},
};

/// Writes what the plan wants and the cluster does not have.
///
/// Opting out takes the ScaledObject first and our condition last; everything else begins with the status, since the HPA needs the
/// selector before it sees a ScaledObject.
pub(super) async fn apply(context: &Context, observed: Observed, plan: Plan, capabilities: Capabilities) -> Result<(), Error> {
    if matches!(plan.scaled_object, Desired::Remove) {
        remove::<LiveScaledObject>(context, observed.scaled_object.as_ref(), &observed).await?;
    }
    let Some((observed, plan)) = status::write(context, observed, plan, capabilities).await? else {
        return Ok(());
    };
    let Plan { scaled_object, pod_monitor, selector: _, condition: _, findings, warnings: _ } = plan;
    match pod_monitor {
        Desired::Apply(pod_monitor) => write_pod_monitor(context, &observed, *pod_monitor).await?,
        Desired::Remove => remove::<LivePodMonitor>(context, observed.pod_monitor.as_ref(), &observed).await?,
        Desired::Keep => {}
    }
    if let Desired::Apply(scaled_object) = scaled_object {
        write_scaled_object(context, &observed, *scaled_object).await?;
    }
    for finding in &findings {
        tracing::debug!(
            namespace = observed.model_serving.namespace(),
            name = observed.model_serving.name_any(),
            reason = finding.reason.as_str(),
            "not scaled"
        );
    }
    Ok(())
}

async fn remove<L>(context: &Context, found: Option<&Generated>, observed: &Observed) -> Result<(), Error>
where
    L: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (Some(found), Some(namespace)) = (found, observed.model_serving.namespace()) else {
        return Ok(());
    };
    let api: Api<L> = Api::namespaced(context.client.clone(), &namespace);
    apply::delete(&api, &found.name, &found.uid).await?;
    tracing::info!(namespace, name = found.name, kind = %L::kind(&()), "removed");
    Ok(())
}

async fn write_scaled_object(context: &Context, observed: &Observed, wanted: ScaledObject) -> Result<(), Error> {
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let name = wanted.name_any();
    let api: Api<LiveScaledObject> = Api::namespaced(context.client.clone(), &namespace);
    let fingerprint = wanted.fingerprint();
    if let Some(live) = apply::bring(&api, observed.existing(), observed.scaled_object.as_ref(), wanted, fingerprint).await? {
        context.stores.scaled_objects.wrote(&live);
        tracing::info!(namespace, name, "applied the ScaledObject");
    }
    Ok(())
}

async fn write_pod_monitor(context: &Context, observed: &Observed, wanted: PodMonitor) -> Result<(), Error> {
    let namespace = observed.model_serving.namespace().ok_or(Error::Malformed("a namespace"))?;
    let name = wanted.name_any();
    let api: Api<LivePodMonitor> = Api::namespaced(context.client.clone(), &namespace);
    let fingerprint = wanted.fingerprint();
    if let Some(live) = apply::bring(&api, observed.existing_pod_monitor(), observed.pod_monitor.as_ref(), wanted, fingerprint).await? {
        context.stores.pod_monitors.wrote(&live);
        tracing::info!(namespace, name, "applied the PodMonitor");
    }
    Ok(())
}
