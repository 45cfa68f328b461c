//! Engine signals: the PodMonitor of each model that uses them, and their queries.

use harness::{Crds, ModelServing, Settings, Stack, kinds, wait};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::shared::{BINARY, namespace};

const SIGNALS: &str = "autoscaling.kthena.io/signals";
const ENGINE: &str = "autoscaling.kthena.io/engine";
const MONITOR: &str = "kthena-keda-chat";

async fn with_signals(signals: &str) -> ModelServing {
    namespace()
        .await
        .model_serving("chat")
        .opts_in()
        .annotated(SIGNALS, signals)
        .annotated(ENGINE, "vllm")
        .create()
        .await
}

fn monitors(chat: &ModelServing) -> Api<DynamicObject> {
    chat.namespace.api(&kinds::pod_monitor())
}

async fn monitor_until(
    chat: &ModelServing,
    what: &str,
    done: impl Fn(&DynamicObject) -> bool,
) -> DynamicObject {
    wait::until(&monitors(chat), MONITOR, what, |found| found.is_some_and(&done)).await.unwrap()
}

async fn monitor_gone(chat: &ModelServing) {
    wait::until(&monitors(chat), MONITOR, "is gone", |found| found.is_none()).await;
}

fn endpoint(monitor: &DynamicObject) -> &Value {
    &monitor.data["spec"]["podMetricsEndpoints"][0]
}

/// The port in the relabeled address of every target.
fn port(monitor: &DynamicObject) -> Option<&str> {
    endpoint(monitor)["relabelings"]
        .as_array()?
        .iter()
        .find_map(|step| step["replacement"].as_str()?.strip_prefix("$1:"))
}

fn queries(scaled_object: &DynamicObject) -> Vec<&str> {
    let triggers = scaled_object.data["spec"]["triggers"].as_array().unwrap();
    triggers.iter().map(|trigger| trigger["metadata"]["query"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_engine_signal_creates_a_pod_monitor() {
    let chat = with_signals("active-requests=10,engine-queue=4,kv-cache=0.7").await;
    let monitor = monitor_until(&chat, "exists", |_| true).await;
    let owner = &monitor.owner_references()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
        (chat.get().await.uid().unwrap().as_str(), Some(true), Some(false))
    );
    let labels = json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": "true"});
    assert_eq!(monitor.data["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(port(&monitor), Some("8000"));
    for field in ["port", "portNumber", "targetPort"] {
        assert_eq!(endpoint(&monitor).get(field), None, "{field} selects declared ports only");
    }
    let found = chat.scaled_object().await;
    let triggers = found.data["spec"]["triggers"].as_array().unwrap();
    let named: Vec<_> = triggers
        .iter()
        .map(|trigger| {
            (trigger["name"].as_str().unwrap(), trigger["metadata"]["threshold"].as_str().unwrap())
        })
        .collect();
    assert_eq!(named, [("active-requests", "10"), ("engine-queue", "4"), ("kv-cache", "0.7")]);
    let scope = format!(r#"namespace="{}",modelserving_volcano_sh_name="chat""#, chat.namespace.name);
    assert!(
        queries(&found).iter().skip(1).all(|query| query.contains("vllm:") && query.contains(&scope)),
        "{:?}",
        queries(&found)
    );

    // The operator restores an edited or deleted PodMonitor, and keeps labels of other writers.
    let patch = json!({"metadata": {"labels": {"theirs": "x"}}, "spec": {"podTargetLabels": []}});
    monitors(&chat).patch(MONITOR, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    monitor_until(&chat, "has its labels again", |found| {
        found.data["spec"]["podTargetLabels"].as_array().is_some_and(|all| all.len() == 2)
            && found.labels()["theirs"] == "x"
    })
    .await;
    monitors(&chat).delete(MONITOR, &DeleteParams::default()).await.unwrap();
    monitor_until(&chat, "is a new one", |found| found.uid() != monitor.uid()).await;

    // The PodMonitor exists as long as a signal needs it.
    chat.annotate(&[(SIGNALS, Some("active-requests=10"))]).await;
    monitor_gone(&chat).await;
    chat.annotate(&[(SIGNALS, Some("engine-running=16"))]).await;
    monitor_until(&chat, "exists again", |_| true).await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    monitor_gone(&chat).await;
    chat.scaled_object_gone().await;
}

#[tokio::test]
async fn follows_engine_and_port_of_the_model_server() {
    let models = namespace().await;
    let chat = models.model_serving("chat").opts_in().annotated(SIGNALS, "engine-queue=4").create().await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(
        message.contains("autoscaling.kthena.io/engine: missing, and no ModelServer selects"),
        "{message}"
    );
    models.model_server("chat", "chat", 8080).await;
    monitor_until(&chat, "scrapes port 8080", |found| port(found) == Some("8080")).await;
    chat.scaled_object_until("queries vLLM", |found| queries(found)[0].contains("vllm:num_requests_waiting"))
        .await;
    models
        .edit_model_server("chat", json!({"inferenceEngine": "SGLang", "workloadPort": {"port": 9000}}))
        .await;
    monitor_until(&chat, "scrapes port 9000", |found| port(found) == Some("9000")).await;
    chat.scaled_object_until("queries SGLang", |found| queries(found)[0].contains("sglang:num_queue_reqs"))
        .await;
    models.edit_model_server("chat", json!({"workloadPort": null})).await;
    monitor_until(&chat, "scrapes the default port", |found| port(found) == Some("30000")).await;
    // Annotations override the ModelServer.
    chat.annotate(&[(ENGINE, Some("vllm")), ("autoscaling.kthena.io/engine-port", Some("7000"))]).await;
    monitor_until(&chat, "scrapes port 7000", |found| port(found) == Some("7000")).await;
    chat.scaled_object_until("queries vLLM", |found| queries(found)[0].contains("vllm:num_requests_waiting"))
        .await;
}

/// The operator owns the whole spec of its PodMonitor.
#[tokio::test]
async fn removes_fields_that_another_client_adds_to_a_pod_monitor() {
    let chat = with_signals("engine-queue=5").await;
    let before = monitor_until(&chat, "exists", |_| true).await.data["spec"].clone();
    let endpoint = json!({"port": "other", "metricRelabelings": [{"action": "drop", "regex": "vllm.*"}]});
    let spec =
        json!({"jobLabel": "app", "attachMetadata": {"node": true}, "podMetricsEndpoints": [endpoint]});
    let patch = Patch::Merge(json!({"spec": spec}));
    monitors(&chat).patch(MONITOR, &PatchParams::default(), &patch).await.unwrap();
    monitor_until(&chat, "has the spec of the operator", |found| found.data["spec"] == before).await;
}

#[tokio::test]
async fn never_changes_a_foreign_pod_monitor() {
    let models = namespace().await;
    let endpoints = json!([{"port": "http"}]);
    let foreign =
        json!({"metadata": {"name": MONITOR}, "spec": {"selector": {}, "podMetricsEndpoints": endpoints}});
    let foreign = models.create(&kinds::pod_monitor(), foreign).await;
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated(SIGNALS, "kv-cache=1")
        .annotated(ENGINE, "vllm")
        .create()
        .await;
    let message = chat.reason("NameConflict").await;
    assert!(message.contains("PodMonitor kthena-keda-chat"), "{message}");
    // Without an engine signal there is no conflict, and the foreign PodMonitor still stays.
    chat.annotate(&[(SIGNALS, None)]).await;
    chat.scaled_object().await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    chat.scaled_object_gone().await;
    let now = monitors(&chat).get(MONITOR).await.unwrap();
    assert_eq!((now.uid(), now.resource_version()), (foreign.uid(), foreign.resource_version()));
    monitors(&chat).delete(MONITOR, &DeleteParams::default()).await.unwrap();
    chat.annotate(&[
        ("kthena.io/model-name", Some(&chat.namespace.model_name())),
        (SIGNALS, Some("kv-cache=1")),
    ])
    .await;
    monitor_until(&chat, "exists", |_| true).await;
}

#[tokio::test]
async fn applies_the_monitor_settings_of_the_profile() {
    let chat = with_signals("engine-queue=4").await;
    let name = format!("engines-{}", chat.namespace.name);
    let profiles: Api<DynamicObject> = Api::all_with(chat.namespace.client.clone(), &kinds::profile());
    let spec = json!({"signals": [{"name": "engine-running", "target": "20"}], "monitors": {"create": "always", "labels": {"release": "kps"}, "interval": "7s"}});
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": name}, "spec": spec});
    profiles.create(&PostParams::default(), &serde_json::from_value(profile).unwrap()).await.unwrap();
    chat.annotate(&[("autoscaling.kthena.io/profile", Some(&name)), (SIGNALS, None)]).await;
    monitor_until(&chat, "has the profile's label and interval", |found| {
        found.labels().get("release").is_some_and(|label| label == "kps")
            && endpoint(found)["interval"] == "7s"
    })
    .await;
    let never = json!({"spec": {"monitors": {"create": false}}});
    profiles.patch(&name, &PatchParams::default(), &Patch::Merge(never)).await.unwrap();
    monitor_gone(&chat).await;
    chat.scaled_object_until("queries vLLM", |found| queries(found)[0].contains("vllm:num_requests_running"))
        .await;
}

#[tokio::test]
async fn creates_pod_monitors_once_the_prometheus_operator_is_installed() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated(SIGNALS, "kv-cache=1")
        .annotated(ENGINE, "vllm")
        .create()
        .await;
    chat.scaled_object().await;
    let message = chat.reason("Pending").await;
    assert!(message.contains("install the Prometheus Operator"), "{message}");
    Crds::prometheus_operator().install(&models.client).await;
    monitor_until(&chat, "exists", |_| true).await;
    chat.until("no longer reports the missing CRD", |found| {
        harness::condition(found)
            .is_some_and(|condition| !condition["message"].as_str().unwrap().contains("Prometheus Operator"))
    })
    .await;

    // A restart writes nothing.
    assert!(operator.terminate());
    let before = stack.writes().len();
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let sentinel = models
        .model_serving("sentinel")
        .annotated("autoscaling.kthena.io/profile", "none")
        .opted_in("sentinel")
        .create()
        .await;
    sentinel.reason("ProfileNotFound").await;
    let writes = stack.writes().split_off(before);
    assert!(
        writes.iter().all(|write| write.object_ref.name == "sentinel"),
        "{:?}",
        harness::audit::summary(&writes)
    );
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}
