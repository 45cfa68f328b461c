//! Pods that a model's selector matches, which the HPA multiplies a `Value` metric by.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
};

use kthena_keda_core::{api::kthena::ModelServing, observed::SelectorMismatch};

/// Counts the pods with one request. `None` if the selector matches one pod for each ServingGroup, or while their number changes.
///
/// # Errors
/// Any rejection by the API server.
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
    let is_steady = groups == model_serving.replicas();
    let differs = i32::try_from(pods).is_ok_and(|pods| pods != groups);
    Ok((is_steady && differs).then_some(SelectorMismatch { pods, groups }))
}
