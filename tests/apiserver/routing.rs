//! Which demand is a model's own, by ModelRoutes and ModelServers.

use harness::{Crds, ModelServing, Settings, Stack, kinds};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::json;

use super::shared::{BINARY, namespace};

fn query(scaled_object: &DynamicObject) -> &str {
    scaled_object.data["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap()
}

async fn asks_for(chat: &ModelServing, part: &str) -> DynamicObject {
    chat.scaled_object_until(&format!("asks for {part}"), |found| query(found).contains(part)).await
}

#[tokio::test]
async fn adapters_of_its_routes_are_demand_for_it() {
    let models = namespace().await;
    let name = models.model_name();
    models.model_server("chat", "chat", 8000).await;
    let chat = models.model_serving("chat").opted_in(&name).create().await;
    asks_for(&chat, &format!("model=\"{name}\"")).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql", "poems"]})).await;
    let escaped = name.replace('.', "\\\\.");
    asks_for(&chat, &format!("model=~\"{escaped}|poems|sql\"")).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql"]})).await;
    asks_for(&chat, &format!("model=~\"{escaped}|sql\"")).await;
    models.delete_model_route("chat").await;
    asks_for(&chat, &format!("model=\"{name}\"")).await;
}

#[tokio::test]
async fn a_canary_is_scaled_for_its_own_part() {
    let models = namespace().await;
    let name = models.model_name();
    for serving in ["stable", "canary"] {
        models.model_server(&format!("{serving}-server"), serving, 8000).await;
    }
    models.model_route("llama", &name, &[("stable-server", 90), ("canary-server", 10)]).await;
    let stable = models.model_serving("stable").opted_in(&name).create().await;
    let canary = models.model_serving("canary").opted_in(&name).create().await;
    for (serving, server) in [(&stable, "stable-server"), (&canary, "canary-server")] {
        let part =
            format!(r#"kthena_router_active_upstream_requests{{model_server="{}/{server}""#, models.name);
        asks_for(serving, &part).await;
    }
    // At zero nothing would tell whose turn it is.
    canary.annotate(&[("autoscaling.kthena.io/min-replicas", Some("0"))]).await;
    let message = canary.reason("CannotWakeFromZero").await;
    assert!(
        message.contains("a request for it at zero") && message.contains("keeps its last valid settings"),
        "{message}"
    );
    canary.annotate(&[("autoscaling.kthena.io/min-replicas", None)]).await;
    canary.reason("Pending").await;
    // Other signals of the router are not counted by ModelServer.
    canary.annotate(&[("autoscaling.kthena.io/signals", Some("request-rate=2"))]).await;
    let message = canary.reason("SharedModelName").await;
    assert!(message.contains("request-rate") && message.contains("active-requests"), "{message}");
    canary.annotate(&[("autoscaling.kthena.io/signals", None)]).await;
    canary.reason("Pending").await;

    // The canary gets nothing any more: all of the demand is the other's.
    models.reroute("llama", &[("stable-server", 100), ("canary-server", 0)]).await;
    asks_for(&stable, &format!("model=\"{name}\"")).await;
    let message = canary.reason("SharedModelName").await;
    assert!(message.contains(&format!("{}/stable", models.name)), "{message}");
    // Behind a connector for prefill and decode a request counts up to twice.
    let groups = json!({"groupKey": "modelserving.volcano.sh/group-name", "prefillLabels": {"modelserving.volcano.sh/role": "prefill"}, "decodeLabels": {"modelserving.volcano.sh/role": "decode"}});
    models.edit_model_server("stable-server", json!({"workloadSelector": {"pdGroup": groups}})).await;
    models.reroute("llama", &[("stable-server", 50), ("canary-server", 50)]).await;
    let found = asks_for(&stable, "active_upstream_requests").await;
    assert_eq!(found.data["spec"]["triggers"][0]["metadata"]["threshold"], "20");
    let found = asks_for(&canary, "canary-server").await;
    assert_eq!(found.data["spec"]["triggers"][0]["metadata"]["threshold"], "10");
}

#[tokio::test]
async fn a_name_that_two_claim_and_nobody_routes_is_refused_for_both() {
    let models = namespace().await;
    let name = models.model_name();
    let first = models.model_serving("first").opted_in(&name).create().await;
    let before = first.scaled_object().await;
    let second = models.model_serving("second").opted_in(&format!("{name},other")).create().await;
    for (chat, other) in [(&first, "second"), (&second, "first")] {
        let message = chat.reason("SharedModelName").await;
        assert!(message.contains(&format!("{}/{other}", models.name)), "{message}");
    }
    // The older one's stays, and the younger one gets none.
    assert_eq!(first.scaled_object().await.resource_version(), before.resource_version());
    assert!(second.scaled_objects().get_opt("second").await.unwrap().is_none());
    // It is over when one of them takes another name, or goes.
    second.annotate(&[("kthena.io/model-name", Some(&format!("another.{}", models.name)))]).await;
    first.reason("Pending").await;
    second.scaled_object().await;
    second.annotate(&[("kthena.io/model-name", Some(&name))]).await;
    first.reason("SharedModelName").await;
    second.delete().await;
    first.reason("Pending").await;
}

#[tokio::test]
async fn one_model_server_for_two_is_refused() {
    let models = namespace().await;
    let name = models.model_name();
    let server = |labels| json!({"metadata": {"name": "both"}, "spec": {"workloadSelector": {"matchLabels": labels}, "inferenceEngine": "vLLM"}});
    models.create(&kinds::model_server(), server(json!({"app": "llama"}))).await;
    models.model_route("llama", &name, &[("both", 100)]).await;
    let first = models.model_serving("first").labelled("app", "llama").opted_in(&name).create().await;
    first.scaled_object().await;
    // The second did not even opt in; its pods serve all the same.
    let second = models.model_serving("second").labelled("app", "llama").create().await;
    let message = first.reason("SharedModelName").await;
    assert!(
        message.contains(&format!("{}/both", models.name))
            && message.contains(&format!("{}/second", models.name)),
        "{message}"
    );
    second.delete().await;
    first.reason("Pending").await;
}

#[tokio::test]
async fn the_same_name_in_two_namespaces() {
    let (here, there) = (namespace().await, namespace().await);
    let name = here.model_name();
    let mut all = Vec::new();
    for models in [&here, &there] {
        models.model_server("chat", "chat", 8000).await;
        models.model_route("chat", &name, &[("chat", 100)]).await;
        all.push(models.model_serving("chat").opted_in(&name).create().await);
    }
    for chat in &all {
        asks_for(chat, &format!(r#"model_server="{}/chat""#, chat.namespace.name)).await;
    }
    there.delete_model_route("chat").await;
    asks_for(&all[0], &format!("model=\"{name}\"")).await;
    let message = all[1].reason("SharedModelName").await;
    assert!(message.contains(&format!("{}/chat", here.name)), "{message}");
}

#[tokio::test]
async fn kthenas_networking_may_be_absent_and_come_late() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    let name = models.model_name();
    asks_for(&chat, &format!("model=\"{name}\"")).await;
    Crds::kthena().install(&models.client).await;
    models.model_server("chat", "chat", 8000).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql"]})).await;
    asks_for(&chat, "|sql\"").await;
    let refused: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(refused.is_empty(), "{:?}", harness::audit::summary(&refused));
}
