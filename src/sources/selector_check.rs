//! Pods that a model's selector matches, which the HPA multiplies a `Value` metric by.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};

use super::pod_metadata;
use kthena_keda_core::{api::kthena::ModelServing, observed::SelectorMismatch};

/// Most ServingGroups of a model whose pods are counted. It bounds the response, which a tenant's `spec.replicas` decides.
const GROUPS_MAX: i32 = 1_000;
/// Pods that are read at least, so that some which are being deleted do not hide the others.
const PODS_MIN: usize = 100;

/// Counts the pods. `None` if the selector matches one pod for each ServingGroup, while their number changes, and where
/// it is above [`GROUPS_MAX`].
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
    let groups = model_serving.status.replicas.unwrap_or_default();
    if groups != model_serving.replicas() || groups > GROUPS_MAX {
        return Ok(None);
    }
    // More pods than these are a mismatch in any case.
    let most = usize::try_from(groups).unwrap_or_default().saturating_mul(2).max(PODS_MIN);
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let found = pod_metadata(&api, selector, most, |pod| pod.deletion_timestamp.is_none()).await?;
    let pods = found.into_iter().filter(|is_alive| *is_alive).count();
    let differs = i32::try_from(pods).is_ok_and(|pods| pods != groups);
    Ok(differs.then_some(SelectorMismatch { pods, groups }))
}
