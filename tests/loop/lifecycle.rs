//! User actions on a model that is being scaled.

use harness::{Model, stack::resource, wait};
use kube::api::DeleteParams;
use serde_json::json;

use super::shared::{SETTLED, chain};

/// A model that load has scaled to three ServingGroups.
async fn scaled_out(name: &str) -> Option<(Model, engine::Load)> {
    let chain = chain().await?;
    let chat = chain.model(name).await;
    chat.serves(chain).await;
    let load = chain.load(&chat);
    load.hold(27);
    chat.has_replicas(3).await;
    Some((chat, load))
}

async fn hpa_gone(chat: &Model) {
    wait::until(&chat.hpas(), "keda-hpa-chat", "is gone", |found| found.is_none()).await;
}

#[tokio::test]
async fn opting_out_keeps_the_replicas() {
    let Some((chat, load)) = scaled_out("opts-out").await else { return };
    chat.serving.annotate(&[("kthena.io/model-name", None)]).await;
    chat.serving.scaled_object_gone().await;
    hpa_gone(&chat).await;
    load.hold(0);
    chat.keeps_replicas(3, SETTLED).await;
}

#[tokio::test]
async fn deleting_a_model_deletes_its_scaled_object_and_hpa() {
    let Some((chat, _load)) = scaled_out("goes").await else { return };
    chat.serving.delete().await;
    chat.serving.scaled_object_gone().await;
    hpa_gone(&chat).await;
}

#[tokio::test]
async fn a_pause_stops_scaling_in_both_directions() {
    let Some((chat, load)) = scaled_out("paused").await else { return };
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    hpa_gone(&chat).await;
    load.hold(0);
    chat.keeps_replicas(3, SETTLED).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    chat.has_replicas(1).await;
}

#[tokio::test]
async fn a_partial_pause_stops_scaling_in_one_direction() {
    let Some((chat, load)) = scaled_out("half-paused").await else { return };
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", Some("scale-in"))]).await;
    hpa_disables(&chat, "scaleDown").await;
    load.hold(47);
    chat.has_replicas(5).await;
    load.hold(17);
    chat.keeps_replicas(5, SETTLED).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", Some("scale-out"))]).await;
    chat.has_replicas(2).await;
    hpa_disables(&chat, "scaleUp").await;
    load.hold(47);
    chat.keeps_replicas(2, SETTLED).await;
}

async fn hpa_disables(chat: &Model, direction: &str) {
    let pointer = format!("/spec/behavior/{direction}/selectPolicy");
    let disabled = |found: Option<&kube::api::DynamicObject>| {
        found.is_some_and(|found| found.data.pointer(&pointer) == Some(&json!("Disabled")))
    };
    wait::until(&chat.hpas(), "keda-hpa-chat", &format!("disables {direction}"), disabled).await;
}

#[tokio::test]
async fn yields_to_a_users_hpa_until_it_is_deleted() {
    let Some(chain) = chain().await else { return };
    let namespace = chain.stack.namespace().await;
    let target =
        json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
    let metric = json!({"type": "External", "external": {"metric": {"name": "theirs"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    let spec = json!({"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2, "metrics": [metric]});
    let hpa = resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    let foreign = namespace.create(&hpa, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    let chat = namespace.model_serving("chat").scheduled().opted_in("their-own").create().await;
    // KEDA's webhook would reject the operator's ScaledObject beside the HPA; the operator does not send it.
    chat.says("ConflictingAutoscaler", &format!("HorizontalPodAutoscaler {}/theirs", namespace.name)).await;
    let log = chain.operator.as_ref().map(harness::Process::log).unwrap_or_default();
    assert!(!log.contains("already managed by the hpa"), "{log}");
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
    let now = namespace.api(&hpa).get("theirs").await.unwrap();
    assert_eq!(now.data["spec"], foreign.data["spec"]);
    namespace.api(&hpa).delete("theirs", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    wait::until(&namespace.api(&hpa), "keda-hpa-chat", "exists", |found| found.is_some()).await;
}
