//! The ScaledObject of a model: created, updated, restored, adopted and deleted.

use harness::{ModelServing, kinds};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::shared::{has_event, namespace};

async fn opted_in() -> ModelServing {
    namespace().await.model_serving("chat").opts_in().create().await
}

/// Merges `patch` into the ScaledObject, as a user would.
async fn edit(chat: &ModelServing, patch: Value) {
    chat.scaled_objects().patch(&chat.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

fn max(scaled_object: &DynamicObject) -> &Value {
    &scaled_object.data["spec"]["maxReplicaCount"]
}

#[tokio::test]
async fn creates_a_scaled_object_from_one_annotation() {
    let chat = opted_in().await;
    let scaled_object = chat.scaled_object().await;
    let spec = &scaled_object.data["spec"];
    assert_eq!(spec["scaleTargetRef"]["name"], "chat");
    assert_eq!(spec["triggers"][0]["metadata"]["serverAddress"], "http://prometheus:9090");
    assert!(
        spec["triggers"][0]["metadata"]["query"]
            .as_str()
            .unwrap()
            .contains(&format!("model=\"{}\"", chat.namespace.model_name())),
        "{spec}"
    );
    let owner = &scaled_object.owner_references()[0];
    assert_eq!(
        (owner.name.as_str(), owner.controller, owner.block_owner_deletion),
        ("chat", Some(true), Some(false))
    );
    let message = chat.reason("Pending").await;
    assert!(message.contains("waiting for KEDA to report"), "{message}");
}

#[tokio::test]
async fn applies_changed_annotations() {
    let chat = opted_in().await;
    chat.scaled_object().await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    chat.scaled_object_until("has a maximum of 7", |found| max(found) == 7).await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", None)]).await;
    chat.scaled_object_until("has the default maximum", |found| max(found) == 10).await;
}

/// A field that no plan sends any more goes away by server-side apply.
#[tokio::test]
async fn has_a_cooldown_only_with_a_minimum_of_zero() {
    let chat = opted_in().await;
    let has_cooldown = |found: &DynamicObject| found.data["spec"].get("cooldownPeriod").is_some();
    assert!(!has_cooldown(&chat.scaled_object().await));
    chat.annotate(&[("autoscaling.kthena.io/min-replicas", Some("0"))]).await;
    chat.scaled_object_until("has a cooldown", has_cooldown).await;
    chat.annotate(&[("autoscaling.kthena.io/min-replicas", None)]).await;
    chat.scaled_object_until("has no cooldown", |found| !has_cooldown(found)).await;
}

#[tokio::test]
async fn opting_out_deletes_the_scaled_object_and_then_the_condition() {
    let chat = opted_in().await;
    chat.reason("Pending").await;
    chat.scaled_object().await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    chat.scaled_object_gone().await;
    let after =
        chat.until("has no AutoscalingReady condition", |found| harness::condition(found).is_none()).await;
    assert_eq!(after.data["spec"]["replicas"], 1);
    assert!(after.data["status"]["labelSelector"].is_string());
}

#[tokio::test]
async fn restores_an_edited_scaled_object() {
    let chat = opted_in().await;
    chat.scaled_object().await;
    edit(&chat, json!({"spec": {"maxReplicaCount": 99, "triggers": [{"type": "cron", "metadata": {}}]}}))
        .await;
    let found = chat.scaled_object_until("is restored", |found| max(found) == 10).await;
    assert_eq!(found.data["spec"]["triggers"][0]["type"], "prometheus");
}

/// The operator owns the whole spec, so it also removes fields that it never sets.
#[tokio::test]
async fn removes_fields_that_another_client_adds() {
    let chat = opted_in().await;
    let before = chat.scaled_object().await;
    let advanced = json!({
        "restoreToOriginalReplicaCount": true,
        "scalingModifiers": {"formula": "active_requests", "target": "1"},
        "horizontalPodAutoscalerConfig": {"name": "mine", "behavior": {"scaleUp": {"tolerance": "500m"}}},
    });
    let fallback = json!({"failureThreshold": 1, "replicas": 9});
    edit(&chat, json!({"spec": {"idleReplicaCount": 0, "fallback": fallback, "advanced": advanced}})).await;
    let spec = before.data["spec"].clone();
    chat.scaled_object_until("has the spec of the operator", |found| found.data["spec"] == spec).await;
    has_event(&chat, "Normal", "Repaired", "removed spec.advanced.horizontalPodAutoscalerConfig").await;
    has_event(&chat, "Normal", "Repaired", "spec.idleReplicaCount").await;
}

/// An empty value is no addition: KEDA's own updates write one into every ScaledObject.
#[tokio::test]
async fn keeps_empty_values() {
    let chat = opted_in().await;
    chat.scaled_object().await;
    edit(&chat, json!({"spec": {"advanced": {"scalingModifiers": {}}}})).await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("5"))]).await;
    let found = chat.scaled_object_until("has a maximum of 5", |found| max(found) == 5).await;
    assert_eq!(found.data["spec"]["advanced"]["scalingModifiers"], json!({}));
}

/// A field that another client adds again and again is left alone after two removals.
#[tokio::test]
async fn leaves_a_field_alone_after_two_removals() {
    let chat = opted_in().await;
    chat.scaled_object().await;
    let is_absent = |found: &DynamicObject| found.data["spec"].get("idleReplicaCount").is_none();
    for _ in 0..2 {
        edit(&chat, json!({"spec": {"idleReplicaCount": 0}})).await;
        chat.scaled_object_until("has no idleReplicaCount", is_absent).await;
    }
    edit(&chat, json!({"spec": {"idleReplicaCount": 0}})).await;
    chat.until("reports the field", |found| {
        harness::condition(found)
            .is_some_and(|condition| condition.to_string().contains("spec.idleReplicaCount"))
    })
    .await;
    assert_eq!(chat.scaled_object().await.data["spec"]["idleReplicaCount"], 0);
}

/// A pause that the ModelServing asks for is the operator's own annotation.
#[tokio::test]
async fn restores_a_removed_pause_and_label() {
    let models = namespace().await;
    let chat = models.model_serving("chat").opts_in().annotated("autoscaling.kthena.io/paused", "true");
    let chat = chat.create().await;
    let is_own = |found: &DynamicObject| {
        found.annotations().get("autoscaling.keda.sh/paused").is_some_and(|value| value == "true")
            && found.labels().get("app.kubernetes.io/managed-by").is_some_and(|value| value == "kthena-keda")
    };
    chat.scaled_object_until("is paused", is_own).await;
    for value in [json!(null), json!("false")] {
        let metadata = json!({"annotations": {"autoscaling.keda.sh/paused": value}, "labels": {"app.kubernetes.io/managed-by": value}});
        edit(&chat, json!({"metadata": metadata})).await;
        chat.scaled_object_until("is paused again", is_own).await;
    }
    edit(&chat, json!({"metadata": {"ownerReferences": null}})).await;
    chat.scaled_object_until("has its owner again", |found| !found.owner_references().is_empty()).await;
}

#[tokio::test]
async fn restores_a_deleted_scaled_object() {
    let chat = opted_in().await;
    let before = chat.scaled_object().await.uid();
    chat.scaled_objects().delete("chat", &DeleteParams::default()).await.unwrap();
    chat.scaled_object_until("is a new one", |found| found.uid() != before).await;
}

#[tokio::test]
async fn keeps_metadata_of_other_writers() {
    let chat = opted_in().await;
    chat.scaled_object().await;
    let foreign = json!({
        "labels": {"team": "a", "scaledobject.keda.sh/name": "chat"},
        "annotations": {"autoscaling.keda.sh/paused": "true", "note": "mine"},
        "finalizers": ["finalizer.keda.sh"],
    });
    edit(&chat, json!({"metadata": foreign})).await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("5"))]).await;
    let found = chat.scaled_object_until("has a maximum of 5", |found| max(found) == 5).await;
    assert_eq!(
        (found.labels()["team"].as_str(), found.labels()["scaledobject.keda.sh/name"].as_str()),
        ("a", "chat")
    );
    assert_eq!(
        (found.annotations()["autoscaling.keda.sh/paused"].as_str(), found.annotations()["note"].as_str()),
        ("true", "mine")
    );
    assert_eq!(found.finalizers(), ["finalizer.keda.sh"]);
    edit(&chat, json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn resumes_when_the_pause_annotation_is_removed() {
    let chat = namespace()
        .await
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/paused", "true")
        .create()
        .await;
    let paused = |found: &DynamicObject| found.annotations().contains_key("autoscaling.keda.sh/paused");
    chat.scaled_object_until("is paused", paused).await;
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    chat.scaled_object_until("is not paused", |found| !paused(found)).await;
}

/// A pause is carried out also while the plan is refused; nothing else of the ScaledObject changes.
#[tokio::test]
async fn pauses_and_resumes_while_the_plan_is_refused() {
    let chat = opted_in().await;
    let before = chat.scaled_object().await;
    let paused = |found: &DynamicObject| found.annotations().contains_key("autoscaling.keda.sh/paused");
    chat.annotate(&[
        ("autoscaling.kthena.io/profile", Some("missing")),
        ("autoscaling.kthena.io/max-replicas", Some("3")),
        ("autoscaling.kthena.io/paused", Some("true")),
    ])
    .await;
    let found = chat.scaled_object_until("is paused", paused).await;
    let message = chat.says("ProfileNotFound", "is paused by autoscaling.kthena.io/paused: true").await;
    assert!(message.contains("missing"), "{message}");
    assert_eq!(found.data["spec"], before.data["spec"]);
    assert_eq!(found.owner_references(), before.owner_references());
    assert_eq!(managers(&found), ["kthena-keda Apply"]);
    // A removed pause comes back.
    edit(&chat, json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": null}}})).await;
    chat.scaled_object_until("is paused again", paused).await;
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    let found = chat.scaled_object_until("is not paused", |found| !paused(found)).await;
    assert_eq!(
        (&found.data["spec"], managers(&found)),
        (&before.data["spec"], vec!["kthena-keda Apply".to_owned()])
    );
    // The whole plan is applied once it is valid.
    chat.annotate(&[("autoscaling.kthena.io/profile", None)]).await;
    chat.scaled_object_until("has a maximum of 3", |found| max(found) == 3).await;
}

/// Name and operation of each field manager.
fn managers(object: &DynamicObject) -> Vec<String> {
    let entries = object.metadata.managed_fields.iter().flatten();
    entries
        .map(|entry| {
            let manager = entry.manager.as_deref().unwrap_or_default();
            format!("{manager} {}", entry.operation.as_deref().unwrap_or_default())
        })
        .collect()
}

#[tokio::test]
async fn never_changes_a_foreign_scaled_object() {
    let models = namespace().await;
    let spec = json!({"scaleTargetRef": {"name": "other"}, "triggers": [{"type": "cron", "metadata": {"desiredReplicas": "1"}}]});
    let foreign =
        models.create(&kinds::scaled_object(), json!({"metadata": {"name": "chat"}, "spec": spec})).await;
    let chat = models.model_serving("chat").opts_in().create().await;
    let message = chat.reason("NameConflict").await;
    assert!(message.contains("ScaledObject chat"), "{message}");
    let now = chat.scaled_object().await;
    assert_eq!(now.resource_version(), foreign.resource_version());
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    chat.until("has no AutoscalingReady condition", |found| harness::condition(found).is_none()).await;
    assert_eq!(chat.scaled_object().await.resource_version(), foreign.resource_version());
    // The name is free after the foreign ScaledObject is deleted.
    chat.annotate(&[("kthena.io/model-name", Some(&chat.namespace.model_name()))]).await;
    chat.reason("NameConflict").await;
    chat.scaled_objects().delete("chat", &DeleteParams::default()).await.unwrap();
    chat.reason("Pending").await;
    chat.scaled_object_until("has an owner reference", |found| !found.owner_references().is_empty()).await;
}

#[tokio::test]
async fn adopts_a_scaled_object_created_by_gitops() {
    let models = namespace().await;
    let managed = json!({"name": "chat", "labels": {"app.kubernetes.io/managed-by": "kthena-keda"}});
    let spec = json!({"scaleTargetRef": {"name": "chat"}, "triggers": [{"type": "cron", "metadata": {"desiredReplicas": "1"}}]});
    let before = models.create(&kinds::scaled_object(), json!({"metadata": managed, "spec": spec})).await;
    let chat = models.model_serving("chat").opts_in().create().await;
    let after = chat
        .scaled_object_until("has an owner reference", |found| !found.owner_references().is_empty())
        .await;
    assert_eq!(
        (after.uid(), &after.data["spec"]["triggers"][0]["type"]),
        (before.uid(), &json!("prometheus"))
    );
}

#[tokio::test]
async fn shortens_a_long_name_to_the_limit_of_keda() {
    let name = "a-model-serving-whose-name-is-longer-than-keda-can-carry-it";
    let chat = namespace().await.model_serving(name).opts_in().create().await;
    chat.reason("Pending").await;
    let found = harness::wait::until_asked(
        "there is a ScaledObject",
        || async { chat.scaled_objects().list(&kube::api::ListParams::default()).await.unwrap().items },
        |items| items.len() == 1,
    )
    .await;
    assert!(found[0].name_any().len() <= 54, "{}", found[0].name_any());
    assert_eq!(found[0].data["spec"]["scaleTargetRef"]["name"], name);
    // It is restored under the same shortened name.
    chat.scaled_objects().delete(&found[0].name_any(), &DeleteParams::default()).await.unwrap();
    harness::wait::until(&chat.scaled_objects(), &found[0].name_any(), "is a new one", |now| {
        now.is_some_and(|now| now.uid() != found[0].uid())
    })
    .await;
}

#[tokio::test]
async fn scales_namesakes_in_two_namespaces_independently() {
    let (a, b) =
        (opted_in().await, namespace().await.model_serving("chat").opted_in("mistral").create().await);
    for (chat, model) in [(&a, "llama"), (&b, "mistral")] {
        let found = chat.scaled_object().await;
        assert!(found.data["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap().contains(model));
    }
    a.annotate(&[("kthena.io/model-name", None)]).await;
    a.scaled_object_gone().await;
    b.scaled_object().await;
}

#[tokio::test]
async fn a_recreated_model_serving_gets_a_new_scaled_object() {
    let chat = opted_in().await;
    let before = chat.scaled_object().await;
    chat.delete().await;
    // This stack has no garbage collector, so the old ScaledObject keeps the owner reference to the deleted
    // ModelServing, and the operator must not adopt it.
    let again = chat.namespace.model_serving("chat").opts_in().create().await;
    let awaited = "belongs to a ModelServing of the same name that was deleted";
    again.says("Pending", awaited).await;
    assert_eq!(again.scaled_object().await.resource_version(), before.resource_version());
    again.scaled_objects().delete("chat", &DeleteParams::default()).await.unwrap();
    again.reason("Pending").await;
    let owner = again.get().await.uid();
    again
        .scaled_object_until("references its new owner", |found| {
            Some(found.owner_references()[0].uid.clone()) == owner
        })
        .await;
}
