//! Stand-in pods on the real router: it takes them for engines, and what they hold reaches the engines.

use engine::EngineSettings;
use harness::{
    Chain, Model, kinds,
    neighbours::{Dns, Kubelet, Router, STAND_IN},
    wait::{until, until_asked},
};
use http::StatusCode;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    client::{Answer, ask, body},
    shared::{BINARY, chain},
};

/// Condition of the readiness gate.
const GATE: &str = "autoscaling.kthena.io/takes-requests";

/// The name server and the containers of the shared chain.
pub async fn kubelet(chain: &Chain) -> &'static Kubelet {
    static RUNNING: OnceCell<(Dns, Kubelet)> = OnceCell::const_new();
    let start = async || {
        let control_plane = &chain.stack.control_plane;
        let dns = Dns::start(control_plane).await;
        let settings = EngineSettings { concurrency: 100, ..EngineSettings::default() };
        let kubelet = Kubelet::start(control_plane, BINARY.as_ref(), &dns, settings).await;
        (dns, kubelet)
    };
    &RUNNING.get_or_init(start).await.1
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
        asleep
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
    async fn holds(&self, name: &str, requests: u32) {
        let series = "kthena_keda_hold_requests";
        let found = async || self.metric(name, series).await;
        let expected = Some(f64::from(requests));
        until_asked(&format!("{name} holds {requests} requests"), found, |held| *held == expected).await;
    }

    async fn metric(&self, name: &str, series: &str) -> Option<f64> {
        let api = self.chat.serving.namespace.api(&kinds::pod());
        let pod = api.get(name).await.ok()?;
        let address = pod.data["status"]["podIP"].as_str()?.to_owned();
        let (_, text) = harness::web::get(&format!("http://{address}:8081/metrics")).await?;
        text.lines().find_map(|line| line.strip_prefix(&format!("{series} "))?.parse().ok())
    }

    /// Sends this number of requests, every second of which streams.
    fn send(&self, router: &Router, count: usize) -> Vec<tokio::task::JoinHandle<Answer>> {
        let (url, model) = (router.url.clone(), self.chat.name.clone());
        (0..count).map(|i| tokio::spawn(ask(url.clone(), body(&model, i % 2 == 0, 3)))).collect()
    }
}

/// Selection of all pods of the model, the stand-in included.
fn selector() -> Value {
    let labels = json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": null});
    json!({"workloadSelector": {"matchLabels": labels}})
}

/// Requests of a model in flight, as the router counts them.
async fn in_flight(router: &Router, model: &str) -> f64 {
    let (_, text) = harness::web::get(&format!("{}/metrics", router.url)).await.expect("metrics");
    let series = format!("kthena_router_active_downstream_requests{{model=\"{model}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

/// Waits for all answers; returns the number of complete ones.
async fn complete(requests: Vec<tokio::task::JoinHandle<Answer>>) -> usize {
    let mut complete = 0;
    for request in requests {
        let answer = request.await.expect("an answer");
        assert_eq!(answer.status, Some(StatusCode::OK), "{answer:?}");
        complete += usize::from(answer.is_complete());
    }
    complete
}

#[tokio::test]
async fn the_router_sends_a_sleeping_models_requests_to_its_stand_in() {
    let Some(chain) = chain().await else { return };
    let asleep = Asleep::start(chain, "asleep", &[]).await;
    let requests = asleep.send(&chain.router, 50);
    asleep.holds("stand-in", 50).await;
    assert_eq!(in_flight(&chain.router, &asleep.chat.name).await, 50.0);
    asleep.scale(1).await;
    assert_eq!(complete(requests).await, 50);
    assert_eq!(asleep.metric("stand-in", "kthena_keda_hold_handed_over_total").await, Some(50.0));
}
