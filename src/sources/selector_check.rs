//! The pods that a model's selector matches, counted: the HPA multiplies by them for levels.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
};

use kthena_keda_core::{api::kthena::ModelServing, observed::SelectorMismatch};

/// Counts once, by one request; nothing where it matches, or is not meant to while ServingGroups come and go.
///
/// # Errors
/// Any refusal of the API server.
pub async fn selector_mismatch(
    client: &Client,
    model_serving: &ModelServing,
) -> Result<Option<SelectorMismatch>, kube::Error> {
    let (Some(namespace), Some(selector)) = (model_serving.namespace(), model_serving.label_selector())
    else {
        return Ok(None);
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let found: Vec<PartialObjectMeta<Pod>> =
        api.list_metadata(&ListParams::default().labels(selector)).await?.items;
    let pods = found.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
    let groups = model_serving.status.replicas.unwrap_or_default();
    let settled = groups == model_serving.replicas();
    let differs = i32::try_from(pods).is_ok_and(|pods| pods != groups);
    Ok((settled && differs).then_some(SelectorMismatch { pods, groups }))
}
