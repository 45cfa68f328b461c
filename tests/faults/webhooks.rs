//! KEDA's admission webhook rejects ScaledObjects, does not answer, or is down.

use std::time::{Duration, Instant};

use harness::{ModelServing, kinds, neighbours::Keda, stack::resource};
use kube::api::{ApiResource, DeleteParams};
use serde_json::json;

use super::{
    convergence::converges,
    shared::{Cluster, request_limit},
};

const MODELS: usize = 10;

async fn models(cluster: &Cluster) -> Vec<ModelServing> {
    let mut models = Vec::new();
    for i in 0..MODELS {
        models.push(
            cluster.models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await,
        );
    }
    models
}

/// Waits until each model reports that its ScaledObject is rejected, with this cause.
async fn report_rejection(models: &[ModelServing], cause: &str) {
    for model in models {
        let message = model.within(Duration::from_mins(1)).says("ScaledObjectNotReady", cause).await;
        assert!(message.starts_with("ScaledObject ") && message.contains(" was rejected"), "{message}");
    }
}

fn hpa() -> ApiResource {
    resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
}

/// The webhook rejects a second ScaledObject of a model, and takes the HPA of a deleted one, which is not yet
/// garbage-collected, for the first.
#[tokio::test]
async fn recovers_from_rejections_of_the_webhook() {
    let cluster = Cluster::start().await;
    let _webhooks = Keda::start_webhooks(&cluster.stack.control_plane, &cluster.models.client).await;
    let mut operator = cluster.start_operator().await;
    for i in 0..MODELS {
        let owner = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "former", "uid": "gone", "controller": true});
        let metadata = json!({"name": format!("keda-hpa-former-{i}"), "ownerReferences": [owner]});
        let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": format!("chat-{i}")});
        cluster
            .models
            .create(
                &hpa(),
                json!({"metadata": metadata, "spec": {"scaleTargetRef": target, "maxReplicas": 2}}),
            )
            .await;
    }
    let started = Instant::now();
    report_rejection(&models(&cluster).await, "already managed by the hpa").await;
    let requests = cluster.stack.requests().len();
    assert!(
        requests <= request_limit(MODELS, started, 3),
        "{:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
    for i in 0..MODELS {
        cluster
            .models
            .api(&hpa())
            .delete(&format!("keda-hpa-former-{i}"), &DeleteParams::default())
            .await
            .unwrap();
    }
    converges(&cluster, &mut operator).await;
}

/// The API server gives up after the 10 s that KEDA configures.
#[tokio::test]
async fn recovers_from_a_webhook_that_does_not_answer() {
    let cluster = Cluster::start().await;
    let mut webhooks = Keda::start_webhooks(&cluster.stack.control_plane, &cluster.models.client).await;
    let mut operator = cluster.start_operator().await;
    cluster.models.model_serving("first").opted_in("first").create().await.scaled_object().await;
    webhooks.signal("STOP");
    let (started, before) = (Instant::now(), cluster.stack.requests().len());
    report_rejection(&models(&cluster).await, "failed calling webhook").await;
    let requests = cluster.stack.requests().len() - before;
    assert!(
        requests <= request_limit(MODELS, started, 3),
        "{:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
    webhooks.signal("CONT");
    converges(&cluster, &mut operator).await;
}

/// As during an upgrade of KEDA.
#[tokio::test]
async fn recovers_from_a_webhook_that_is_down() {
    let cluster = Cluster::start().await;
    let mut webhooks = Keda::start_webhooks(&cluster.stack.control_plane, &cluster.models.client).await;
    let mut operator = cluster.start_operator().await;
    webhooks.kill();
    let started = Instant::now();
    report_rejection(&models(&cluster).await, "failed calling webhook").await;
    let requests = cluster.stack.requests().len();
    assert!(
        requests <= request_limit(MODELS, started, 3),
        "{:?}",
        harness::audit::summary(&cluster.stack.requests())
    );
    webhooks.start();
    converges(&cluster, &mut operator).await;
    assert!(cluster.models.api(&kinds::scaled_object()).get_opt("chat-0").await.unwrap().is_some());
}
