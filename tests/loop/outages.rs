//! Outages of each component: missing data never scales a model in, and scaling resumes without a restart of
//! the operator.
//!
//! The tests stop components of one shared chain, one test at a time.

use std::time::Duration;

use engine::Load;
use harness::{Chain, ChainSettings, Model, chain::can_run, kinds, neighbours::Router};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject},
};
use serde_json::json;
use tokio::sync::Mutex;

use super::shared::{BINARY, agree, event};

/// Longer than the scale-down window and a few polls of every component, so that a component that mistakes
/// missing data for no load has acted.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

static CHAIN: Mutex<Option<Chain>> = Mutex::const_new(None);

/// The chain with one model that load has scaled to three ServingGroups. After a failed test, the next one
/// starts a new chain.
struct Fixture {
    chain: Chain,
    chat: Model,
    load: Load,
}

async fn with_three_replicas<F: AsyncFnOnce(&mut Fixture)>(name: &str, test: F) {
    if !can_run() {
        return;
    }
    let mut slot = CHAIN.lock().await;
    let chain = match slot.take() {
        Some(chain) => chain,
        None => Chain::start(&settings()).await,
    };
    let chat = chain.model(name).await;
    chat.serves(&chain).await;
    let load = chain.load(&chat);
    load.hold(27);
    chat.has_replicas(3).await;
    let mut fixture = Fixture { chain, chat, load };
    test(&mut fixture).await;
    let Fixture { chain, chat, load: _ } = fixture;
    chat.serving.delete().await;
    *slot = Some(chain);
}

/// The quick settings with a scale-down window of a few scrapes and polls.
fn settings() -> ChainSettings {
    let mut settings = ChainSettings::quick(BINARY);
    settings.profile = with_window(&settings.profile, "5s");
    settings
}

fn with_window(profile: &str, window: &str) -> String {
    profile.replace("stabilizationWindow: 2s", &format!("stabilizationWindow: {window}"))
}

impl Fixture {
    /// Switches the model to a profile with this name and scale-down window, and waits until the HPA has the
    /// window.
    async fn use_profile(&self, name: &str, window: &str) {
        let profile = ChainSettings::quick(BINARY).profile.replace("name: default", &format!("name: {name}"));
        let profile = serde_saphyr::from_str(&with_window(&profile, window)).unwrap();
        harness::objects::apply(self.chat.client(), profile).await;
        self.chat.serving.annotate(&[("autoscaling.kthena.io/profile", Some(name))]).await;
        let seconds: i64 = window.trim_end_matches('s').parse().unwrap();
        let has_window = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| {
                found.data.pointer("/spec/behavior/scaleDown/stabilizationWindowSeconds")
                    == Some(&json!(seconds))
            })
        };
        harness::wait::until(
            &self.chat.hpas(),
            "keda-hpa-chat",
            &format!("has the window {window}"),
            has_window,
        )
        .await;
    }

    /// Removes the load while no component can see it, and checks that three replicas stay.
    async fn keeps_replicas_without_load(&self) {
        self.load.hold(0);
        self.chat.keda_says("Ready", "False").await;
        self.chat.keeps_replicas(3, LONG_ENOUGH).await;
    }
}

#[tokio::test]
async fn keeps_replicas_while_prometheus_is_down() {
    with_three_replicas("no-prometheus", async |fixture| {
        fixture.chain.prometheus.server.kill();
        fixture.keeps_replicas_without_load().await;
        let message = fixture.chat.serving.says("ScaledObjectNotReady", "KEDA reports TriggerError").await;
        assert!(
            message.contains("replicas stay as they are") && message.contains("also reported: HpaNotScaling"),
            "{message}"
        );
        fixture.chain.prometheus.server.start();
        fixture.chat.has_replicas(1).await;
        fixture
            .chat
            .serving
            .until("is ready again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
    })
    .await;
}

/// As with a KEDA chart that grants too few permissions.
#[tokio::test]
async fn reports_that_keda_has_no_permission_to_scale() {
    with_three_replicas("no-right", async |fixture| {
        let client = fixture.chat.client().clone();
        let kind = harness::stack::resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles");
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let mut role = all.get("keda-operator").await.unwrap();
        role.metadata.managed_fields = None;
        let original = role.clone();
        let rules = role.data["rules"].as_array_mut().unwrap();
        rules.retain(|rule| rule["resources"] != json!(["*/scale"]) && rule["resources"] != json!(["*"]));
        all.replace("keda-operator", &kube::api::PostParams::default(), &role).await.unwrap();
        let message = fixture.chat.serving.says("ScaledObjectNotReady", "is forbidden").await;
        assert!(message.contains("get and update on modelservings/scale"), "{message}");
        agree(&fixture.chain, &fixture.chat, "ScaledObjectNotReady", Some("ScaledObject")).await;
        event(&fixture.chat, "Warning", "ScaledObjectNotReady", "is forbidden").await;
        let restored = DynamicObject {
            metadata: kube::api::ObjectMeta { resource_version: None, ..original.metadata },
            ..original
        };
        all.replace("keda-operator", &kube::api::PostParams::default(), &restored).await.unwrap();
        fixture
            .chat
            .serving
            .until("is ready again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn keeps_replicas_while_prometheus_restarts_without_data() {
    with_three_replicas("empty-prometheus", async |fixture| {
        fixture.chain.prometheus.server.kill();
        fixture.chain.prometheus.forget();
        fixture.chain.prometheus.server.start();
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        fixture.load.hold(47);
        fixture.chat.has_replicas(5).await;
    })
    .await;
}

#[tokio::test]
async fn keeps_replicas_while_the_router_is_not_scraped() {
    with_three_replicas("not-scraped", async |fixture| {
        // The operator would restore its monitor at once, so it is stopped, too.
        fixture.chain.operator = None;
        let monitors: Api<DynamicObject> =
            Api::namespaced_with(fixture.chat.client().clone(), "kthena-system", &kinds::service_monitor());
        monitors.delete("kthena-keda-router", &DeleteParams::default()).await.unwrap();
        // Until Prometheus has reloaded its configuration, it would see the load end.
        fixture.chat.keda_says("Ready", "False").await;
        fixture.keeps_replicas_without_load().await;
        fixture.chain.start_operator();
        fixture.chat.has_replicas(1).await;
        // The same with a running operator, which reports the problem.
        fixture.chain.create_monitors(json!(false)).await;
        let message = fixture
            .chat
            .serving
            .says("RouterNotScraped", "the ServiceMonitor kthena-system/kthena-keda-router")
            .await;
        assert!(message.contains("serviceMonitorSelector"), "{message}");
        agree(&fixture.chain, &fixture.chat, "RouterNotScraped", Some("scraping")).await;
        event(&fixture.chat, "Warning", "RouterNotScraped", "serviceMonitorSelector").await;
        fixture.chain.create_monitors(json!(true)).await;
        fixture.chat.serving.says("Idle", "").await;
    })
    .await;
}

#[tokio::test]
async fn keeps_replicas_while_the_router_restarts() {
    with_three_replicas("router-restarts", async |fixture| {
        fixture.chain.router.program.kill();
        fixture.chat.keda_says("Ready", "False").await;
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        // Its gauges start at 0 and clients reconnect a moment later; the scale-down window covers that time.
        fixture.use_profile("patient", "30s").await;
        fixture.chain.router.program.start();
        fixture.chain.router.ready().await;
        fixture.chat.serves(&fixture.chain).await;
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        fixture.use_profile("default", "5s").await;
        fixture.load.hold(0);
        fixture.chat.has_replicas(1).await;
    })
    .await;
}

#[tokio::test]
async fn keeps_replicas_while_keda_is_down() {
    with_three_replicas("no-keda", async |fixture| {
        fixture.chain.keda.operator.kill();
        fixture.load.hold(0);
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        fixture.chain.keda.operator.start();
        fixture.chat.has_replicas(1).await;
    })
    .await;
}

#[tokio::test]
async fn scaling_continues_without_the_operator() {
    with_three_replicas("no-operator", async |fixture| {
        fixture.chain.operator = None;
        fixture.load.hold(47);
        fixture.chat.has_replicas(5).await;
        fixture.load.hold(0);
        fixture.chat.has_replicas(1).await;
        fixture.chain.start_operator();
        fixture.chat.keeps_replicas(1, LONG_ENOUGH).await;
    })
    .await;
}

/// KEDA's operator runs; the metrics API that the HPA queries is down.
#[tokio::test]
async fn keeps_replicas_while_the_metrics_adapter_is_down() {
    with_three_replicas("no-adapter", async |fixture| {
        fixture.chain.keda.adapter.kill();
        fixture.load.hold(0);
        fixture.chat.serving.says("HpaNotScaling", "external.metrics.k8s.io").await;
        agree(&fixture.chain, &fixture.chat, "HpaNotScaling", Some("HPA")).await;
        event(&fixture.chat, "Warning", "HpaNotScaling", "").await;
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        fixture.chain.keda.adapter.start();
        fixture.chain.keda.ready(fixture.chat.client()).await;
        fixture.chat.has_replicas(1).await;
        fixture
            .chat
            .serving
            .until("is ready again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        event(&fixture.chat, "Normal", "Resolved", "HpaNotScaling is resolved").await;
    })
    .await;
}

/// Pods that are deleted while Kthena's controller is down leave a stale `status.replicas` behind.
#[tokio::test]
async fn reports_a_stale_status_for_value_metrics_only() {
    with_three_replicas("mismatch", async |fixture| {
        let level = json!([{"name": "level", "query": "vector(10)", "target": "10", "metricType": "Value"}]);
        let mut profile: serde_json::Value = serde_saphyr::from_str(&settings().profile).unwrap();
        profile["metadata"]["name"] = json!("levels");
        profile["spec"]["customSignals"] = level;
        harness::objects::apply(fixture.chat.client(), profile).await;
        fixture.chat.serving.annotate(&[("autoscaling.kthena.io/profile", Some("levels"))]).await;
        fixture
            .chat
            .serving
            .until("is ready", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        fixture.chain.kthena.controller.kill();
        let selector =
            fixture.chat.serving.get().await.data["status"]["labelSelector"].as_str().unwrap().to_owned();
        let pods = fixture.chat.serving.namespace.api(&kinds::pod());
        let pod =
            pods.list(&kube::api::ListParams::default().labels(&selector)).await.unwrap().items.remove(0);
        pods.delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
        fixture
            .chat
            .serving
            .within(Duration::from_mins(1))
            .says("SelectorMismatch", "matches fewer pods than status.replicas")
            .await;
        agree(&fixture.chain, &fixture.chat, "SelectorMismatch", Some("selector")).await;
        event(&fixture.chat, "Warning", "SelectorMismatch", "restart Kthena's controller manager").await;
        // Without a Value metric the HPA does not multiply by the number of pods.
        fixture.chat.serving.annotate(&[("autoscaling.kthena.io/profile", None)]).await;
        fixture
            .chat
            .serving
            .until("is ready", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        fixture.chain.kthena.controller.start();
        fixture.chat.has_replicas(3).await;
    })
    .await;
}

/// Kthena before 1.0 leaves the selector empty, and the HPA does not scale without it.
#[tokio::test]
async fn fills_an_empty_selector_so_that_scaling_continues() {
    with_three_replicas("no-selector", async |fixture| {
        let selector =
            fixture.chat.serving.get().await.data["status"]["labelSelector"].as_str().unwrap().to_owned();
        fixture.chain.kthena.controller.kill();
        fixture.chain.operator = None;
        fixture.chat.serving.patch_status("other-manager", json!({"labelSelector": ""})).await.unwrap();
        fixture.chat.hpa_says("ScalingActive", "InvalidSelector").await;
        fixture.chain.start_operator();
        fixture.chat.serving.selector(&selector).await;
        fixture.load.hold(47);
        fixture
            .chat
            .serving
            .until("wants 5 ServingGroups", |found| found.data["spec"]["replicas"] == 5)
            .await;
        fixture.chain.kthena.controller.start();
        fixture.chat.has_replicas(5).await;
    })
    .await;
}

#[tokio::test]
async fn counts_a_router_once_that_is_scraped_twice() {
    with_three_replicas("scraped-twice", async |fixture| {
        fixture.chain.operator = None;
        let always = fixture.chain.operator_settings.clone().with("--create-monitors=always");
        let default_settings = std::mem::replace(&mut fixture.chain.operator_settings, always);
        fixture.chain.start_operator();
        let selector = json!({"matchLabels": {"app.kubernetes.io/component": "kthena-router"}});
        let endpoints = json!([{"port": "http", "interval": "1s"}]);
        let foreign = json!({"metadata": {"name": "theirs"}, "spec": {"selector": selector, "endpoints": endpoints, "jobLabel": "app.kubernetes.io/name"}});
        let router = fixture.chat.serving.namespace.elsewhere("kthena-system");
        router.create(&kinds::service_monitor(), foreign).await;
        let series = format!("count(kthena_router_active_downstream_requests{{model={:?}}})", fixture.chat.name);
        fixture.chain.prometheus.until(&series, |count| count == Some(2.0)).await;
        fixture.chat.keeps_replicas(3, LONG_ENOUGH).await;
        router.api(&kinds::service_monitor()).delete("theirs", &DeleteParams::default()).await.unwrap();
        // The last samples of a deleted monitor remain for a while and would look like a scraped router.
        fixture.chain.prometheus.until("max(up{job=\"networking\"})", |up| up.is_none()).await;
        fixture.chain.operator = None;
        fixture.chain.operator_settings = default_settings;
        fixture.chain.start_operator();
    })
    .await;
}

#[tokio::test]
async fn adds_up_the_load_of_two_routers() {
    with_three_replicas("two-routers", async |fixture| {
        let client = fixture.chat.client().clone();
        let second = Router::start(&fixture.chain.stack.control_plane, &client, "kthena-router-1").await;
        let load = Load::start(engine::LoadSettings {
            router: second.url.clone(),
            model: fixture.chat.name.clone(),
            tokens: 3000,
            most_requests: 1000,
        });
        load.hold(20);
        fixture.chat.has_replicas(5).await;
        fixture.chat.keeps_replicas(5, LONG_ENOUGH).await;
        drop(load);
        second.remove(&client).await;
        fixture.chat.has_replicas(3).await;
    })
    .await;
}
