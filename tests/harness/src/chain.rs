//! The complete chain: load → router → Prometheus → KEDA → HPA → scale subresource → Kthena → pods, and the
//! operator that connects them.
//!
//! It needs its own network namespace, because Prometheus scrapes Services at pod addresses; see
//! `tests/stack/namespace`.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use engine::{Dialect, Engine, EngineSettings, Load, LoadSettings};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    Crds, ModelServing, ModelServingBuilder, Process, Settings, Stack,
    control_plane::free_port,
    neighbours::{
        ControllerManager, Keda, Kthena, Kwok, MAX_WAITING, POD_NETWORKS, Prometheus, PrometheusSettings,
        Router, RouterSettings,
    },
    objects::{apply, apply_file},
    scraped_operator,
    stack::{kinds, resource, root},
    wait::{until, until_asked, until_within},
};

/// Address that exists only in the tests' network namespace (RFC 5737).
const NAMESPACE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// The image of stand-ins that the admission policy allows.
const STAND_IN_IMAGE: &str = concat!("ghcr.io/volcano-sh/kthena-keda:", env!("CARGO_PKG_VERSION"));

/// Profile with short periods, so that tests are fast; all other fields keep their defaults.
const QUICK_PROFILE: &str = "
apiVersion: autoscaling.kthena.io/v1alpha1
kind: AutoscalingProfile
metadata: {name: default}
spec:
  pollingInterval: 2s
  scaleUp: {policies: [{type: Pods, value: 100, period: 1s}]}
  scaleDown: {stabilizationWindow: 2s, policies: [{type: Percent, value: 100, period: 1s}]}
  scaleToZero: {cooldown: 10s, initialCooldown: 10s}
  monitors: {interval: 1s}
";

/// Settings of the chain.
#[derive(Clone, Debug)]
pub struct ChainSettings {
    /// Path of the operator's binary.
    pub operator: std::path::PathBuf,
    /// Manifest of the AutoscalingProfile `default`, as YAML.
    pub profile: String,
    /// Sync period of the HPA, in seconds.
    pub hpa_sync_seconds: u32,
    /// Settings of Prometheus.
    pub prometheus: PrometheusSettings,
    /// Waiting requests in an engine at which the router passes it over.
    pub router_max_waiting: u32,
    /// Settings of the mock engines.
    pub engine: EngineSettings,
    /// Interval at which Prometheus scrapes the operator; `None` if it does not.
    pub operator_interval: Option<&'static str>,
    /// Network of the addresses of pods, one of [`POD_NETWORKS`].
    pub pod_network: &'static str,
}

impl ChainSettings {
    /// Short periods throughout.
    pub fn quick(operator: impl Into<std::path::PathBuf>) -> Self {
        Self {
            operator: operator.into(),
            profile: QUICK_PROFILE.to_owned(),
            hpa_sync_seconds: 2,
            prometheus: PrometheusSettings { lookback_seconds: 10 },
            router_max_waiting: MAX_WAITING,
            engine: EngineSettings { concurrency: 100, ..EngineSettings::default() },
            operator_interval: None,
            pod_network: POD_NETWORKS[0],
        }
    }
}

/// The running chain. Its components stop in the order of the fields, the operator first.
#[derive(Debug)]
pub struct Chain {
    /// The operator; `None` while it is stopped.
    pub operator: Option<Process>,
    /// Arguments of the operator.
    pub operator_settings: Settings,
    /// Kthena's router.
    pub router: Router,
    /// Prometheus, which scrapes the router and the engines.
    pub prometheus: Prometheus,
    /// KEDA, which queries Prometheus and creates the HPA.
    pub keda: Keda,
    /// Kthena's controller manager, which creates the pods of ServingGroups.
    pub kthena: Kthena,
    /// The HPA and Kubernetes' other controllers.
    pub controller_manager: ControllerManager,
    /// Simulated kubelet.
    pub kwok: Kwok,
    /// Mock engine, which serves every pod of a model.
    pub engine: Engine,
    /// The control plane.
    pub stack: Stack,
}

/// `true` if this process is in the network namespace that the chain needs.
pub fn is_in_namespace() -> bool {
    TcpListener::bind((NAMESPACE_ADDRESS, 0)).is_ok()
}

/// `true` if a test that needs the network namespace can run in this process. Otherwise prints that it is skipped.
///
/// # Panics
/// In CI, if it cannot run.
#[expect(clippy::print_stderr, reason = "a skipped test is visible in the output")]
pub fn can_run() -> bool {
    let can = is_in_namespace();
    if !can {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{test} needs a network namespace, which cannot be created here"
        );
        eprintln!(
            "SKIPPED {test}: it needs a network namespace; run `make test`, or check the prerequisites with `make doctor`"
        );
    }
    can
}

impl Chain {
    /// Starts all components, applies the profile and starts the operator.
    ///
    /// # Panics
    /// If a component does not become ready.
    pub async fn start(settings: &ChainSettings) -> Self {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let mut chain = Box::pin(Self::around(stack, settings)).await;
        chain.apply_profile(&settings.profile).await;
        chain.start_operator();
        chain
    }

    /// [`Self::start`] with an operator that may make stand-ins.
    ///
    /// # Panics
    /// If a component does not become ready.
    pub async fn start_with_stand_ins(settings: &ChainSettings) -> Self {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        apply_file(&stack.client().await, &root().join("config/stand-ins/standins.yaml")).await;
        let mut chain = Box::pin(Self::around(stack, settings)).await;
        chain.operator_settings =
            chain.operator_settings.clone().with(&format!("--stand-in-image={STAND_IN_IMAGE}"));
        chain.apply_profile(&settings.profile).await;
        chain.start_operator();
        chain
    }

    /// Starts all components except the operator on a control plane that has their CRDs, and applies no
    /// profile.
    ///
    /// # Panics
    /// If a component does not become ready.
    pub async fn around(stack: Stack, settings: &ChainSettings) -> Self {
        assert!(
            is_in_namespace(),
            "the chain needs a network namespace: run this under tests/stack/namespace"
        );
        let client = stack.client().await;
        let control_plane = &stack.control_plane;
        let controller_manager = ControllerManager::start(control_plane, settings.hpa_sync_seconds);
        let (kwok, keda, kthena, prometheus) = tokio::join!(
            Kwok::start(control_plane, &client, settings.pod_network),
            Keda::start(control_plane, &client),
            Kthena::start(control_plane, &client),
            Prometheus::start(control_plane, &client, settings.prometheus),
        );
        let router = RouterSettings { max_waiting: settings.router_max_waiting, ..RouterSettings::default() };
        let router = Router::start_with(control_plane, &client, "kthena-router-0", router).await;
        let operator_settings = Settings::new(&settings.operator)
            .without("--prometheus-url")
            .with(&format!("--prometheus-url={}", prometheus.url))
            .with(&format!("--hpa-sync-period={}", settings.hpa_sync_seconds));
        let operator_settings = match settings.operator_interval {
            Some(interval) => {
                let port = free_port();
                scraped_operator::scrape(&client, port, interval).await;
                operator_settings.without("--listen").with(&format!("--listen=:{port}"))
            }
            None => operator_settings,
        };
        let engine = Engine::start(settings.engine.clone());
        Self {
            operator: None,
            operator_settings,
            router,
            prometheus,
            keda,
            kthena,
            controller_manager,
            kwok,
            engine,
            stack,
        }
    }

    /// Applies an AutoscalingProfile.
    ///
    /// # Panics
    /// If the API server rejects it.
    pub async fn apply_profile(&self, profile: &str) {
        apply(&self.stack.client().await, serde_saphyr::from_str(profile).expect("a profile")).await;
    }

    /// Starts the operator unless it is running.
    pub fn start_operator(&mut self) {
        if self.operator.is_none() {
            self.operator = Some(self.stack.start_operator(&self.operator_settings));
        }
    }

    /// Creates a model in a new namespace: opted in, routed, and with pods that become ready.
    pub async fn model(&self, name: &str) -> Model {
        self.model_with(name, |builder| builder).await
    }

    /// [`Self::model`] with a change to the ModelServing.
    pub async fn model_with(
        &self,
        name: &str,
        change: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        self.model_on(&self.engine, name, change).await
    }

    /// [`Self::model_with`] on another engine.
    pub async fn model_on(
        &self,
        engine: &Engine,
        name: &str,
        change: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        let chat = self.model_at(engine.port, name, change).await;
        if engine.dialect == Dialect::Sglang {
            let namespace = &chat.serving.namespace;
            namespace.edit_model_server("chat", json!({"inferenceEngine": "SGLang"})).await;
        }
        chat
    }

    /// [`Self::model_with`] on engines that listen on this port.
    pub async fn model_at(
        &self,
        port: u16,
        name: &str,
        change: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        let namespace = self.stack.namespace().await;
        namespace.model_server("chat", "chat", port).await;
        for (i, name) in name.split(',').enumerate() {
            namespace.model_route(&format!("chat-{i}"), name, &[("chat", 100)]).await;
        }
        let serving = change(namespace.model_serving("chat").scheduled().opted_in(name)).create().await;
        Model { name: name.to_owned(), serving }
    }

    /// Load generator for a model, with no requests in flight yet.
    pub fn load(&self, model: &Model) -> Load {
        self.load_named(&model.name)
    }

    /// Load generator for a model name.
    pub fn load_named(&self, name: &str) -> Load {
        // Ten minutes for each response: requests that begin together also end together, and a scrape in that gap would see no load.
        self.load_of(name, 60_000)
    }

    /// Load generator for a model name, with responses of `tokens` tokens.
    pub fn load_of(&self, name: &str, tokens: u32) -> Load {
        Load::start(LoadSettings {
            router: self.router.url.clone(),
            model: name.to_owned(),
            tokens,
            most_requests: 20_000,
        })
    }

    /// Sets `monitors.create` of the profile `default`.
    pub async fn create_monitors(&self, value: serde_json::Value) {
        let profiles: Api<DynamicObject> = Api::all_with(self.stack.client().await, &kinds::profile());
        let patch = Patch::Merge(json!({"spec": {"monitors": {"create": value}}}));
        profiles.patch("default", &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Folder of the logs.
    pub fn folder(&self) -> &Path {
        &self.stack.control_plane.folder
    }
}

/// A model name and the ModelServing that serves it.
#[derive(Clone)]
pub struct Model {
    /// Model name that clients send.
    pub name: String,
    /// The scaled ModelServing.
    pub serving: ModelServing,
}

impl Model {
    /// Waits until `spec.replicas` and then `status.replicas` are `count`.
    pub async fn has_replicas(&self, count: i64) {
        self.serving
            .until(&format!("wants {count} ServingGroups"), |found| found.data["spec"]["replicas"] == count)
            .await;
        self.serving
            .until(&format!("has {count} ServingGroups"), |found| {
                found.data["status"]["replicas"].as_i64().unwrap_or_default() == count
            })
            .await;
    }

    /// Waits up to `time` until `spec.replicas` is `count`.
    pub async fn wants_replicas_within(&self, time: Duration, count: i64) {
        let api = self.serving.namespace.api(&kinds::model_serving());
        until_within(time, &api, "chat", &format!("wants {count} ServingGroups"), |found| {
            found.is_some_and(|found| found.data["spec"]["replicas"] == count)
        })
        .await;
    }

    /// Watches for `time` that `spec.replicas` stays at `count`.
    ///
    /// # Panics
    /// If it has another value at any time.
    pub async fn keeps_replicas(&self, count: i64, time: Duration) {
        let api = self.serving.namespace.api(&kinds::model_serving());
        let change = until_within(2 * time, &api, "chat", "wants another count", |found| {
            found.is_some_and(|found| found.data["spec"]["replicas"] != count)
        });
        if let Ok(Some(found)) = tokio::time::timeout(time, change).await {
            panic!(
                "{}: expected spec.replicas to stay at {count}, found {}",
                self.name, found.data["spec"]["replicas"]
            );
        }
    }

    /// Waits until a condition of its HPA has this reason.
    pub async fn hpa_says(&self, condition: &str, reason: &str) {
        until(&self.hpas(), "keda-hpa-chat", &format!("has {condition} with reason {reason}"), |found| {
            found.is_some_and(|found| has_condition(found, condition, "reason", reason))
        })
        .await;
    }

    /// Waits until a condition of its ScaledObject has this status.
    pub async fn keda_says(&self, condition: &str, status: &str) {
        self.serving
            .scaled_object_until(&format!("has {condition}={status}"), |found| {
                has_condition(found, condition, "status", status)
            })
            .await;
    }

    /// HPAs of its namespace.
    pub fn hpas(&self) -> Api<DynamicObject> {
        self.serving.namespace.api(&resource(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        ))
    }

    /// Waits until KEDA has created its HPA.
    pub async fn hpa(&self) {
        until(&self.hpas(), "keda-hpa-chat", "exists", |found| found.is_some()).await;
    }

    /// Waits until its pods are ready and the router has served a request.
    pub async fn serves(&self, chain: &Chain) {
        let load = Load::start(LoadSettings {
            router: chain.router.url.clone(),
            model: self.name.clone(),
            tokens: 1,
            most_requests: 100,
        });
        load.hold(1);
        until_asked(
            &format!("the router serves {}", self.name),
            async || load.counts(),
            |counts| counts.served > 0,
        )
        .await;
    }

    /// Client with all permissions.
    pub fn client(&self) -> &Client {
        &self.serving.namespace.client
    }
}

/// `true` if the condition `kind` has `value` in `field`.
fn has_condition(object: &DynamicObject, kind: &str, field: &str, value: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| found["type"] == kind && found[field] == value)
}
