//! Whatever breaks, a model is never scaled in for lack of data, and everything is picked up again without a restart of ours.
//!
//! These tests stop parts of one chain, one test after the other.

use std::time::Duration;

use engine::Load;
use harness::{Chain, ChainSettings, Model, kinds, neighbours::Router};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject},
};
use serde_json::json;
use tokio::sync::Mutex;

use super::shared::{BINARY, agree, can_run, event};

/// Longer than the scale-down window and a few polls of everybody: whoever takes no data for no load has acted by then.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

static CHAIN: Mutex<Option<Chain>> = Mutex::const_new(None);

/// The chain, with one model that load has scaled out to three. A test that fails leaves a new chain to the next.
struct Held {
    chain: Chain,
    chat: Model,
    load: Load,
}

async fn with_a_fleet<F: AsyncFnOnce(&mut Held)>(name: &str, test: F) {
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
    let mut held = Held { chain, chat, load };
    test(&mut held).await;
    let Held { chain, chat, load: _ } = held;
    chat.serving.delete().await;
    *slot = Some(chain);
}

/// A window that is a few scrapes and polls long.
fn settings() -> ChainSettings {
    let mut settings = ChainSettings::quick(BINARY);
    settings.profile = with_window(&settings.profile, "5s");
    settings
}

fn with_window(profile: &str, window: &str) -> String {
    profile.replace("stabilizationWindow: 2s", &format!("stabilizationWindow: {window}"))
}

impl Held {
    /// Has the model use the profile of this name, with this scale-down window, and waits until the HPA has it.
    async fn follow_profile(&self, name: &str, window: &str) {
        let profile = ChainSettings::quick(BINARY).profile.replace("name: default", &format!("name: {name}"));
        let profile = serde_saphyr::from_str(&with_window(&profile, window)).unwrap();
        harness::objects::apply(self.chat.client(), profile).await;
        self.chat.serving.annotate(&[("autoscaling.kthena.io/profile", Some(name))]).await;
        let seconds: i64 = window.trim_end_matches('s').parse().unwrap();
        let has = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| {
                found.data.pointer("/spec/behavior/scaleDown/stabilizationWindowSeconds")
                    == Some(&json!(seconds))
            })
        };
        harness::wait::until(&self.chat.hpas(), "keda-hpa-chat", &format!("looks back {window}"), has).await;
    }

    /// With no load at all, and nobody knowing it, three it stays.
    async fn holds_without_load(&self) {
        self.load.hold(0);
        self.chat.keda_says("Ready", "False").await;
        self.chat.keeps_replicas(3, LONG_ENOUGH).await;
    }
}

#[tokio::test]
async fn prometheus_is_down_and_comes_back() {
    with_a_fleet("no-prometheus", async |held| {
        held.chain.prometheus.server.kill();
        held.holds_without_load().await;
        let message = held.chat.serving.says("ScaledObjectNotReady", "KEDA says TriggerError").await;
        assert!(
            message.contains("the count stays as it is until it does")
                && message.contains("besides HpaNotScaling"),
            "{message}"
        );
        held.chain.prometheus.server.start();
        held.chat.has_replicas(1).await;
        held.chat
            .serving
            .until("is well again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
    })
    .await;
}

/// What a chart with too few rights for KEDA does.
#[tokio::test]
async fn keda_may_not_scale_model_servings() {
    with_a_fleet("no-right", async |held| {
        let client = held.chat.client().clone();
        let kind = harness::stack::resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles");
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let mut role = all.get("keda-operator").await.unwrap();
        role.metadata.managed_fields = None;
        let whole = role.clone();
        let rules = role.data["rules"].as_array_mut().unwrap();
        rules.retain(|rule| rule["resources"] != json!(["*/scale"]) && rule["resources"] != json!(["*"]));
        all.replace("keda-operator", &kube::api::PostParams::default(), &role).await.unwrap();
        let message = held.chat.serving.says("ScaledObjectNotReady", "is forbidden").await;
        assert!(message.contains("get and update on modelservings/scale"), "{message}");
        agree(&held.chain, &held.chat, "ScaledObjectNotReady", Some("ScaledObject")).await;
        event(&held.chat, "Warning", "ScaledObjectNotReady", "is forbidden").await;
        let back = DynamicObject {
            metadata: kube::api::ObjectMeta { resource_version: None, ..whole.metadata },
            ..whole
        };
        all.replace("keda-operator", &kube::api::PostParams::default(), &back).await.unwrap();
        held.chat
            .serving
            .until("is well again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn prometheus_restarts_empty() {
    with_a_fleet("empty-prometheus", async |held| {
        held.chain.prometheus.server.kill();
        held.chain.prometheus.forget();
        held.chain.prometheus.server.start();
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        held.load.hold(47);
        held.chat.has_replicas(5).await;
    })
    .await;
}

#[tokio::test]
async fn the_router_is_no_longer_scraped() {
    with_a_fleet("not-scraped", async |held| {
        // The operator would put its monitor back at once, so it is away too.
        held.chain.operator = None;
        let monitors: Api<DynamicObject> =
            Api::namespaced_with(held.chat.client().clone(), "kthena-system", &kinds::service_monitor());
        monitors.delete("kthena-keda-router", &DeleteParams::default()).await.unwrap();
        held.holds_without_load().await;
        held.chain.start_operator();
        held.chat.has_replicas(1).await;
        // The same, with the operator there to tell.
        held.chain.create_monitors(json!(false)).await;
        let message = held
            .chat
            .serving
            .says("RouterNotScraped", "the ServiceMonitor kthena-system/kthena-keda-router")
            .await;
        assert!(message.contains("serviceMonitorSelector"), "{message}");
        agree(&held.chain, &held.chat, "RouterNotScraped", Some("scraping")).await;
        event(&held.chat, "Warning", "RouterNotScraped", "serviceMonitorSelector").await;
        held.chain.create_monitors(json!(true)).await;
        held.chat.serving.says("Idle", "").await;
    })
    .await;
}

#[tokio::test]
async fn the_router_restarts() {
    with_a_fleet("router-restarts", async |held| {
        held.chain.router.program.kill();
        held.chat.keda_says("Ready", "False").await;
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        // Its gauges begin at 0, and clients come back a moment later: that is what a scale-down window is for.
        held.follow_profile("patient", "30s").await;
        held.chain.router.program.start();
        held.chain.router.ready().await;
        held.chat.serves(&held.chain).await;
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        held.follow_profile("default", "5s").await;
        held.load.hold(0);
        held.chat.has_replicas(1).await;
    })
    .await;
}

#[tokio::test]
async fn keda_is_killed_and_restarted() {
    with_a_fleet("no-keda", async |held| {
        held.chain.keda.operator.kill();
        held.load.hold(0);
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        held.chain.keda.operator.start();
        held.chat.has_replicas(1).await;
    })
    .await;
}

#[tokio::test]
async fn scaling_goes_on_without_the_operator() {
    with_a_fleet("no-operator", async |held| {
        held.chain.operator = None;
        held.load.hold(47);
        held.chat.has_replicas(5).await;
        held.load.hold(0);
        held.chat.has_replicas(1).await;
        held.chain.start_operator();
        held.chat.keeps_replicas(1, LONG_ENOUGH).await;
    })
    .await;
}

/// KEDA itself is well; what the HPA asks is down.
#[tokio::test]
async fn kedas_metrics_server_is_down_and_comes_back() {
    with_a_fleet("no-adapter", async |held| {
        held.chain.keda.adapter.kill();
        held.load.hold(0);
        held.chat.serving.says("HpaNotScaling", "external.metrics.k8s.io").await;
        agree(&held.chain, &held.chat, "HpaNotScaling", Some("HPA")).await;
        event(&held.chat, "Warning", "HpaNotScaling", "").await;
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        held.chain.keda.adapter.start();
        held.chain.keda.ready(held.chat.client()).await;
        held.chat.has_replicas(1).await;
        held.chat
            .serving
            .until("is well again", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        event(&held.chat, "Normal", "Resolved", "HpaNotScaling is resolved").await;
    })
    .await;
}

/// Pods that go while Kthena's controller is away leave a status behind that says otherwise, for ever.
#[tokio::test]
async fn a_status_that_contradicts_the_pods_matters_where_pods_are_multiplied_by() {
    with_a_fleet("mismatch", async |held| {
        let level = json!([{"name": "level", "query": "vector(10)", "target": "10", "metricType": "Value"}]);
        let mut profile: serde_json::Value = serde_saphyr::from_str(&settings().profile).unwrap();
        profile["metadata"]["name"] = json!("levels");
        profile["spec"]["customSignals"] = level;
        harness::objects::apply(held.chat.client(), profile).await;
        held.chat.serving.annotate(&[("autoscaling.kthena.io/profile", Some("levels"))]).await;
        held.chat
            .serving
            .until("is well", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        held.chain.kthena.controller.kill();
        let selector =
            held.chat.serving.get().await.data["status"]["labelSelector"].as_str().unwrap().to_owned();
        let pods = held.chat.serving.namespace.api(&kinds::pod());
        let one =
            pods.list(&kube::api::ListParams::default().labels(&selector)).await.unwrap().items.remove(0);
        pods.delete(one.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
        held.chat
            .serving
            .within(Duration::from_mins(1))
            .says("SelectorMismatch", "matches 2 pods and status.replicas says 3")
            .await;
        agree(&held.chain, &held.chat, "SelectorMismatch", Some("selector")).await;
        event(&held.chat, "Warning", "SelectorMismatch", "restart Kthena's controller manager").await;
        // Without a level nobody multiplies by pods.
        held.chat.serving.annotate(&[("autoscaling.kthena.io/profile", None)]).await;
        held.chat
            .serving
            .until("is well", |found| {
                harness::condition(found).is_some_and(|found| found["status"] == "True")
            })
            .await;
        held.chain.kthena.controller.start();
        held.chat.has_replicas(3).await;
    })
    .await;
}

/// What Kthena does before 1.0: nobody fills the selector, and the HPA does nothing at all without it.
#[tokio::test]
async fn an_empty_selector_is_filled_and_scaling_goes_on() {
    with_a_fleet("no-selector", async |held| {
        let selector =
            held.chat.serving.get().await.data["status"]["labelSelector"].as_str().unwrap().to_owned();
        held.chain.kthena.controller.kill();
        held.chain.operator = None;
        held.chat.serving.patch_status("somebody", json!({"labelSelector": ""})).await.unwrap();
        held.chat.hpa_says("ScalingActive", "InvalidSelector").await;
        held.chain.start_operator();
        held.chat.serving.selector(&selector).await;
        held.load.hold(47);
        held.chat.serving.until("wants 5 ServingGroups", |found| found.data["spec"]["replicas"] == 5).await;
        held.chain.kthena.controller.start();
        held.chat.has_replicas(5).await;
    })
    .await;
}

#[tokio::test]
async fn a_router_that_is_scraped_twice_counts_once() {
    with_a_fleet("scraped-twice", async |held| {
        held.chain.operator = None;
        let always = held.chain.operator_settings.clone().with("--create-monitors=always");
        let usual = std::mem::replace(&mut held.chain.operator_settings, always);
        held.chain.start_operator();
        let selector = json!({"matchLabels": {"app.kubernetes.io/component": "kthena-router"}});
        let endpoints = json!([{"port": "http", "interval": "1s"}]);
        let theirs = json!({"metadata": {"name": "theirs"}, "spec": {"selector": selector, "endpoints": endpoints, "jobLabel": "app.kubernetes.io/name"}});
        let router = held.chat.serving.namespace.elsewhere("kthena-system");
        router.create(&kinds::service_monitor(), theirs).await;
        let twice = format!("count(kthena_router_active_downstream_requests{{model={:?}}})", held.chat.name);
        held.chain.prometheus.until(&twice, |count| count == Some(2.0)).await;
        held.chat.keeps_replicas(3, LONG_ENOUGH).await;
        router.api(&kinds::service_monitor()).delete("theirs", &DeleteParams::default()).await.unwrap();
        // A monitor that is deleted leaves its last samples behind, which would pass for a router that is scraped.
        held.chain.prometheus.until("max(up{job=\"networking\"})", |up| up.is_none()).await;
        held.chain.operator = None;
        held.chain.operator_settings = usual;
        held.chain.start_operator();
    })
    .await;
}

#[tokio::test]
async fn the_loads_of_two_routers_are_added_up() {
    with_a_fleet("two-routers", async |held| {
        let client = held.chat.client().clone();
        let second = Router::start(&held.chain.stack.control_plane, &client, "kthena-router-1").await;
        let load = Load::start(engine::LoadSettings {
            router: second.url.clone(),
            model: held.chat.name.clone(),
            tokens: 3000,
            most_requests: 1000,
        });
        load.hold(20);
        held.chat.has_replicas(5).await;
        held.chat.keeps_replicas(5, LONG_ENOUGH).await;
        drop(load);
        second.remove(&client).await;
        held.chat.has_replicas(3).await;
    })
    .await;
}
