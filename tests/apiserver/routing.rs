//! Demand of each model, derived from ModelRoutes and ModelServers.

use std::{path::Path, time::Duration};

use harness::{Crds, Identity, ModelServing, Settings, Stack, kinds};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::json;

use super::shared::{BINARY, namespace, stack};

fn query(scaled_object: &DynamicObject) -> &str {
    scaled_object.data["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap()
}

async fn queries(chat: &ModelServing, part: &str) -> DynamicObject {
    chat.scaled_object_until(&format!("queries {part}"), |found| query(found).contains(part)).await
}

#[tokio::test]
async fn counts_adapters_of_its_routes_as_demand() {
    let models = namespace().await;
    let name = models.model_name();
    models.model_server("chat", "chat", 8000).await;
    let chat = models.model_serving("chat").opted_in(&name).create().await;
    queries(&chat, &format!("model=\"{name}\"")).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql", "poems"]})).await;
    let escaped = name.replace('.', "\\\\.");
    queries(&chat, &format!("model=~\"{escaped}|poems|sql\"")).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql"]})).await;
    queries(&chat, &format!("model=~\"{escaped}|sql\"")).await;
    models.delete_model_route("chat").await;
    queries(&chat, &format!("model=\"{name}\"")).await;
}

/// Texts of other controllers are throttled, and those that follow from an annotation or a route are not.
#[tokio::test]
async fn reports_a_corrected_name_and_a_new_route_at_once() {
    let models = namespace().await;
    let chat = models.model_serving("chat").opted_in("lama").create().await;
    chat.says("Pending", "ModelNotSeen: no ModelRoute").await;
    let name = models.model_name();
    chat.annotate(&[("kthena.io/model-name", Some(&name))]).await;
    let message = chat.says("Pending", &name).await;
    assert!(!message.contains("lama\""), "{message}");
    models.model_server("chat", "chat", 8000).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    chat.until("has no missing route", |found| {
        harness::condition(found).is_some_and(|condition| !condition.to_string().contains("ModelNotSeen"))
    })
    .await;
}

#[tokio::test]
async fn scales_a_canary_for_its_own_share() {
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
        queries(serving, &part).await;
    }
    // At zero no series shows which of the two models should wake.
    canary.annotate(&[("autoscaling.kthena.io/min-replicas", Some("0"))]).await;
    let message = canary.reason("CannotWakeFromZero").await;
    assert!(
        message.contains("a request at zero") && message.contains("keeps its last valid settings"),
        "{message}"
    );
    canary.annotate(&[("autoscaling.kthena.io/min-replicas", None)]).await;
    canary.reason("Pending").await;
    // The router counts only active requests per ModelServer.
    canary.annotate(&[("autoscaling.kthena.io/signals", Some("request-rate=2"))]).await;
    let message = canary.reason("SharedModelName").await;
    assert!(message.contains("request-rate") && message.contains("active-requests"), "{message}");
    canary.annotate(&[("autoscaling.kthena.io/signals", None)]).await;
    canary.reason("Pending").await;

    // A destination of weight 0 follows its own part, and the other one can be at zero: all requests are for it.
    models.reroute("llama", &[("stable-server", 100), ("canary-server", 0)]).await;
    stable.annotate(&[("autoscaling.kthena.io/min-replicas", Some("0"))]).await;
    queries(&stable, "stable-server").await;
    stable
        .scaled_object_until("wakes", |found| found.data["spec"]["triggers"][1]["name"] == "activation")
        .await;
    stable.annotate(&[("autoscaling.kthena.io/min-replicas", None)]).await;
    queries(&canary, "canary-server").await;
    // Behind a ModelServer with a prefill/decode group, a request counts up to twice.
    let groups = json!({"groupKey": "modelserving.volcano.sh/group-name", "prefillLabels": {"modelserving.volcano.sh/role": "prefill"}, "decodeLabels": {"modelserving.volcano.sh/role": "decode"}});
    models.edit_model_server("stable-server", json!({"workloadSelector": {"pdGroup": groups}})).await;
    models.reroute("llama", &[("stable-server", 50), ("canary-server", 50)]).await;
    stable
        .scaled_object_until("has a doubled target", |found| {
            found.data["spec"]["triggers"][0]["metadata"]["threshold"] == "20"
        })
        .await;
    let found = queries(&canary, "canary-server").await;
    assert_eq!(found.data["spec"]["triggers"][0]["metadata"]["threshold"], "10");
}

#[tokio::test]
async fn rejects_a_model_name_that_two_models_share_without_a_route() {
    let models = namespace().await;
    let name = models.model_name();
    let first = models.model_serving("first").opted_in(&name).create().await;
    let before = first.scaled_object().await;
    let second = models.model_serving("second").opted_in(&format!("{name},other")).create().await;
    for (chat, other) in [(&first, "second"), (&second, "first")] {
        let message = chat.reason("SharedModelName").await;
        assert!(message.contains(&format!("{}/{other}", models.name)), "{message}");
    }
    // The ScaledObject of the older model stays, and the younger model gets none.
    assert_eq!(first.scaled_object().await.resource_version(), before.resource_version());
    assert!(second.scaled_objects().get_opt("second").await.unwrap().is_none());
    // The conflict ends when one of the models is renamed or deleted.
    second.annotate(&[("kthena.io/model-name", Some(&format!("another.{}", models.name)))]).await;
    first.reason("Pending").await;
    second.scaled_object().await;
    second.annotate(&[("kthena.io/model-name", Some(&name))]).await;
    first.reason("SharedModelName").await;
    second.delete().await;
    first.reason("Pending").await;
}

#[tokio::test]
async fn rejects_a_model_server_that_selects_two_models() {
    let models = namespace().await;
    let name = models.model_name();
    let server = |labels| json!({"metadata": {"name": "both"}, "spec": {"workloadSelector": {"matchLabels": labels}, "inferenceEngine": "vLLM"}});
    models.create(&kinds::model_server(), server(json!({"app": "llama"}))).await;
    models.model_route("llama", &name, &[("both", 100)]).await;
    let first = models.model_serving("first").labelled("app", "llama").opted_in(&name).create().await;
    first.scaled_object().await;
    // The second model is not opted in, but its pods serve the requests, too.
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
async fn follows_the_oldest_route_of_a_name_in_two_namespaces() {
    let (here, there) = (namespace().await, namespace().await);
    let name = here.model_name();
    let mut all = Vec::new();
    for models in [&here, &there] {
        models.model_server("chat", "chat", 8000).await;
        models.model_route("chat", &name, &[("chat", 100)]).await;
        // The router orders routes by their creation, which has a resolution of one second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        all.push(models.model_serving("chat").opted_in(&name).create().await);
    }
    // The younger route gets no requests, and has no effect on the other model.
    queries(&all[0], &format!("model=\"{name}\"")).await;
    queries(&all[1], &format!(r#"model_server="{}/chat""#, there.name)).await;
    here.delete_model_route("chat").await;
    queries(&all[1], &format!("model=\"{name}\"")).await;
    // A claim of another namespace does not stop a model that has a ScaledObject.
    let shared = format!("the model name is also used in another namespace by {}/chat", there.name);
    all[0].says("Pending", &shared).await;
}

#[tokio::test]
async fn counts_names_that_only_routes_lead_to_it() {
    let (models, other) = (namespace().await, namespace().await);
    let name = models.model_name();
    models.model_server("chat", "chat", 8000).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    let chat = models.model_serving("chat").opted_in(&name).create().await;
    queries(&chat, &format!("model=\"{name}\"")).await;
    let alias = format!("zz-alias.{}", models.name);
    models.model_route("alias", &alias, &[("chat", 100)]).await;
    queries(&chat, "|zz-alias").await;
    // Another route that takes the alias over, and one that gives it back.
    models.delete_model_route("alias").await;
    other.model_server("chat", "chat", 8000).await;
    other.model_route("alias", &alias, &[("chat", 100)]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    models.model_route("alias", &alias, &[("chat", 100)]).await;
    queries(&chat, &format!("model=\"{name}\"")).await;
    other.delete_model_route("alias").await;
    queries(&chat, "|zz-alias").await;
    // A ModelServer that is corrected requeues the model that it selects now.
    models
        .edit_model_server(
            "chat",
            json!({"workloadSelector": {"matchLabels": {"modelserving.volcano.sh/name": "chta"}}}),
        )
        .await;
    queries(&chat, &format!("model=\"{name}\"")).await;
    models
        .edit_model_server(
            "chat",
            json!({"workloadSelector": {"matchLabels": {"modelserving.volcano.sh/name": "chat"}}}),
        )
        .await;
    queries(&chat, "|zz-alias").await;
}

#[tokio::test]
async fn detects_networking_crds_that_are_installed_late() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    let name = models.model_name();
    queries(&chat, &format!("model=\"{name}\"")).await;
    Crds::kthena().install(&models.client).await;
    models.model_server("chat", "chat", 8000).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    models.edit_model_route("chat", json!({"loraAdapters": ["sql"]})).await;
    queries(&chat, "|sql\"").await;
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}

#[tokio::test]
async fn lists_the_routes_of_each_name() {
    let stack = stack().await;
    let models = stack.namespace().await;
    let (name, alias) = (models.model_name(), format!("alias.{}", models.name));
    models.model_server("chat", "chat", 8000).await;
    models.model_route("chat", &name, &[("chat", 100)]).await;
    models.model_route("alias", &alias, &[("chat", 0), ("missing", 100)]).await;
    let chat = models.model_serving("chat").opted_in(&format!("{name},{alias}")).create().await;
    chat.scaled_object().await;
    let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
    let model = format!("{}/chat", models.name);
    let arguments = [model.as_str(), "--prometheus-url=http://prometheus:9090"];
    let (report, _) = harness::explain(Path::new(BINARY), &kubeconfig, &arguments);
    let routes = report.unwrap()["routes"].clone();
    let route = |model: &str, route: &str, server: &str, receiver: &str, usage: &str| {
        let (route, server) = (format!("{}/{route}", models.name), format!("{}/{server}", models.name));
        json!({"model": model, "modelRoute": route, "modelServer": server, "receiver": receiver, "usage": usage})
    };
    let expected = [
        route(&name, "chat", "chat", "pods of this model", "receives"),
        route(&alias, "alias", "missing", "which does not exist", "receives"),
        route(&alias, "alias", "chat", "pods of this model", "weight 0"),
    ];
    assert_eq!(routes, json!(expected));
}
