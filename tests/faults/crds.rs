//! Removal of CRDs, together with all their objects, and reinstallation while many models exist.

use std::time::{Duration, Instant};

use harness::{Crds, condition, kinds, neighbours::ControllerManager, wait::until_asked_within};
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams},
};

use super::{
    convergence::{converges, converges_within},
    shared::{Cluster, request_limit},
};

const MODELS: usize = 60;

/// Waits until every opted-in model for which `filter` is `true` has this reason, and a message with this text.
async fn all_report(cluster: &Cluster, reason: &str, text: &str, filter: impl Fn(&DynamicObject) -> bool) {
    let api = cluster.models.api(&kinds::model_serving());
    let other_reasons = async || {
        let all = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let opted_in = all
            .iter()
            .filter(|model| model.annotations().contains_key("kthena.io/model-name") && filter(model));
        let reports = |found: &serde_json::Value| {
            found["reason"] == reason && found["message"].as_str().is_some_and(|found| found.contains(text))
        };
        let others = opted_in.filter(|model| !condition(model).is_some_and(reports));
        (all.len(), others.map(|model| (model.name_any(), condition(model).cloned())).collect::<Vec<_>>())
    };
    until_asked_within(Duration::from_mins(1), reason, other_reasons, |(count, others)| {
        *count == MODELS && others.is_empty()
    })
    .await;
}

#[tokio::test]
async fn survives_removal_of_kedas_crds_during_a_burst() {
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    Crds::keda().remove(&cluster.models.client).await;
    burst.finished().await;
    all_report(&cluster, "KedaNotInstalled", "", |model| {
        !model.annotations().contains_key("autoscaling.kthena.io/paused")
    })
    .await;
    Crds::keda().install(&cluster.models.client).await;
    cluster.add_foreign_scaled_object().await;
    converges(&cluster, &mut operator).await;
    // Each model is written before, during and after the absence of the CRDs.
    let requests = cluster.stack.requests().len();
    assert!(
        requests <= request_limit(3 * MODELS, started, 1),
        "{requests} requests: {:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
}

#[tokio::test]
async fn survives_removal_of_the_profile_crd_during_a_burst() {
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    Crds::ours().remove(&cluster.models.client).await;
    burst.finished().await;
    all_report(&cluster, "Pending", "autoscalingprofiles in the API group", |model| {
        model.annotations().contains_key("autoscaling.kthena.io/profile")
    })
    .await;
    Crds::ours().install(&cluster.models.client).await;
    cluster.add_profile().await;
    converges(&cluster, &mut operator).await;
    let requests = cluster.stack.requests().len();
    assert!(
        requests <= request_limit(2 * MODELS, started, 1),
        "{requests} requests: {:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
}

/// The removal deletes all models, and Kubernetes' garbage collector deletes the ScaledObjects; the same
/// models are then created again.
#[tokio::test]
async fn survives_removal_of_kthenas_crds_with_all_models() {
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let _collector = ControllerManager::start(&cluster.stack.control_plane, 15);
    cluster.start_burst(MODELS).finished().await;
    converges(&cluster, &mut operator).await;
    Crds::kthena().remove(&cluster.models.client).await;
    Crds::kthena().install(&cluster.models.client).await;
    let started = Instant::now();
    cluster.start_burst(MODELS).finished().await;
    // The garbage collector discovers new kinds every 30 seconds.
    converges_within(Duration::from_secs(100), &cluster, &mut operator).await;
    let requests = cluster.stack.requests().len();
    assert!(
        requests <= request_limit(4 * MODELS, started, 1),
        "{requests} requests: {:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
}
