//! A model at zero whose requests the operator has held: no client that does not retry sees a failure, also while
//! components are down.

use std::time::{Duration, Instant};

use harness::{
    Chain, ChainSettings, Model,
    chain::can_run,
    kinds,
    neighbours::{Dns, Kubelet, POD_NETWORKS},
    objects::is_ready,
    wait::{until, until_asked},
};
use http::StatusCode;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    hold::{FIRST_TOKENS, GATE, HANDED_OVER, HELD, METRICS, Requests, answers, scrape, send, start_kubelet},
    shared::BINARY,
};

const STAND_IN: &str = "chat-stand-in";
const ENGINE: &str = "chat-0-engine-0-0";
/// Fields of a profile by which the router counts as scraped at any time.
const ALWAYS_SCRAPED: &str = "  router: {presenceQuery: vector(1)}\n";
/// Clients of a burst, half of which stream.
const CLIENTS: usize = 50;
/// Longest time from the readiness of the engine to the first token of the last held request.
const HAND_OVER: Duration = Duration::from_secs(3);

/// A model that may be at zero, in a chain of its own, whose components a test may stop.
struct Sleeping {
    chain: Chain,
    kubelet: Kubelet,
    _dns: Dns,
    chat: Model,
}

impl Sleeping {
    async fn start() -> Self {
        let quick = ChainSettings::quick(BINARY);
        let settings = ChainSettings { pod_network: POD_NETWORKS[1], profile: profile("hold: {}"), ..quick };
        let chain = Box::pin(Chain::start_with_stand_ins(&settings)).await;
        let (dns, kubelet) = start_kubelet(&chain).await;
        let bounds = ["min", "max"].map(|bound| format!("autoscaling.kthena.io/{bound}-replicas"));
        let chat = chain
            .model_at(kubelet.port, "sleeping", |builder| {
                let builder = builder.mocked().loading("2s").replicas(0);
                builder.annotated(&bounds[0], "0").annotated(&bounds[1], "1")
            })
            .await;
        Self { chain, kubelet, _dns: dns, chat }
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.chat.serving.namespace.api(&kinds::pod())
    }

    /// A series of the stand-in.
    async fn metric(&self, series: &str) -> Option<u64> {
        scrape(&self.chat.serving.namespace, STAND_IN, METRICS, series).await
    }

    /// Waits until the model is at zero, and the router sends its requests to the stand-in; returns the pod's UID.
    async fn sleeps(&self) -> Option<String> {
        self.chat.has_replicas(0).await;
        let found = until(&self.pods(), STAND_IN, "is Ready", |found| found.is_some_and(is_ready)).await;
        // The router sees it a moment later.
        sleep(Duration::from_secs(1)).await;
        found.and_then(|found| found.uid())
    }

    /// Sends a burst, and waits until the stand-in holds it.
    async fn burst(&self) -> Requests {
        let requests = send(&self.chain.router, &self.chat.name, CLIENTS, 3);
        let held = async || self.metric(HELD).await;
        until_asked("all requests are held", held, |held| *held == Some(CLIENTS as u64)).await;
        requests
    }

    /// Checks that each client gets one complete answer soon after the engine is ready, and that the engine received each
    /// request once.
    async fn are_answered(&self, requests: Requests, what: &str) {
        let pods = self.pods();
        let ready = async {
            until(&pods, ENGINE, "is Ready", |found| found.is_some_and(is_ready)).await;
            Instant::now()
        };
        let (ready, answers) = tokio::join!(ready, answers(requests));
        for answer in &answers {
            assert!(answer.status == Some(StatusCode::OK) && answer.is_complete(), "{what}: {answer:?}");
        }
        let last = answers.iter().filter_map(|answer| answer.first_token).max().expect("a token");
        let delay = last.saturating_duration_since(ready);
        eprintln!(
            "{what}: {} answers, the last first token {delay:?} after the engine was ready",
            answers.len()
        );
        assert!(delay <= HAND_OVER, "{what}: {delay:?}");
        let begun = scrape(&self.chat.serving.namespace, ENGINE, self.kubelet.port, FIRST_TOKENS).await;
        assert_eq!(begun, Some(CLIENTS as u64), "{what}: requests that the engine received");
    }

    /// Waits until the stand-in takes no requests any more.
    async fn is_relieved(&self) {
        until(&self.pods(), STAND_IN, "takes no requests", |found| {
            let conditions = found.and_then(|found| found.data["status"]["conditions"].as_array());
            conditions.into_iter().flatten().any(|c| c["type"] == GATE && c["status"] == "False")
        })
        .await;
    }

    /// Lets the minute pass for which a stand-in exists beside an available ServingGroup.
    async fn outlives_the_stand_in(&self) {
        let gate = json!({"type": GATE, "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let patch = Patch::Strategic(json!({"status": {"conditions": [gate]}}));
        self.pods().patch_status(STAND_IN, &PatchParams::default(), &patch).await.expect("a patch");
        until(&self.pods(), STAND_IN, "is gone", |found| found.is_none()).await;
    }
}

/// The quick profile with these further fields of `scaleToZero`.
fn profile(fields: &str) -> String {
    let quick = ChainSettings::quick(BINARY).profile;
    let profile = quick.replace("initialCooldown: 10s", &format!("initialCooldown: 10s, {fields}"));
    assert_ne!(profile, quick);
    profile
}

/// In one chain, because it takes as long to start as each of these steps.
#[tokio::test]
async fn clients_without_a_retry_wake_a_model_again_and_again() {
    if !can_run() {
        return;
    }
    let mut sleeping = Sleeping::start().await;
    let first = sleeping.sleeps().await;
    let requests = sleeping.burst().await;
    sleeping.are_answered(requests, "a model that never ran").await;

    // Otherwise the activation trigger keeps it awake for two minutes, and so does a Prometheus with less data. Held requests
    // alone wake it, too.
    sleeping.chain.apply_profile(&(profile(r#"activation: "1000000", hold: {}"#) + ALWAYS_SCRAPED)).await;
    sleeping.is_relieved().await;
    sleeping.outlives_the_stand_in().await;
    let second = sleeping.sleeps().await;
    assert_ne!(first, second);
    let requests = sleeping.burst().await;
    sleeping.are_answered(requests, "a model that has served").await;

    sleeping.is_relieved().await;
    assert_eq!(sleeping.sleeps().await, second);
    survives_outages(&mut sleeping).await;
}

/// Requests stay held while nothing wakes the model and the operator restarts, and are handed over without it.
async fn survives_outages(sleeping: &mut Sleeping) {
    let handed_over = sleeping.metric(HANDED_OVER).await.expect("the stand-in");
    sleeping.chain.prometheus.server.kill();
    let requests = sleeping.burst().await;
    sleeping.chain.operator = None;
    sleeping.chain.start_operator();
    sleeping.chat.keeps_replicas(0, Duration::from_secs(5)).await;
    sleeping.chain.keda.operator.kill();
    sleeping.chain.operator = None;
    sleeping.chain.prometheus.server.start();
    sleeping.chat.keeps_replicas(0, Duration::from_secs(3)).await;
    assert!(requests.iter().all(|request| !request.is_finished()));
    assert_eq!(sleeping.metric(HELD).await, Some(CLIENTS as u64));
    sleeping.chain.keda.operator.start();
    sleeping.are_answered(requests, "outages of Prometheus, KEDA and the operator").await;
    assert_eq!(sleeping.metric(HANDED_OVER).await, Some(handed_over + CLIENTS as u64));
    sleeping.chain.start_operator();
    sleeping.is_relieved().await;
}
