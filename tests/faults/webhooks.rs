//! KEDA's own admission webhook does not let a ScaledObject in, or does not answer.

use std::time::{Duration, Instant};

use harness::{ModelServing, kinds, neighbours::Keda, stack::resource};
use kube::api::{ApiResource, DeleteParams};
use serde_json::json;

use super::{
    settled::settled,
    shared::{World, most_requests},
};

const MODELS: usize = 10;

async fn models(world: &World) -> Vec<ModelServing> {
    let mut models = Vec::new();
    for i in 0..MODELS {
        models.push(
            world.models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await,
        );
    }
    models
}

/// Waits until each says that its ScaledObject is not let in, and why.
async fn say(models: &[ModelServing], why: &str) {
    for model in models {
        let message = model.within(Duration::from_mins(1)).says("ScaledObjectNotReady", why).await;
        assert!(message.starts_with("ScaledObject ") && message.contains(" was rejected"), "{message}");
    }
}

fn hpa() -> ApiResource {
    resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
}

/// It refuses a second ScaledObject of a model, for which it takes the HPA of a former one that waits to be collected.
#[tokio::test]
async fn a_webhook_that_refuses() {
    let world = World::start().await;
    let _webhooks = Keda::start_webhooks(&world.stack.control_plane, &world.models.client).await;
    let mut operator = world.start_operator().await;
    for i in 0..MODELS {
        let owner = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "former", "uid": "gone", "controller": true});
        let metadata = json!({"name": format!("keda-hpa-former-{i}"), "ownerReferences": [owner]});
        let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": format!("chat-{i}")});
        world
            .models
            .create(
                &hpa(),
                json!({"metadata": metadata, "spec": {"scaleTargetRef": target, "maxReplicas": 2}}),
            )
            .await;
    }
    let began = Instant::now();
    say(&models(&world).await, "already managed by the hpa").await;
    let asked = world.stack.requests().len();
    assert!(
        asked <= most_requests(MODELS, began, 3),
        "{:?}",
        harness::audit::summary(&world.stack.requests())
    );
    for i in 0..MODELS {
        world
            .models
            .api(&hpa())
            .delete(&format!("keda-hpa-former-{i}"), &DeleteParams::default())
            .await
            .unwrap();
    }
    settled(&world, &mut operator).await;
}

/// The API server gives up after the 10 s that KEDA asks for.
#[tokio::test]
async fn a_webhook_that_does_not_answer() {
    let world = World::start().await;
    let mut webhooks = Keda::start_webhooks(&world.stack.control_plane, &world.models.client).await;
    let mut operator = world.start_operator().await;
    world.models.model_serving("first").opted_in("first").create().await.scaled_object().await;
    webhooks.signal("STOP");
    let (began, before) = (Instant::now(), world.stack.requests().len());
    say(&models(&world).await, "failed calling webhook").await;
    let asked = world.stack.requests().len() - before;
    assert!(
        asked <= most_requests(MODELS, began, 3),
        "{:?}",
        harness::audit::summary(&world.stack.requests())
    );
    webhooks.signal("CONT");
    settled(&world, &mut operator).await;
}

/// As while KEDA is being upgraded.
#[tokio::test]
async fn a_webhook_that_is_not_there() {
    let world = World::start().await;
    let mut webhooks = Keda::start_webhooks(&world.stack.control_plane, &world.models.client).await;
    let mut operator = world.start_operator().await;
    webhooks.kill();
    let began = Instant::now();
    say(&models(&world).await, "failed calling webhook").await;
    let asked = world.stack.requests().len();
    assert!(
        asked <= most_requests(MODELS, began, 3),
        "{:?}",
        harness::audit::summary(&world.stack.requests())
    );
    webhooks.start();
    settled(&world, &mut operator).await;
    assert!(world.models.api(&kinds::scaled_object()).get_opt("chat-0").await.unwrap().is_some());
}
