//! Held requests: clients that do not retry wake a model at zero, and are answered once its engine has loaded.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use engine::EngineSettings;
use harness::{
    ChainSettings, Model, kinds,
    neighbours::{Dns, Kubelet, vllm::PORT},
    objects::is_ready,
    wait::{until, until_asked_within, until_within},
    web,
};
use kube::{Api, api::DynamicObject};
use tokio::time::{interval_at, sleep};

use super::{
    shared::{BINARY, Engines, LOADED, engine, seconds},
    streams::{Answer, Asked, ask},
};

const STAND_IN: &str = "chat-stand-in";
/// Port of a stand-in's metrics.
const METRICS: u16 = 8081;
const ENGINE: &str = "chat-0-engine-0-0";

/// Clients of the burst that wakes the model, every second of which streams.
const CLIENTS: usize = 20;
/// Interval of further clients, until [`AFTERWARDS`] of them have come to the loaded engine.
const ARRIVALS: Duration = Duration::from_secs(2);
const AFTERWARDS: usize = 5;
const TOKENS: u32 = 5;
/// Requests that the engine processes at a time: more than there are, so that none waits in it.
const SLOTS: usize = 256;
/// Longest time from the readiness of the engine to the first token of the last held stream.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Twice, because a model that has served sleeps and wakes otherwise than one that never ran.
#[tokio::test]
async fn clients_without_a_retry_wait_for_a_real_engine() {
    let Some(engines) = Engines::holding(&settings()).await else { return };
    let control_plane = &engines.chain.stack.control_plane;
    let dns = Dns::start(control_plane).await;
    let _stand_ins = Kubelet::start(control_plane, BINARY.as_ref(), &dns, EngineSettings::default()).await;
    let bounds = ["min", "max"].map(|bound| format!("autoscaling.kthena.io/{bound}-replicas"));
    let settings = engine(SLOTS, "64M", &[]);
    let asleep = engines.create("held", &settings, |builder| {
        builder.replicas(0).annotated(&bounds[0], "0").annotated(&bounds[1], "1")
    });
    let chat = asleep.await;
    for name in ["a model that never ran", "a model that has served"] {
        Round { engines: &engines, chat: &chat, name }.run().await;
    }
    engines.delete(&chat).await;
}

/// The quick profile with held requests.
fn settings() -> ChainSettings {
    let quick = ChainSettings::quick(BINARY);
    let hold = "initialCooldown: 10s, hold: {maxRequests: 1000}";
    let profile = quick.profile.replace("initialCooldown: 10s", hold);
    assert_ne!(profile, quick.profile);
    ChainSettings { profile, ..quick }
}

/// A model at zero that clients wake.
struct Round<'a> {
    engines: &'a Engines,
    chat: &'a Model,
    name: &'static str,
}

/// Requests of a round in the order of their arrival.
struct Arrived {
    requests: Vec<Asked>,
    /// Number of those that came before the engine was ready, and the time at which it was.
    held: usize,
    ready: Instant,
}

impl Round<'_> {
    async fn run(&self) {
        self.sleeps().await;
        let before = self.counts().await;
        let (sent, loads) = (Instant::now(), self.engines.loading_times().len());
        let woken = async {
            self.chat.serving.until("is woken", |found| found.data["spec"]["replicas"] == 1).await;
            sent.elapsed()
        };
        let (woken, Arrived { requests, held, ready }) = tokio::join!(woken, self.clients());
        let mut answers = Vec::new();
        for request in requests {
            answers.push(request.await.expect("an answer"));
        }
        let after = self.counts().await;
        let (handed_over, refused) = (after.0 - before.0, after.1 - before.1);
        let processed = self.sum(ENGINE, PORT, "vllm:request_success_total").await.expect("an engine");
        let last = answers[..held].iter().filter_map(|answer| answer.first_token).max();
        let last = last.expect("a stream").saturating_duration_since(ready);
        println!(
            "{}: woken after {}; loading time {}; ready after {}; {} answers, of which {held} were held; last first token {} after the engine was ready; handed over {handed_over}, refused {refused}, processed {processed}",
            self.name,
            seconds(&[woken]),
            seconds(&self.engines.loading_times()[loads..]),
            seconds(&[ready - sent]),
            answers.len(),
            seconds(&[last]),
        );
        let failed: Vec<&Answer> = answers.iter().filter(|answer| !answer.is_complete()).collect();
        assert!(failed.is_empty(), "{}: {failed:?}", self.name);
        assert_eq!((processed, refused), (answers.len() as u64, 0), "{}", self.name);
        assert!(handed_over >= CLIENTS as u64, "{}", self.name);
        assert!(last <= HAND_OVER, "{}", self.name);
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.chat.serving.namespace.api(&kinds::pod())
    }

    /// Waits until the model is at zero without an engine, and the router sends its requests to the stand-in.
    async fn sleeps(&self) {
        self.chat.has_replicas(0).await;
        let count = async || self.engines.vllm.count();
        until_asked_within(LOADED, "the engine has ended", count, |count| *count == 0).await;
        until(&self.pods(), STAND_IN, "is Ready", |found| found.is_some_and(is_ready)).await;
        // The router sees it a moment later.
        sleep(Duration::from_secs(1)).await;
    }

    /// Sends the burst, and further requests while the engine loads and afterwards.
    async fn clients(&self) -> Arrived {
        let (router, name) = (&self.engines.chain.router.url, &self.chat.name);
        let mut requests: Vec<_> = (0..CLIENTS).map(|i| ask(router, name, i % 2 == 0, TOKENS)).collect();
        let pods = self.pods();
        let mut loaded =
            pin!(until_within(LOADED, &pods, ENGINE, "is Ready", |found| found.is_some_and(is_ready)));
        let mut ticks = interval_at(tokio::time::Instant::now() + ARRIVALS, ARRIVALS);
        loop {
            tokio::select! {
                _ = &mut loaded => break,
                _ = ticks.tick() => requests.push(ask(router, name, requests.len() % 2 == 0, TOKENS)),
            }
        }
        let (held, ready) = (requests.len(), Instant::now());
        for _ in 0..AFTERWARDS {
            ticks.tick().await;
            requests.push(ask(router, name, requests.len() % 2 == 0, TOKENS));
        }
        Arrived { requests, held, ready }
    }

    /// Requests that the stand-in handed over, and that it refused.
    async fn counts(&self) -> (u64, u64) {
        let count = async |series| self.sum(STAND_IN, METRICS, series).await.unwrap_or_default();
        (count("kthena_keda_hold_handed_over_total").await, count("kthena_keda_hold_refused_total").await)
    }

    /// Sum of the series of a metric that a pod exposes at this port.
    async fn sum(&self, pod: &str, port: u16, metric: &str) -> Option<u64> {
        let pod = self.pods().get(pod).await.ok()?;
        let address = pod.data["status"]["podIP"].as_str()?;
        let (_, text) = web::get(&format!("http://{address}:{port}/metrics")).await?;
        let series = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(metric));
        let values =
            series.filter_map(|line| line.rsplit(' ').next()?.trim_end_matches(".0").parse::<u64>().ok());
        Some(values.sum())
    }
}
