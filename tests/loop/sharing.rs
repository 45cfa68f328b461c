//! Several model names for one ModelServing, and several ModelServings for one model name.

use std::time::Duration;

use engine::{Engine, EngineSettings, Load};
use harness::{Namespace, wait::until_asked};
use serde_json::json;

use super::shared::{SETTLED, chain};

/// A ModelServing with its own ModelServer.
async fn serving(models: &Namespace, name: &str, model: &str, port: u16) -> harness::ModelServing {
    models.model_server(name, name, port).await;
    let signals = "active-requests=55";
    models
        .model_serving(name)
        .scheduled()
        .opted_in(model)
        .annotated("autoscaling.kthena.io/signals", signals)
        .create()
        .await
}

async fn wants(serving: &harness::ModelServing, replicas: i64) {
    serving
        .until(&format!("wants {replicas} ServingGroups"), |found| found.data["spec"]["replicas"] == replicas)
        .await;
}

/// Waits until the router knows the pods of every destination: requests for one without pods fail.
///
/// Long requests that begin earlier all stay with the first destination that has pods.
async fn serves_all(load: &Load) {
    load.hold(8);
    until_asked(
        "the router serves 40 requests without a failure between two looks",
        async || {
            let before = load.counts();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = load.counts();
            (after.served - before.served, after.failed - before.failed)
        },
        |(served, failed)| *served >= 40 && *failed == 0,
    )
    .await;
    load.hold(0);
}

#[tokio::test]
async fn scales_two_models_of_one_name_for_their_own_shares() {
    let Some(chain) = chain().await else { return };
    let models = chain.stack.namespace().await;
    let stable = serving(&models, "stable", "shared", chain.engine.port).await;
    let canary = serving(&models, "canary", "shared", chain.engine.port).await;
    models.model_route("shared", "shared", &[("stable", 50), ("canary", 50)]).await;
    for serving in [&stable, &canary] {
        let has_share = |found: &kube::api::DynamicObject| {
            found.data["spec"]["triggers"][0]["metadata"]["query"].to_string().contains("upstream")
        };
        serving.scaled_object_until("queries its share", has_share).await;
    }
    serves_all(&chain.load_of("shared", 1)).await;
    let load = chain.load_named("shared");
    // Each gets about 82 requests, which need 2 ServingGroups; the total of 164 would need 3.
    load.hold(164);
    tokio::join!(wants(&stable, 2), wants(&canary, 2));
    tokio::time::sleep(SETTLED).await;
    tokio::join!(wants(&stable, 2), wants(&canary, 2));

    // The canary gets no more requests, and the stable model gets all. Requests that are in flight would stay where they are.
    load.hold(0);
    models.reroute("shared", &[("stable", 100), ("canary", 0)]).await;
    tokio::join!(wants(&stable, 1), wants(&canary, 1));
    load.hold(164);
    wants(&stable, 3).await;
    wants(&canary, 1).await;
}

#[tokio::test]
async fn counts_the_load_of_an_adapter_for_its_model() {
    let Some(chain) = chain().await else { return };
    let adapters = ["an-adapter-of-it".to_owned()];
    let engine = Engine::start(EngineSettings {
        adapters: adapters.to_vec(),
        concurrency: 100,
        ..EngineSettings::default()
    });
    let chat = chain.model_on(&engine, "with-adapter", |builder| builder).await;
    chat.serving.namespace.edit_model_route("chat-0", json!({"loraAdapters": adapters})).await;
    chat.serving
        .scaled_object_until("queries the adapter", |found| {
            found.data["spec"]["triggers"][0]["metadata"]["query"].to_string().contains("an-adapter-of-it")
        })
        .await;
    chat.serves(chain).await;
    let loads = ["with-adapter", "an-adapter-of-it"].map(|name| chain.load_named(name));
    for load in &loads {
        load.hold(14);
    }
    chat.has_replicas(3).await;
    chat.keeps_replicas(3, Duration::from_secs(5)).await;
}
