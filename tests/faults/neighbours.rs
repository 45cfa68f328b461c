//! Neighbours that are absent, or come and go.

use harness::{Crds, Settings, ask, wait::until_asked};
use rstest::rstest;

use super::shared::{BINARY, stack};

#[tokio::test]
async fn keda_comes_goes_and_comes_back() {
    let (stack, _permit) = stack(&[Crds::kthena()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("KedaNotInstalled").await.contains("install KEDA"));
    // Opting out does not need KEDA.
    let other = models.model_serving("other").opted_in("another").create().await;
    other.reason("KedaNotInstalled").await;
    other.annotate(&[("kthena.io/model-name", None)]).await;
    other.until("has no condition of ours", |found| harness::condition(found).is_none()).await;
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
async fn kthena_comes_late() {
    let (stack, _permit) = stack(&[Crds::keda()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    // Which is no reason to restart it, or to send it away.
    assert_eq!(ask(&operator, "/healthz").await.0, 200);
    until_asked("it is ready", async || ask(&operator, "/readyz").await, |(code, _)| *code == 200).await;
    let models = stack.namespace().await;
    Crds::kthena().install(&models.client).await;
    models.model_serving("chat").opts_in().create().await.scaled_object().await;
}

#[rstest]
#[case::ours(Some(Crds::kthena_0_2()))]
#[case::released(Crds::kthena_released("v0.2.0"))]
#[tokio::test]
async fn kthena_without_a_scale_subresource(#[case] kthena: Option<Crds>) {
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
async fn kthena_that_leaves_the_selector_empty(#[case] kthena: Option<Crds>) {
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
async fn no_prometheus_is_said() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("PrometheusNotConfigured").await.contains("--prometheus-url"));
}
