//! The ServiceMonitor of the router, one for all models. Each test has its own cluster, because a cluster has
//! one router.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use harness::{
    Crds, ModelServing, Namespace, Process, Settings, Stack, kinds, neighbours::Prometheus, owned::owned,
    wait,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::shared::BINARY;

const NAME: &str = "kthena-keda-router";
const COMPONENT: &str = "app.kubernetes.io/component";

/// A cluster with the operator, one opted-in model, and the namespace of the router.
struct Cluster {
    stack: Stack,
    operator: Option<Process>,
    router: Namespace,
    chat: ModelServing,
}

impl Cluster {
    async fn start(settings: &Settings) -> Self {
        let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
        let models = stack.namespace().await;
        let chat = models.model_serving("chat").opts_in().create().await;
        let operator = Some(stack.start_operator(settings));
        let router = models.elsewhere("kthena-system");
        Self { stack, operator, router, chat }
    }

    fn stop_operator(&mut self) {
        assert!(self.operator.take().unwrap().terminate());
    }

    fn start_operator(&mut self, settings: &Settings) {
        self.operator = Some(self.stack.start_operator(settings));
    }

    async fn service(&self, name: &str, component: &str, port: &str) {
        let content = json!({
            "metadata": {"name": name, "labels": {COMPONENT: component}},
            "spec": {"selector": {COMPONENT: "kthena-router"}, "ports": [{"name": port, "port": 80, "targetPort": 8080}]},
        });
        self.router.create(&kinds::service(), content).await;
    }

    fn monitors(&self) -> Api<DynamicObject> {
        self.router.api(&kinds::service_monitor())
    }

    async fn monitor_until(&self, what: &str, done: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        wait::until(&self.monitors(), NAME, what, |found| found.is_some_and(&done)).await.unwrap()
    }

    async fn monitor(&self) -> DynamicObject {
        self.monitor_until("exists", |_| true).await
    }

    async fn monitor_gone(&self) {
        wait::until(&self.monitors(), NAME, "is gone", |found| found.is_none()).await;
    }

    async fn edit(&self, patch: Value) {
        self.monitors().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the model's query contains `part`.
    async fn query(&self, part: &str) {
        let has = |found: &DynamicObject| query(found).contains(part);
        self.chat.scaled_object_until(&format!("queries {part}"), has).await;
    }
}

fn query(scaled_object: &DynamicObject) -> &str {
    scaled_object.data["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap()
}

fn port(monitor: &DynamicObject) -> &Value {
    &monitor.data["spec"]["endpoints"][0]["port"]
}

#[tokio::test]
async fn follows_the_service_of_the_router_and_matches_the_output_of_render() {
    let arguments = [
        "--monitor-labels=release=kps,team=a",
        "--monitor-interval=10s",
        "--prometheus-url=http://prometheus:9090",
    ];
    let settings =
        arguments.iter().fold(Settings::new(BINARY).without("--prometheus-url"), |settings, argument| {
            settings.with(argument)
        });
    let mut cluster = Cluster::start(&settings).await;
    // Without a Service there is no monitor, but the model still gets its ScaledObject.
    cluster.query(r#"service="kthena-router""#).await;
    cluster.service("kthena-router", "kthena-router", "http").await;
    let monitor = cluster.monitor().await;
    assert_eq!(
        (port(&monitor), &monitor.data["spec"]["endpoints"][0]["interval"]),
        (&json!("http"), &json!("10s"))
    );
    assert_eq!((monitor.labels()["release"].as_str(), monitor.labels()["team"].as_str()), ("kps", "a"));

    // The operator restores an edited or deleted monitor, and keeps labels of other writers.
    cluster.edit(json!({"metadata": {"labels": {"release": "other", "theirs": "x"}}})).await;
    cluster
        .monitor_until("has its label again", |found| {
            found.labels()["release"] == "kps" && found.labels()["theirs"] == "x"
        })
        .await;
    cluster.edit(json!({"spec": {"endpoints": [{"port": "http", "relabelings": [{"action": "labeldrop", "regex": "pod"}]}]}})).await;
    cluster
        .monitor_until("has its endpoint again", |found| {
            found.data["spec"]["endpoints"][0].get("relabelings").is_none()
        })
        .await;
    cluster.edit(json!({"spec": {"sampleLimit": 1, "targetLabels": ["team"]}})).await;
    cluster
        .monitor_until("has no added field", |found| {
            found.data["spec"].get("sampleLimit").or_else(|| found.data["spec"].get("targetLabels")).is_none()
        })
        .await;
    cluster.monitors().delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.monitor_until("is a new one", |found| found.uid() != monitor.uid()).await;

    // Kthena is upgraded to a release with a separate metrics port.
    cluster.service("kthena-router-metrics", "kthena-router-metrics", "metrics").await;
    cluster.monitor_until("scrapes the metrics port", |found| port(found) == "metrics").await;
    cluster.query(r#"service="kthena-router-metrics""#).await;

    // For the objects on the API server, `render` prints exactly the fields that the operator owns.
    let mut live = vec![cluster.monitor().await, cluster.chat.scaled_object().await];
    let input = render_input(&cluster).await;
    let mut rendered = render(&input, &arguments);
    assert_eq!(rendered.len(), live.len());
    for (rendered, live) in rendered.drain(..).zip(live.drain(..)) {
        assert_eq!(rendered, owned(&live, "kthena-keda"));
    }

    // A restart writes nothing.
    cluster.stop_operator();
    // The audit log is complete only after the operator has ended.
    let before = cluster.stack.writes().len();
    cluster.start_operator(&settings);
    let sentinel = cluster.chat.namespace.model_serving("sentinel").opted_in("sentinel").create().await;
    sentinel.scaled_object().await;
    let writes = cluster.stack.writes().split_off(before);
    assert!(
        writes.iter().all(|write| write.object_ref.name == "sentinel"),
        "{:?}",
        harness::audit::summary(&writes)
    );

    // The monitor is deleted after the last model has opted out.
    sentinel.annotate(&[("kthena.io/model-name", None)]).await;
    sentinel.scaled_object_gone().await;
    let monitors = cluster.stack.client().await;
    let monitors: Api<DynamicObject> =
        Api::namespaced_with(monitors, "kthena-system", &kinds::service_monitor());
    assert!(monitors.get_opt(NAME).await.unwrap().is_some());
    cluster.chat.annotate(&[("kthena.io/model-name", None)]).await;
    wait::until(&monitors, NAME, "is gone", |found| found.is_none()).await;
    let forbidden: Vec<_> =
        cluster.stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}

/// The objects that `render` reads, in the format of `kubectl get -o json`.
async fn render_input(cluster: &Cluster) -> Value {
    let client = &cluster.chat.namespace.client;
    let mut items = Vec::new();
    for kind in [
        kinds::model_serving(),
        kinds::service(),
        kinds::service_monitor(),
        kinds::pod_monitor(),
        kinds::scaled_object(),
        kinds::profile(),
    ] {
        let list =
            Api::<DynamicObject>::all_with(client.clone(), &kind).list(&ListParams::default()).await.unwrap();
        for mut item in list.items {
            item.types =
                Some(kube::api::TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
            item.metadata.managed_fields = None;
            items.push(item);
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn render(input: &Value, arguments: &[&str]) -> Vec<Value> {
    let mut child = Command::new(BINARY)
        .args(["render", "-", "-o", "json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// Longer than the checks after which an unproven monitor does not count.
const SEVERAL_CHECKS: Duration = Duration::from_secs(6);

fn foreign(name: &str, endpoints: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"namespaceSelector": {"any": true}, "selector": {}, endpoints: [{"port": "http"}]}})
}

#[tokio::test]
async fn yields_to_a_foreign_monitor_that_prometheus_uses() {
    let mut cluster = Cluster::start(&Settings::new(BINARY)).await;
    cluster.chat.scaled_object().await;
    cluster.stop_operator();
    let labels = json!({"job": "kthena-router", "namespace": "kthena-system", "service": "kthena-router", "pod": "router-0"});
    let prometheus = Prometheus::of_itself(&cluster.stack.control_plane.folder, &labels).await;
    let settings = Settings::new(BINARY)
        .without("--prometheus-url")
        .with(&format!("--prometheus-url={}", prometheus.url));
    let theirs = cluster.router.create(&kinds::service_monitor(), foreign("theirs", "endpoints")).await;
    cluster.service("kthena-router", "kthena-router", "http").await;
    cluster.start_operator(&settings);
    sleep(SEVERAL_CHECKS).await;
    assert!(cluster.monitors().get_opt(NAME).await.unwrap().is_none());
    let now = cluster.monitors().get("theirs").await.unwrap();
    assert_eq!(now.resource_version(), theirs.resource_version());
    // A restart has the same answer.
    cluster.stop_operator();
    let before = cluster.stack.writes().len();
    cluster.start_operator(&settings);
    sleep(SEVERAL_CHECKS).await;
    let writes = cluster.stack.writes().split_off(before);
    assert!(writes.is_empty(), "{:?}", harness::audit::summary(&writes));

    // Without it the operator creates its own, which no other monitor removes.
    cluster.monitors().delete("theirs", &DeleteParams::default()).await.unwrap();
    let own = cluster.monitor().await;
    cluster.router.create(&kinds::service_monitor(), foreign("theirs", "endpoints")).await;
    cluster.chat.namespace.create(&kinds::pod_monitor(), foreign("theirs", "podMetricsEndpoints")).await;
    sleep(SEVERAL_CHECKS).await;
    let now = cluster.monitor().await;
    assert_eq!((now.uid(), now.resource_version()), (own.uid(), own.resource_version()));
    cluster.query(r#"service="kthena-router""#).await;

    // `--create-monitors` disables the monitor, or creates it beside a foreign one.
    cluster.stop_operator();
    cluster.start_operator(&settings.clone().with("--create-monitors=false"));
    cluster.monitor_gone().await;
    cluster.stop_operator();
    cluster.start_operator(&settings.with("--create-monitors=always"));
    cluster.monitor().await;
}

/// A Prometheus that does not use the foreign monitor, and one that cannot be asked.
#[tokio::test]
async fn creates_its_monitor_beside_one_that_prometheus_does_not_use() {
    let mut cluster = Cluster::start(&Settings::new(BINARY)).await;
    cluster.chat.namespace.create(&kinds::pod_monitor(), foreign("theirs", "podMetricsEndpoints")).await;
    cluster.service("kthena-router", "kthena-router", "http").await;
    let own = cluster.monitor().await;
    cluster.query(r#"service="kthena-router""#).await;
    cluster.stop_operator();
    cluster.monitors().delete(NAME, &DeleteParams::default()).await.unwrap();
    let prometheus = Prometheus::bare(&cluster.stack.control_plane.folder).await;
    let settings = Settings::new(BINARY).without("--prometheus-url");
    cluster.start_operator(&settings.with(&format!("--prometheus-url={}", prometheus.url)));
    cluster.monitor_until("is a new one", |found| found.uid() != own.uid()).await;
}

#[tokio::test]
async fn never_changes_a_foreign_service_monitor_of_its_name() {
    let cluster = Cluster::start(&Settings::new(BINARY)).await;
    let foreign = json!({"metadata": {"name": NAME}, "spec": {"selector": {"matchLabels": {"app": "other"}}, "endpoints": [{"port": "web"}]}});
    let foreign = cluster.router.create(&kinds::service_monitor(), foreign).await;
    cluster.service("kthena-router", "kthena-router", "http").await;
    wait::until_asked(
        "the operator logs the conflict",
        async || cluster.operator.as_ref().unwrap().log(),
        |log| log.contains("has another owner"),
    )
    .await;
    cluster.chat.annotate(&[("kthena.io/model-name", None)]).await;
    cluster.chat.scaled_object_gone().await;
    assert_eq!(cluster.monitor().await.resource_version(), foreign.resource_version());
    cluster.chat.annotate(&[("kthena.io/model-name", Some(&cluster.chat.namespace.model_name()))]).await;
    cluster.chat.scaled_object().await;
    cluster.monitors().delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster
        .monitor_until("is managed by the operator", |found| {
            found.labels().contains_key("app.kubernetes.io/managed-by")
        })
        .await;
}

#[tokio::test]
async fn follows_the_crds_of_the_prometheus_operator() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let models = stack.namespace().await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    let router = models.elsewhere("kthena-system");
    let content = json!({
        "metadata": {"name": "kthena-router", "labels": {COMPONENT: "kthena-router"}}, "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    router.create(&kinds::service(), content).await;
    for _ in 0..2 {
        Crds::prometheus_operator().install(&models.client).await;
        wait::until(&router.api(&kinds::service_monitor()), NAME, "exists", |found| found.is_some()).await;
        Crds::prometheus_operator().remove(&models.client).await;
    }
}

#[tokio::test]
async fn a_missing_permission_blocks_nothing_else() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    // The operator has no permission in the configured namespace of the router.
    let operator = stack.start_operator(&Settings::new(BINARY).with("--router-namespace=elsewhere"));
    let chat = models.model_serving("chat").opts_in().create().await;
    let found = chat.scaled_object().await;
    assert!(query(&found).contains(r#"namespace="elsewhere""#), "{}", query(&found));
    assert!(operator.log().contains("forbidden"), "{}", operator.log());
}
