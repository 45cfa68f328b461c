//! User actions on a model that is being scaled.

use std::{process::Command, time::Duration};

use futures::future::join_all;
use harness::{Identity, Model, ModelServingBuilder, control_plane::binary, stack::resource, wait};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    shared::{SETTLED, chain, explain},
    signals::profile,
};

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

/// `true` if KEDA reports the condition `Paused` with this status.
fn reports_paused(found: &DynamicObject, status: &str) -> bool {
    let conditions = found.data["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Paused" && condition["status"] == status)
}

/// With a fallback in the paused ScaledObject, KEDA reports the pause of about every second model again at the first query
/// of the HPA: <https://github.com/kedacore/keda/issues/6421>.
#[tokio::test]
async fn keda_reports_the_end_of_a_pause_from_the_beginning() {
    let Some(chain) = chain().await else { return };
    let profile = profile(chain, "falls-back", &json!({"fallback": {"replicas": 2}})).await;
    let paused = |builder: ModelServingBuilder| {
        builder
            .annotated("autoscaling.kthena.io/profile", &profile)
            .annotated("autoscaling.kthena.io/paused", "true")
    };
    let names = (0..8).map(|i| format!("begins-paused-{i}"));
    let models = join_all(names.map(async |name| chain.model_with(&name, paused).await)).await;
    for chat in &models {
        let is_paused = |found: &DynamicObject| reports_paused(found, "True");
        chat.serving.scaled_object_until("is paused by KEDA", is_paused).await;
    }
    // Right after its creation, KEDA's copy of a ScaledObject is still being updated.
    tokio::time::sleep(SETTLED).await;
    for chat in &models {
        chat.serving.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    }
    for chat in &models {
        let has_queried = |hpa: Option<&DynamicObject>| {
            hpa.is_some_and(|hpa| !hpa.data["status"]["currentMetrics"].is_null())
        };
        wait::until(&chat.hpas(), "keda-hpa-chat", "has queried KEDA", has_queried).await;
        let found = chat.serving.scaled_object().await;
        assert_eq!(found.data["spec"]["fallback"]["replicas"], 2);
    }
    tokio::time::sleep(SETTLED).await;
    for chat in &models {
        let found = chat.serving.scaled_object().await;
        assert!(reports_paused(&found, "False"), "{}: {}", chat.name, found.data["status"]);
    }
}

/// Writes the condition by which KEDA reports a pause.
async fn set_paused(chat: &Model) {
    let mut conditions = chat.serving.scaled_object().await.data["status"]["conditions"].clone();
    for condition in conditions.as_array_mut().unwrap() {
        if condition["type"] == "Paused" {
            *condition = json!({"type": "Paused", "status": "True", "reason": "ScaledObjectPaused", "message": "ScaledObject is paused"});
        }
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    chat.serving.scaled_objects().patch_status("chat", &PatchParams::default(), &patch).await.unwrap();
}

/// KEDA may write an old condition back; the model is scaled, and the command in the warning clears the condition.
#[tokio::test]
async fn a_command_clears_a_pause_that_has_ended() {
    let Some(chain) = chain().await else { return };
    let Some((chat, load)) = scaled_out("seems-paused").await else { return };
    // KEDA also corrects the condition when a trigger that failed recovers.
    tokio::time::sleep(SETTLED).await;
    // KEDA may first write its own condition once more, from its cache.
    let set = async || {
        set_paused(&chat).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        chat.serving.scaled_object().await
    };
    wait::until_asked("KEDA keeps the condition", set, |found| reports_paused(found, "True")).await;
    load.hold(37);
    chat.has_replicas(4).await;
    let found = chat.serving.scaled_object().await;
    assert!(reports_paused(&found, "True"), "{}", found.data["status"]);

    let report = explain(chain, &chat).0;
    let warnings: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let command = warnings.iter().find_map(|text| text.split_once("run: kubectl ")).expect("a command").1;
    let kubeconfig = chain.stack.control_plane.kubeconfig(&Identity::Admin);
    let output =
        Command::new(binary("kubectl")).args(command.split(' ')).env("KUBECONFIG", kubeconfig).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    chat.serving.scaled_object_until("is not paused", |found| reports_paused(found, "False")).await;
    load.hold(47);
    chat.has_replicas(5).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    hpa_gone(&chat).await;
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
    let disabled = |found: Option<&DynamicObject>| {
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
