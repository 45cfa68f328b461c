//! Scaling up and down with the load, by KEDA and the HPA.

use std::time::Duration;

use kube::api::ListParams;

use super::shared::{SETTLED, chain};

#[tokio::test]
async fn scales_out_with_the_load_and_in_again() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("out-and-in").await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load(&chat);
    // The target is 10 requests per ServingGroup, so 37 requests need four.
    load.hold(37);
    chat.has_replicas(4).await;
    chat.keeps_replicas(4, SETTLED).await;
    load.hold(17);
    chat.has_replicas(2).await;
    load.hold(0);
    chat.has_replicas(1).await;
    let counts = load.counts();
    assert_eq!(counts.failed, 0, "scaling failed requests that no client had cancelled: {counts:?}");
}

#[tokio::test]
async fn stays_within_minimum_and_maximum() {
    let Some(chain) = chain().await else { return };
    let bounds = [("autoscaling.kthena.io/min-replicas", "2"), ("autoscaling.kthena.io/max-replicas", "3")];
    let with_bounds = |builder| {
        bounds.iter().fold(builder, |builder: harness::ModelServingBuilder, (key, value)| {
            builder.annotated(key, value)
        })
    };
    let chat = chain.model_with("bounded", with_bounds).await;
    chat.has_replicas(2).await;
    let load = chain.load(&chat);
    load.hold(90);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    load.hold(0);
    chat.has_replicas(2).await;
    chat.keeps_replicas(2, SETTLED).await;
}

#[tokio::test]
async fn rounds_total_over_target_up_outside_the_tolerance() {
    let Some(chain) = chain().await else { return };
    let signals = |builder: harness::ModelServingBuilder| {
        builder.annotated("autoscaling.kthena.io/signals", "active-requests=7")
    };
    let chat = chain.model_with("arithmetic", signals).await;
    chat.serves(chain).await;
    let load = chain.load(&chat);
    load.hold(39);
    chat.has_replicas(6).await;
    // 44 / (6 × 7) is 1.05, within the HPA's tolerance of 10 %, so the count stays although 44 / 7 rounds up
    // to 7.
    load.hold(44);
    chat.keeps_replicas(6, SETTLED).await;
    load.hold(48);
    chat.has_replicas(7).await;
    // The target applies per ServingGroup, so a new target changes the required count at once.
    chat.serving.annotate(&[("autoscaling.kthena.io/signals", Some("active-requests=25"))]).await;
    chat.has_replicas(2).await;
}

#[tokio::test]
async fn counts_serving_groups_instead_of_pods() {
    let Some(chain) = chain().await else { return };
    // Each ServingGroup has two instances of its role, each with an entry pod and two workers.
    let chat = chain.model_with("many-pods", |builder| builder.pods(2, 2)).await;
    chat.serves(chain).await;
    let load = chain.load(&chat);
    load.hold(27);
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
    let pods = chat.serving.namespace.api(&harness::kinds::pod());
    let count =
        async |selector: &str| pods.list(&ListParams::default().labels(selector)).await.unwrap().items.len();
    assert_eq!(count("modelserving.volcano.sh/name=chat").await, 18);
    let selector = chat.serving.get().await.data["status"]["labelSelector"].as_str().unwrap().to_owned();
    assert_eq!(count(&selector).await, 3, "the selector matches one pod per ServingGroup");
}

#[tokio::test]
async fn the_load_of_one_model_does_not_scale_another() {
    let Some(chain) = chain().await else { return };
    let (busy, idle) = (chain.model("busy").await, chain.model("idle").await);
    busy.serves(chain).await;
    idle.serves(chain).await;
    let load = chain.load(&busy);
    load.hold(27);
    let waited = tokio::join!(busy.has_replicas(3), idle.keeps_replicas(1, Duration::from_secs(8)));
    assert_eq!(waited, ((), ()));
}

#[tokio::test]
async fn adds_up_the_load_of_several_model_names() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("base,an-adapter").await;
    let loads = ["base", "an-adapter"].map(|name| chain.load_named(name));
    for load in &loads {
        load.hold(14);
    }
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
}
