//! Carries a plan out: at most two writes, and none where everything stands already.

use kube::{Api, ResourceExt as _};

use super::{Context, status};
use crate::{
    api::keda::ScaledObject,
    cluster::{Error, apply},
    observed::{LiveScaledObject, Observed},
    plan::{Capabilities, Desired, Plan, scaled_object_name},
};

/// Writes what the plan wants and the cluster does not have.
///
/// Opting out takes the ScaledObject first and our condition last; everything else begins with the status, since the HPA needs the
/// selector before it sees a ScaledObject.
pub(super) async fn apply(context: &Context, observed: Observed, plan: Plan, capabilities: Capabilities) -> Result<(), Error> {
    if matches!(plan.scaled_object, Desired::Remove) {
        remove(context, &observed).await?;
    }
    let Some((observed, plan)) = status::write(context, observed, plan, capabilities).await? else {
        return Ok(());
    };
    let Plan { scaled_object, selector: _, condition: _, findings } = plan;
    match scaled_object {
        Desired::Apply(scaled_object) => write(context, &observed, *scaled_object).await,
        Desired::Keep | Desired::Remove => {
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
    }
}

async fn remove(context: &Context, observed: &Observed) -> Result<(), Error> {
    let (Some(digest), Some(namespace)) = (&observed.scaled_object, observed.model_serving.namespace()) else {
        return Ok(());
    };
    let api: Api<LiveScaledObject> = Api::namespaced(context.client.clone(), &namespace);
    let name = scaled_object_name(&observed.model_serving);
    apply::delete(&api, &name, &digest.uid).await?;
    tracing::info!(namespace, name, "removed the ScaledObject");
    Ok(())
}

async fn write(context: &Context, observed: &Observed, wanted: ScaledObject) -> Result<(), Error> {
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
