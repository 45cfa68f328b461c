//! Neighbours that are absent, come and go, and an API server that fails. Each test has a control plane of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

use std::time::Duration;

use harness::{Crds, Fault, FaultProxy, OPERATOR, Settings, Stack, ask, wait::until_asked};
use rstest::rstest;
use tokio::sync::{Semaphore, SemaphorePermit};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// A control plane takes most of a core while it starts.
static STACKS: Semaphore = Semaphore::const_new(2);

async fn stack(crds: &[Crds]) -> (Stack, SemaphorePermit<'static>) {
    let permit = STACKS.acquire().await.unwrap();
    (Stack::start(crds).await, permit)
}

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
    let scale: serde_json::Value =
        serde_json::to_value(chat.namespace.api(&harness::kinds::model_serving()).get_scale("chat").await.unwrap()).unwrap();
    assert!(scale["status"]["selector"].as_str().unwrap().contains("modelserving.volcano.sh/role-id=engine-0"), "{scale}");
}

#[tokio::test]
async fn no_prometheus_is_said() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    assert!(chat.reason("PrometheusNotConfigured").await.contains("--prometheus-url"));
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    for i in 0..20 {
        models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
    }
    for i in 0..20 {
        let api = models.api(&harness::kinds::scaled_object());
        harness::wait::until(&api, &format!("chat-{i}"), "exists", |found| found.is_some()).await;
    }
    assert!(operator.terminate(), "SIGTERM ends it in order");
    let before = stack.writes().len();
    assert_eq!(before, 40, "one status and one ScaledObject each");
    let _operator = stack.start_operator(&Settings::new(BINARY));
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    let writes = stack.writes().split_off(before);
    assert!(writes.iter().all(|write| write.object_ref.name == "sentinel"), "{:?}", harness::audit::summary(&writes));
    let refused: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(refused.is_empty(), "{:?}", harness::audit::summary(&refused));
}

#[rstest]
#[case::closed(Fault::Close)]
#[case::silent(Fault::Hang)]
#[case::failing(Fault::Status(500))]
#[case::overloaded(Fault::Status(429))]
#[case::unavailable(Fault::Status(503))]
#[tokio::test]
async fn an_api_server_that_fails_at_start_and_later(#[case] fault: Fault) {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, fault).await;
    let settings = Settings::new(BINARY);
    let mut operator = settings.start(&stack.control_plane.folder, &proxy.kubeconfig());
    assert_eq!(ask(&operator, "/healthz").await.0, 200);
    let (code, what) = ask(&operator, "/readyz").await;
    assert!(code == 503 && what.contains("not seen yet"), "{code} {what}");
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Fault::None);
    chat.scaled_object().await;
    proxy.set(fault);
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // It has seen everything once; an API server that fails later is no reason to send it away.
    assert_eq!(ask(&operator, "/readyz").await.0, 200);
    proxy.set(Fault::None);
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    assert!(!operator.has_ended());
}

#[tokio::test]
async fn told_to_end_it_does_so_whatever_hangs() {
    let (stack, _permit) = stack(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
    let operator = Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig());
    let models = stack.namespace().await;
    models.model_serving("first").opts_in().create().await.scaled_object().await;
    // Its next write is taken and never answered.
    proxy.set(Fault::HangWrites);
    models.model_serving("second").opts_in().create().await;
    harness::wait::until_asked("a write hangs", async || proxy.hanging(), |count| *count > 0).await;
    assert!(operator.terminate(), "it ends in order within its time");
}

#[tokio::test]
async fn an_api_server_that_restarts() {
    let (mut stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    stack.control_plane.stop_api_server();
    stack.control_plane.start_api_server().await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
}

/// Each kill comes at a moment that the seed decides: `FAULT_SEED=…` repeats a run.
#[tokio::test]
async fn killed_again_and_again_during_a_burst_nothing_is_lost_or_changed() {
    const MODELS: usize = 150;
    let seed = std::env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let models = stack.namespace().await;
    let burst = {
        let models = models.clone();
        tokio::spawn(async move {
            for i in 0..MODELS {
                models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
            }
        })
    };
    let (mut random, mut kills) = (seed, 0);
    while !burst.is_finished() {
        let operator = stack.start_operator(&Settings::new(BINARY));
        // A step of splitmix64.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        tokio::time::sleep(Duration::from_millis(150 + (mixed >> 32) % 400)).await;
        drop(operator);
        kills += 1;
    }
    burst.await.unwrap();
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let api = models.api(&harness::kinds::scaled_object());
    let count = async || api.list(&kube::api::ListParams::default()).await.unwrap().items.len();
    until_asked(&format!("there is a ScaledObject each (seed {seed})"), count, |count| *count == MODELS).await;
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    // What a killed process had on the wire may still land after the next one has looked, and changes nothing then.
    for found in api.list(&kube::api::ListParams::default()).await.unwrap() {
        assert_eq!(found.metadata.generation, Some(1), "seed {seed}: {:?} was changed", found.metadata.name);
    }
    let written = harness::audit::summary(&stack.writes());
    let again: usize = written.values().map(|count| count - 1).sum();
    assert_eq!(written.len(), 2 * (MODELS + 1), "seed {seed}: {written:?}");
    assert!(again <= kills * 8, "seed {seed}: {again} writes more than were needed after {kills} kills: {written:?}");
}
