//! Stand-in pods on the real router: it takes them for engines, and what they hold reaches the engines.

use std::time::{Duration, Instant};

use engine::EngineSettings;
use futures::future::join_all;
use harness::{
    Chain, Model, Namespace, kinds,
    neighbours::{Dns, Kubelet, Router, STAND_IN},
    objects::is_ready,
    wait::{until, until_asked},
};
use http::StatusCode;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    client::{Answer, ask, body},
    shared::{BINARY, chain},
    signals::queueing_router,
};

/// Requests that a stand-in handed over.
pub const HANDED_OVER: &str = "kthena_keda_hold_handed_over_total";
/// Requests that a stand-in holds.
pub const HELD: &str = "kthena_keda_hold_requests";
/// Port of a stand-in's metrics.
pub const METRICS: u16 = 8081;
/// Requests to an engine that got their first token.
pub const FIRST_TOKENS: &str = r#"vllm:time_to_first_token_seconds_count{engine="0",model_name="mock"}"#;
/// Condition of the readiness gate.
pub const GATE: &str = "autoscaling.kthena.io/takes-requests";

/// The containers of the shared chain.
async fn kubelet(chain: &Chain) -> &'static Kubelet {
    static RUNNING: OnceCell<(Dns, Kubelet)> = OnceCell::const_new();
    &RUNNING.get_or_init(async || start_kubelet(chain).await).await.1
}

/// Starts the name server and the containers of a chain.
pub async fn start_kubelet(chain: &Chain) -> (Dns, Kubelet) {
    let control_plane = &chain.stack.control_plane;
    let dns = Dns::start(control_plane).await;
    let settings = EngineSettings { concurrency: 100, ..EngineSettings::default() };
    let kubelet = Kubelet::start(control_plane, BINARY.as_ref(), &dns, settings).await;
    (dns, kubelet)
}

/// Value of a series that a pod exposes at this port.
pub async fn scrape(namespace: &Namespace, pod: &str, port: u16, series: &str) -> Option<u64> {
    let pod = namespace.api(&kinds::pod()).get(pod).await.ok()?;
    let address = pod.data["status"]["podIP"].as_str()?;
    let (_, text) = harness::web::get(&format!("http://{address}:{port}/metrics")).await?;
    text.lines().find_map(|line| line.strip_prefix(&format!("{series} "))?.parse().ok())
}

/// A model at zero with a stand-in pod that the test controls.
struct Asleep {
    chat: Model,
    kubelet: &'static Kubelet,
}

impl Asleep {
    async fn start(chain: &Chain, name: &str, arguments: &[&str]) -> Self {
        let kubelet = kubelet(chain).await;
        // It does not opt in: the tests scale it themselves.
        let port = kubelet.port;
        let chat = chain
            .model_at(port, name, |builder| builder.opted_out().mocked().loading("1s").replicas(0))
            .await;
        let namespace = &chat.serving.namespace;
        namespace.edit_model_server("chat", selector()).await;
        let ports = [json!({"name": "http", "port": port})];
        let engines =
            json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": "true"});
        let spec = json!({"clusterIP": "None", "selector": engines, "ports": ports});
        namespace.create(&kinds::service(), json!({"metadata": {"name": "engines"}, "spec": spec})).await;
        let asleep = Self { chat, kubelet };
        asleep.create_stand_in("stand-in", arguments).await;
        asleep.open("stand-in", true).await;
        asleep.is_routed(&chain.router).await;
        asleep
    }

    /// Waits until the router sends requests to the stand-in: it learns of the pod a moment later.
    async fn is_routed(&self, router: &Router) {
        let held = async || {
            let requests = self.send(router, 1);
            let held = async {
                while self.metric("stand-in", HELD).await != Some(1) {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let is_held = timeout(Duration::from_secs(1), held).await.is_ok();
            requests.iter().for_each(JoinHandle::abort);
            is_held
        };
        until_asked("the router sends requests to the stand-in", held, |is_held| *is_held).await;
        self.holds("stand-in", 0).await;
    }

    async fn create_stand_in(&self, name: &str, arguments: &[&str]) {
        let namespace = &self.chat.serving.namespace;
        let engines = format!("--engines=engines.{}.svc", namespace.name);
        let mut args = vec!["hold".to_owned(), format!("--port={}", self.kubelet.port), engines];
        args.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let spec = json!({
            "containers": [{"name": "stand-in", "image": "kthena-keda", "args": args}],
            "readinessGates": [{"conditionType": GATE}],
        });
        let labels = json!({"modelserving.volcano.sh/name": "chat", STAND_IN: "true"});
        namespace
            .create(&kinds::pod(), json!({"metadata": {"name": name, "labels": labels}, "spec": spec}))
            .await;
    }

    /// Sets the readiness gate, as the operator does, and waits until the pod's readiness follows.
    async fn open(&self, name: &str, is_open: bool) {
        let api = self.chat.serving.namespace.api(&kinds::pod());
        let status = if is_open { "True" } else { "False" };
        let condition = json!({"type": GATE, "status": status, "lastTransitionTime": null});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        api.patch_status(name, &PatchParams::default(), &patch).await.expect("a patch");
        until(&api, name, &format!("has Ready={status}"), |found| {
            let conditions = found.and_then(|found| found.data["status"]["conditions"].as_array());
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == status)
        })
        .await;
    }

    async fn scale(&self, replicas: i32) {
        self.chat.serving.patch(json!({"spec": {"replicas": replicas}})).await;
    }

    /// Waits until the stand-in of this name holds this number of requests.
    async fn holds(&self, name: &str, requests: u64) {
        let found = async || self.metric(name, HELD).await;
        let expected = Some(requests);
        until_asked(&format!("{name} holds {requests} requests"), found, |held| *held == expected).await;
    }

    async fn metric(&self, name: &str, series: &str) -> Option<u64> {
        scrape(&self.chat.serving.namespace, name, METRICS, series).await
    }

    /// Requests that the engine of this ServingGroup began to answer.
    async fn begun(&self, group: u32) -> Option<u64> {
        let pod = format!("chat-{group}-engine-0-0");
        scrape(&self.chat.serving.namespace, &pod, self.kubelet.port, FIRST_TOKENS).await
    }

    /// Sends this number of requests, every second of which streams.
    fn send(&self, router: &Router, count: usize) -> Requests {
        self.send_of(router, count, 3)
    }

    /// [`Self::send`] with answers that take a minute.
    fn send_long(&self, router: &Router, count: usize) -> Requests {
        self.send_of(router, count, 6000)
    }

    fn send_of(&self, router: &Router, count: usize, tokens: u32) -> Requests {
        send(router, &self.chat.name, count, tokens)
    }

    fn pod(&self, name: &str) -> String {
        format!("{}/{name}", self.chat.serving.namespace.name)
    }
}

/// Sends this number of requests, every second of which streams.
pub fn send(router: &Router, model: &str, count: usize, tokens: u32) -> Requests {
    let request = |i| tokio::spawn(ask(router.url.clone(), body(model, i % 2 == 0, tokens)));
    (0..count).map(request).collect()
}

/// Selection of all pods of the model, the stand-in included.
fn selector() -> Value {
    let labels = json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": null});
    json!({"workloadSelector": {"matchLabels": labels}})
}

/// Requests of a model in flight, as the router counts them.
async fn in_flight(router: &Router, model: &str) -> u64 {
    let (_, text) = harness::web::get(&format!("{}/metrics", router.url)).await.expect("metrics");
    let series = format!("kthena_router_active_downstream_requests{{model=\"{model}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

pub type Requests = Vec<JoinHandle<Answer>>;

/// Waits for all answers.
pub async fn answers(requests: Requests) -> Vec<Answer> {
    join_all(requests).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

/// Waits for all answers, each of which must be complete; returns their number.
async fn complete(requests: Requests) -> usize {
    let answers = answers(requests).await;
    for answer in &answers {
        assert!(answer.status == Some(StatusCode::OK) && answer.is_complete(), "{answer:?}");
    }
    answers.len()
}

#[tokio::test]
async fn the_router_sends_a_sleeping_models_requests_to_its_stand_in() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "asleep", &[]).await;
    let requests = asleep.send(&chain.router, 50);
    asleep.holds("stand-in", 50).await;
    assert_eq!(in_flight(&chain.router, &asleep.chat.name).await, 50);
    asleep.scale(1).await;
    let pods = asleep.chat.serving.namespace.api(&kinds::pod());
    until(&pods, "chat-0-engine-0-0", "is ready", |found| found.is_some_and(is_ready)).await;
    let ready = Instant::now();
    let answers = answers(requests).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_complete()).count(), 50);
    assert_eq!(asleep.metric("stand-in", HANDED_OVER).await, Some(50));
    let last = answers.iter().filter_map(|answer| answer.first_token).max().expect("a token");
    eprintln!("last first token {:?} after readiness", last.saturating_duration_since(ready));
}

/// Trap of the router: any answer but 2xx leads to the next pod of a list that it made at arrival, and then to 404.
#[tokio::test]
async fn a_refusal_of_the_stand_in_is_404_for_the_client() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "full", &["--max-requests=1"]).await;
    let held = asleep.send(&chain.router, 1);
    asleep.holds("stand-in", 1).await;
    let [refused] = answers(asleep.send(&chain.router, 1)).await.try_into().expect("one answer");
    assert_eq!(refused.status, Some(StatusCode::NOT_FOUND), "{refused:?}");
    assert!(refused.text.contains("request to all pods failed"), "{refused:?}");
    let series = r#"kthena_keda_hold_refused_total{cause="requests"}"#;
    assert_eq!(asleep.metric("stand-in", series).await, Some(1));
    asleep.scale(1).await;
    assert_eq!(complete(held).await, 1);
}

/// Trap of the router: beside an engine, a stand-in that is ready gets its share.
#[tokio::test]
async fn a_stand_in_beside_a_ready_engine_forwards_and_then_gets_nothing() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "beside", &[]).await;
    let first = asleep.send(&chain.router, 1);
    asleep.holds("stand-in", 1).await;
    asleep.scale(1).await;
    assert_eq!(complete(first).await, 1);
    let handed_over = async || asleep.metric("stand-in", HANDED_OVER).await.unwrap_or_default();
    // The router learns of the engine a moment later than the stand-in.
    let shared = async || {
        assert_eq!(complete(asleep.send(&chain.router, 10)).await, 10);
        handed_over().await
    };
    until_asked("the stand-in has forwarded a share", shared, |count| *count > 3).await;
    asleep.open("stand-in", false).await;
    let engine_only = async || {
        let before = handed_over().await;
        assert_eq!(complete(asleep.send(&chain.router, 20)).await, 20);
        handed_over().await - before
    };
    until_asked("requests go straight to the engine", engine_only, |count| *count == 0).await;
    assert_eq!(engine_only().await, 0);
}

/// Trap of the router: separate pods for prefill and decode.
#[tokio::test]
async fn a_stand_in_is_no_endpoint_of_separate_prefill_and_decode() {
    let Some(chain) = chain().await else { return };
    // A request that is sent before the router sees the change is held.
    let asleep = Asleep::start(chain, "separate", &["--timeout=2s"]).await;
    let group = json!({
        "groupKey": "modelserving.volcano.sh/group-name",
        "prefillLabels": {"modelserving.volcano.sh/role": "prefill"},
        "decodeLabels": {"modelserving.volcano.sh/role": "decode"},
    });
    let namespace = &asleep.chat.serving.namespace;
    namespace.edit_model_server("chat", json!({"workloadSelector": {"pdGroup": group}})).await;
    let refused = async || answers(asleep.send(&chain.router, 1)).await.remove(0).status;
    until_asked("the router finds no decode pod", refused, |status| *status == Some(StatusCode::BAD_REQUEST))
        .await;
}

#[tokio::test]
async fn requests_of_two_routers_are_held_and_one_router_may_restart() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "two-routers", &[]).await;
    let client = asleep.chat.client().clone();
    let mut second = Router::start(&chain.stack.control_plane, &client, "kthena-router-held").await;
    let route = async || in_flight(&second, &asleep.chat.name).await;
    let first_requests = asleep.send(&chain.router, 10);
    asleep.holds("stand-in", 10).await;
    let lost = loop {
        // A router that has just started does not know the stand-in yet, and answers 404.
        let requests = asleep.send(&second, 5);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if route().await == 5 {
            break requests;
        }
        answers(requests).await;
    };
    asleep.holds("stand-in", 15).await;
    second.program.kill();
    // Its clients have left, and so have their requests.
    assert!(answers(lost).await.iter().all(|answer| !answer.is_complete()));
    asleep.holds("stand-in", 10).await;
    second.program.start();
    second.ready().await;
    asleep.scale(1).await;
    assert_eq!(complete(first_requests).await, 10);
    assert_eq!(asleep.metric("stand-in", HANDED_OVER).await, Some(10));
    second.remove(&client).await;
}

#[tokio::test]
async fn a_bounded_queue_of_the_router_does_not_block_the_hand_over() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "fair", &[]).await;
    let router = queueing_router(chain, &asleep.chat, "kthena-router-bounded").await;
    let probe = async || {
        let requests = asleep.send(&router, 17);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (in_flight(&router, &asleep.chat.name).await, requests)
    };
    let requests = loop {
        let (count, requests) = probe().await;
        if count == 17 {
            break requests;
        }
        answers(requests).await;
    };
    // The router forwards five at a time; the others wait in its queue.
    asleep.holds("stand-in", 5).await;
    asleep.scale(1).await;
    assert_eq!(complete(requests).await, 17);
}

#[tokio::test]
async fn an_engine_that_dies_during_the_hand_over_gets_no_request_twice() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "dies", &[]).await;
    let requests = asleep.send_long(&chain.router, 20);
    asleep.holds("stand-in", 20).await;
    asleep.scale(1).await;
    let handed_over = async || asleep.metric("stand-in", HANDED_OVER).await;
    until_asked("all are handed over", handed_over, |count| *count == Some(20)).await;
    until_asked("the engine answers all", async || asleep.begun(0).await, |count| *count == Some(20)).await;
    assert_eq!(asleep.kubelet.kill_engines(&asleep.pod("chat-")), 1);
    // Later requests wait for the next engine.
    let later = asleep.send(&chain.router, 5);
    asleep.holds("stand-in", 5).await;
    asleep.scale(2).await;
    assert_eq!(complete(later).await, 5);
    assert_eq!(asleep.metric("stand-in", HANDED_OVER).await, Some(25));
    // The dead engine may have processed the others.
    assert_eq!(asleep.begun(1).await, Some(5));
    assert!(answers(requests).await.iter().all(|answer| !answer.is_complete()));
}

#[tokio::test]
async fn a_stand_in_that_is_killed_loses_what_it_holds_and_holds_again() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "killed", &[]).await;
    let lost = asleep.send(&chain.router, 10);
    asleep.holds("stand-in", 10).await;
    asleep.kubelet.signal(&asleep.pod("stand-in"), "KILL");
    assert!(answers(lost).await.iter().all(|answer| !answer.is_complete()));
    asleep.holds("stand-in", 0).await;
    let again = loop {
        let requests = asleep.send(&chain.router, 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if in_flight(&chain.router, &asleep.chat.name).await == 10 {
            break requests;
        }
        answers(requests).await;
    };
    asleep.scale(1).await;
    assert_eq!(complete(again).await, 10);
    assert_eq!(asleep.metric("stand-in", HANDED_OVER).await, Some(10));
}

#[tokio::test]
async fn a_stand_in_that_is_deleted_hands_over_what_it_holds() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "deleted", &[]).await;
    // Answers of five seconds, which is longer than it accepts connections after the signal.
    let requests = asleep.send_of(&chain.router, 30, 500);
    asleep.holds("stand-in", 30).await;
    asleep.scale(1).await;
    let (pods, namespace) = (kinds::pod(), &asleep.chat.serving.namespace);
    until(&namespace.api(&pods), "chat-0-engine-0-0", "is ready", |found| found.is_some_and(is_ready)).await;
    namespace.api(&pods).delete("stand-in", &DeleteParams::default()).await.expect("a deletion");
    assert_eq!(complete(requests).await, 30);
    until(&namespace.api(&pods), "stand-in", "is gone", |found| found.is_none()).await;
}
