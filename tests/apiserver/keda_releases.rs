//! The oldest release of KEDA that is supported: what it does not know is left out or refused, never sent blind.

use harness::{Crds, Settings, Stack};

use super::shared::BINARY;

#[tokio::test]
async fn the_oldest_that_is_supported() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda_2_14()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opted_in("llama").annotated("autoscaling.kthena.io/min-replicas", "0").create().await;
    let found = chat.scaled_object().await;
    assert_eq!(found.data["spec"]["initialCooldownPeriod"], 900);
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("scale-in"))]).await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(message.contains("KEDA 2.18"), "{message}");
    assert_eq!(chat.scaled_object().await.metadata.resource_version, found.metadata.resource_version);
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    chat.scaled_object_until("is paused", |found| found.metadata.annotations.is_some()).await;
    // Upgraded in place, KEDA knows more, and the operator notices without a restart.
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("scale-in"))]).await;
    chat.reason("InvalidConfiguration").await;
    Crds::keda().install(&models.client).await;
    chat.reason("Pending").await;
    chat.scaled_object_until("is paused one way", |found| {
        found.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("autoscaling.keda.sh/paused-scale-in"))
    })
    .await;
}
