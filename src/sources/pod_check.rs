//! Pods of a model that wait for a node or an image.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use std::time::Duration;

use kthena_keda_core::{api::kthena::ModelServing, observed::WaitingPods};

/// Pods that are looked at; one that waits is enough. Anyone who may edit pods can make them as large as the API server accepts.
const PODS: u32 = 10;
/// Age up to which a pod is expected to wait.
const MIN_AGE: Duration = Duration::from_secs(10);

/// The cause for which pods of a model do not start, with one request; `None` if none waits for a node or an image.
///
/// # Errors
/// Any rejection by the API server.
pub async fn waiting_pods(
    client: &Client,
    model_serving: &ModelServing,
) -> Result<Option<WaitingPods>, kube::Error> {
    let Some(namespace) = model_serving.namespace() else { return Ok(None) };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let of_model = format!("modelserving.volcano.sh/name={}", model_serving.name());
    let params = ListParams::default().labels(&of_model).fields("status.phase=Pending").limit(PODS);
    let pods = api.list(&params).await?.items;
    Ok(WaitingPods::of(&pods, &Time(Timestamp::now() - MIN_AGE)))
}
