//! The label selector and the condition in the status of a ModelServing, which other controllers write, too.

use harness::kinds;
use kthena_keda::cluster::server_side_apply;
use kthena_keda_core::api::kthena::ModelServing;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::shared::{namespace, stack};

fn canonical(name: &str, role: &str) -> String {
    format!(
        "modelserving.volcano.sh/entry=true,modelserving.volcano.sh/name={name},modelserving.volcano.sh/role-id={role}-0,modelserving.volcano.sh/role={role}"
    )
}

#[tokio::test]
async fn sets_the_selector_of_a_model_that_is_not_opted_in() {
    let chat = namespace().await.model_serving("chat").create().await;
    chat.selector(&canonical("chat", "engine")).await;
    assert_eq!(harness::condition(&chat.get().await), None);
}

#[tokio::test]
async fn the_selector_follows_the_first_role() {
    let chat = namespace().await.model_serving("chat").roles(&["prefill", "decode"]).create().await;
    chat.selector(&canonical("chat", "prefill")).await;
    chat.set_roles(&["router", "decode"]).await;
    chat.selector(&canonical("chat", "router")).await;
}

#[tokio::test]
async fn never_overwrites_a_foreign_selector() {
    let models = namespace().await;
    let chat = models.model_serving("chat").create().await;
    chat.selector(&canonical("chat", "engine")).await;
    chat.patch_status("kthena-controller-manager", json!({"labelSelector": "theirs=1"})).await.unwrap();
    chat.set_roles(&["other"]).await;
    // The operator has reconciled a later model, so it has reconciled this one.
    models.model_serving("later").create().await.selector(&canonical("later", "engine")).await;
    assert_eq!(chat.get().await.data["status"]["labelSelector"], "theirs=1");
}

#[tokio::test]
async fn keeps_the_conditions_of_other_controllers() {
    let chat = namespace().await.model_serving("chat").create().await;
    let foreign = |status: &str| json!([{"type": "Available", "status": status, "reason": "Seen", "message": "theirs", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    chat.patch_status("kthena-controller-manager", json!({"conditions": foreign("True")})).await.unwrap();
    // Another controller rewrites the whole list repeatedly, as Kthena's does, while the operator adds and
    // changes its condition.
    let rewriter = {
        let (chat, foreign) = (chat.clone(), foreign("False"));
        tokio::spawn(async move {
            for _ in 0..20 {
                let found = chat.get().await;
                let mut conditions =
                    found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
                // Writes of others between two of its own must keep its condition.
                assert!(
                    conditions.iter().any(|condition| condition["type"] == "Available"),
                    "{conditions:?}"
                );
                conditions.retain(|condition| condition["type"] != "Available");
                conditions.extend(foreign.as_array().cloned().unwrap_or_default());
                // Kthena patches with the resource version that it read, and retries after a conflict.
                let patch = json!({"metadata": {"resourceVersion": found.resource_version()}, "status": {"conditions": conditions}});
                let api = chat.namespace.api(&kinds::model_serving());
                let _ = api.patch_status(&chat.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            }
        })
    };
    chat.annotate(&[("kthena.io/model-name", Some(&chat.namespace.model_name()))]).await;
    rewriter.await.unwrap();
    let found = chat
        .until("has both conditions", |found| {
            found.data["status"]["conditions"].as_array().is_some_and(|all| all.len() == 2)
        })
        .await;
    assert_eq!(harness::condition(&found).unwrap()["reason"], "Pending");
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    let found =
        chat.until("has no AutoscalingReady condition", |found| harness::condition(found).is_none()).await;
    assert_eq!(found.data["status"]["conditions"][0]["type"], "Available");
}

/// KEDA reports within seconds. A condition that says only that it has not yet is no write of its own before.
#[tokio::test]
async fn the_first_condition_gives_keda_time_to_report() {
    let chat = namespace().await.model_serving("chat").create().await;
    chat.selector(&canonical("chat", "engine")).await;
    chat.annotate(&[("kthena.io/model-name", Some(&chat.namespace.model_name()))]).await;
    chat.scaled_object().await;
    assert_eq!(harness::condition(&chat.get().await), None);
    chat.reason("Pending").await;
}

/// A ModelServing is large, and the operator needs only the metadata of the object after a status write.
#[tokio::test]
async fn a_status_patch_returns_metadata_only() {
    let chat = namespace().await.model_serving("chat").create().await;
    let api: Api<ModelServing> = Api::namespaced(stack().await.client().await, &chat.namespace.name);
    let written = server_side_apply::patch_status(&api, "chat", json_patch::Patch::default()).await.unwrap();
    assert_eq!(written.types.map(|types| types.kind).as_deref(), Some("PartialObjectMetadata"));
    assert_eq!(written.metadata.uid, chat.get().await.metadata.uid);
}
