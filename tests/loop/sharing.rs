//! Several names for one model, and several ModelServings for one name.

use std::time::Duration;

use harness::{Model, Namespace};
use serde_json::json;

use super::shared::{SETTLED, chain};

/// A ModelServing with a ModelServer of its own.
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

#[tokio::test]
async fn two_that_share_a_name_are_each_scaled_for_their_own_part() {
    let Some(chain) = chain().await else { return };
    let models = chain.stack.namespace().await;
    let stable = serving(&models, "stable", "shared", chain.engine.port).await;
    let canary = serving(&models, "canary", "shared", chain.engine.port).await;
    models.model_route("shared", "shared", &[("stable", 50), ("canary", 50)]).await;
    for serving in [&stable, &canary] {
        let asks = |found: &kube::api::DynamicObject| {
            found.data["spec"]["triggers"][0]["metadata"]["query"].to_string().contains("upstream")
        };
        serving.scaled_object_until("asks for its part", asks).await;
    }
    let load = chain.load_named("shared");
    // About 80 for each of them, which is 2; of all of it each would make 3.
    load.hold(160);
    tokio::join!(wants(&stable, 2), wants(&canary, 2));
    tokio::time::sleep(SETTLED).await;
    tokio::join!(wants(&stable, 2), wants(&canary, 2));

    // The canary gets nothing any more, and the other all of it.
    models.reroute("shared", &[("stable", 100), ("canary", 0)]).await;
    canary.reason("SharedModelName").await;
    wants(&stable, 3).await;
    load.hold(0);
    wants(&stable, 1).await;
}

#[tokio::test]
async fn an_adapters_load_is_the_models() {
    let Some(chain) = chain().await else { return };
    let chat: Model = chain.model("with-adapter").await;
    chat.serving.namespace.edit_model_route("chat-0", json!({"loraAdapters": ["an-adapter-of-it"]})).await;
    chat.serving
        .scaled_object_until("asks for the adapter", |found| {
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
