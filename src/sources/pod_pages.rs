//! Metadata of pods, read in pages: a list in one piece may exceed the client's limit of a page.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::ListParams};

/// Pods per page; the metadata of a pod usually has 4 KB.
const PAGE_SIZE: u32 = 100;

/// Reads up to `most` pods with these labels, or a few more, and keeps of each what `read` returns. Anyone who may create pods can add any
/// number.
///
/// # Errors
/// Any rejection by the API server, and a page that is too long.
pub async fn pod_metadata<T>(
    pods: &Api<Pod>,
    labels: &str,
    most: usize,
    read: impl Fn(ObjectMeta) -> T,
) -> Result<Vec<T>, kube::Error> {
    let mut params = ListParams::default().labels(labels).limit(PAGE_SIZE);
    let mut found = Vec::new();
    loop {
        let page = pods.list_metadata(&params).await?;
        found.extend(page.items.into_iter().map(|pod| read(pod.metadata)));
        match page.metadata.continue_.filter(|token| !token.is_empty() && found.len() < most) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
