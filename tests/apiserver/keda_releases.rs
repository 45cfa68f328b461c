//! KEDA 2.14, the oldest supported release: fields that it does not know are left out or rejected, never
//! sent.

use harness::{Crds, Settings, Stack};
use serde_json::json;

use super::shared::BINARY;

#[tokio::test]
async fn supports_keda_2_14_and_detects_an_upgrade() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda_2_14()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "falls-back"}, "spec": {"fallback": {}}});
    harness::objects::apply(&models.client, profile).await;
    let held = models
        .model_serving("held")
        .opted_in("held")
        .annotated("autoscaling.kthena.io/profile", "falls-back")
        .create()
        .await;
    assert_eq!(held.scaled_object().await.data["spec"].get("fallback"), None);
    assert!(held.reason("Pending").await.contains("KEDA 2.17"));
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/min-replicas", "0")
        .create()
        .await;
    let found = chat.scaled_object().await;
    assert_eq!(found.data["spec"]["initialCooldownPeriod"], 900);
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("scale-in"))]).await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(message.contains("KEDA 2.18"), "{message}");
    assert_eq!(chat.scaled_object().await.metadata.resource_version, found.metadata.resource_version);
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    chat.scaled_object_until("is paused", |found| found.metadata.annotations.is_some()).await;
    // The operator detects an in-place upgrade of KEDA without a restart.
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("scale-in"))]).await;
    chat.reason("InvalidConfiguration").await;
    Crds::keda().install(&models.client).await;
    chat.reason("Pending").await;
    held.scaled_object_until("has a fallback", |found| {
        found.data["spec"]["fallback"]["failureThreshold"] == 10
    })
    .await;
    chat.scaled_object_until("has scale-in paused", |found| {
        found
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key("autoscaling.keda.sh/paused-scale-in"))
    })
    .await;
}
