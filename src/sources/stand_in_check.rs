//! The stand-in of one model, for commands: few of their users may watch pods.

use kube::{Api, Client, ResourceExt as _, api::ListParams};

use kthena_keda_core::{
    api::{kthena::ModelServing, stand_in::STAND_IN},
    observed::{LiveStandIn, StandInDigest},
};

/// Reads the stand-in of a model with one request; `None` if there is none.
///
/// # Errors
/// Any rejection by the API server.
pub async fn stand_in(
    client: &Client,
    model_serving: &ModelServing,
) -> Result<Option<StandInDigest>, kube::Error> {
    let api: Api<LiveStandIn> =
        Api::namespaced(client.clone(), &model_serving.namespace().unwrap_or_default());
    let name = model_serving.stand_in_name();
    let params = ListParams::default().labels(STAND_IN).fields(&format!("metadata.name={name}"));
    Ok(api.list(&params).await?.items.first().map(StandInDigest::from))
}
