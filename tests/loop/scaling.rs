//! Up and down with the load, by KEDA's and the HPA's own doing.

use std::time::Duration;

use kube::api::ListParams;

use super::shared::{SETTLED, chain};

#[tokio::test]
async fn out_with_the_load_to_what_it_needs_and_in_again() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("out-and-in").await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load(&chat);
    // 10 requests a ServingGroup: 37 need four.
    load.hold(37);
    chat.has_replicas(4).await;
    chat.keeps_replicas(4, SETTLED).await;
    load.hold(17);
    chat.has_replicas(2).await;
    load.hold(0);
    chat.has_replicas(1).await;
    let counts = load.counts();
    assert_eq!(counts.failed, 0, "scaling costs no request that a client did not drop itself: {counts:?}");
}

#[tokio::test]
async fn never_below_the_minimum_or_above_the_maximum() {
    let Some(chain) = chain().await else { return };
    let bounds = [("autoscaling.kthena.io/min-replicas", "2"), ("autoscaling.kthena.io/max-replicas", "3")];
    let annotated = |builder| {
        bounds.iter().fold(builder, |builder: harness::ModelServingBuilder, (key, value)| {
            builder.annotated(key, value)
        })
    };
    let chat = chain.model_with("bounded", annotated).await;
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
async fn the_total_over_the_target_rounded_up_unless_within_tolerance() {
    let Some(chain) = chain().await else { return };
    let signals = |builder: harness::ModelServingBuilder| {
        builder.annotated("autoscaling.kthena.io/signals", "active-requests=7")
    };
    let chat = chain.model_with("arithmetic", signals).await;
    chat.serves(chain).await;
    let load = chain.load(&chat);
    load.hold(39);
    chat.has_replicas(6).await;
    // 44 over 6 × 7 is 1.05: within the HPA's tenth, so nothing moves although 7 would be the quotient rounded up.
    load.hold(44);
    chat.keeps_replicas(6, SETTLED).await;
    load.hold(48);
    chat.has_replicas(7).await;
    // The target is a ServingGroup's, whatever there is: a new one changes the need at once.
    chat.serving.annotate(&[("autoscaling.kthena.io/signals", Some("active-requests=25"))]).await;
    chat.has_replicas(2).await;
}

#[tokio::test]
async fn serving_groups_are_counted_and_never_pods() {
    let Some(chain) = chain().await else { return };
    // Each ServingGroup is two instances of its role, each an entry pod and two workers.
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
    assert_eq!(count(&selector).await, 3, "the HPA sees one pod for each ServingGroup");
}

#[tokio::test]
async fn one_models_load_is_not_anothers() {
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
async fn several_names_of_one_model_are_added_up() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("base,an-adapter").await;
    let loads = ["base", "an-adapter"].map(|name| chain.load_named(name));
    for load in &loads {
        load.hold(14);
    }
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, SETTLED).await;
}
