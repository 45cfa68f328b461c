//! CRDs and settings of dependencies that are missing, installed late, or removed.

use harness::{Crds, Settings, ask, wait::until_asked};
use rstest::rstest;

use super::shared::{BINARY, stack};

#[tokio::test]
async fn detects_installation_and_removal_of_keda() {
    let (stack, _permit) = stack(&[Crds::kthena()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("KedaNotInstalled").await.contains("install KEDA"));
    // Opting out does not need KEDA.
    let other = models.model_serving("other").opted_in("another").create().await;
    other.reason("KedaNotInstalled").await;
    other.annotate(&[("kthena.io/model-name", None)]).await;
    other.until("has no AutoscalingReady condition", |found| harness::condition(found).is_none()).await;
    Crds::keda().install(&models.client).await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
    Crds::keda().remove(&models.client).await;
    chat.reason("KedaNotInstalled").await;
    Crds::keda().install(&models.client).await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
}

#[tokio::test]
async fn waits_for_kthena_and_stays_ready() {
    let (stack, _permit) = stack(&[Crds::keda()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    // Missing CRDs of Kthena make the operator neither unhealthy nor unready.
    assert_eq!(ask(&operator, "/healthz").await.0, 200);
    until_asked("the operator is ready", async || ask(&operator, "/readyz").await, |(code, _)| *code == 200)
        .await;
    let models = stack.namespace().await;
    Crds::kthena().install(&models.client).await;
    models.model_serving("chat").opts_in().create().await.scaled_object().await;
}

#[rstest]
#[case::ours(Some(Crds::kthena_0_2()))]
#[case::released(Crds::kthena_released("v0.2.0"))]
#[tokio::test]
async fn reports_a_missing_scale_subresource_until_an_upgrade(#[case] kthena: Option<Crds>) {
    let Some(kthena) = kthena else { return };
    let (stack, _permit) = stack(&[kthena, Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("ScaleSubresourceMissing").await.contains("upgrade Kthena's CRDs"));
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
    Crds::kthena_0_4().install(&models.client).await;
    chat.scaled_object().await;
}

#[rstest]
#[case::ours(Some(Crds::kthena_0_4()))]
#[case::released(Crds::kthena_released("v0.4.0"))]
#[tokio::test]
async fn fills_the_selector_that_kthena_leaves_empty(#[case] kthena: Option<Crds>) {
    let Some(kthena) = kthena else { return };
    let (stack, _permit) = stack(&[kthena, Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    let scale: serde_json::Value = serde_json::to_value(
        chat.namespace.api(&harness::kinds::model_serving()).get_scale("chat").await.unwrap(),
    )
    .unwrap();
    assert!(
        scale["status"]["selector"].as_str().unwrap().contains("modelserving.volcano.sh/role-id=engine-0"),
        "{scale}"
    );
}

#[tokio::test]
async fn reports_a_missing_prometheus_url() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("PrometheusNotConfigured").await.contains("--prometheus-url"));
}
