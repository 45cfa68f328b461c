//! The whole chain: load → router → Prometheus → KEDA → HPA → scale subresource → Kthena → pods, and the operator that ties it together.
//!
//! It runs in a network namespace of its own, since Services are scraped at the addresses of pods; see `tests/stack/namespace`.

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
    neighbours::{ControllerManager, Keda, Kthena, Kwok, Prometheus, PrometheusSettings, Router},
    objects::apply,
    stack::{kinds, resource},
    wait::{until, until_asked, until_within},
};

/// An address that only the tests' network namespace has (RFC 5737).
const MARK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// What a user's settings would be, a good deal quicker: everything else is as it is shipped.
const QUICK: &str = "
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

/// How the chain runs.
#[derive(Clone, Debug)]
pub struct ChainSettings {
    /// The operator's binary.
    pub operator: std::path::PathBuf,
    /// The AutoscalingProfile named default; a quick one where nobody says otherwise.
    pub profile: String,
    /// How often the HPA looks, in seconds.
    pub hpa_sync_seconds: u32,
    /// How Prometheus runs.
    pub prometheus: PrometheusSettings,
    /// How engines work.
    pub engine: EngineSettings,
}

impl ChainSettings {
    /// Everything quick.
    pub fn quick(operator: impl Into<std::path::PathBuf>) -> Self {
        Self {
            operator: operator.into(),
            profile: QUICK.to_owned(),
            hpa_sync_seconds: 2,
            prometheus: PrometheusSettings { lookback_seconds: 10 },
            engine: EngineSettings { concurrency: 100, ..EngineSettings::default() },
        }
    }
}

/// The running chain. What it holds stops in the order in which it stands here, the operator first.
#[derive(Debug)]
pub struct Chain {
    /// The operator.
    pub operator: Option<Process>,
    /// How the operator is started.
    pub operator_settings: Settings,
    /// Kthena's router.
    pub router: Router,
    /// Scrapes the router and answers KEDA.
    pub prometheus: Prometheus,
    /// Asks Prometheus, and has the HPA act.
    pub keda: Keda,
    /// Turns ServingGroups into pods.
    pub kthena: Kthena,
    /// The HPA and what else Kubernetes does.
    pub controller_manager: ControllerManager,
    /// Plays kubelet.
    pub kwok: Kwok,
    /// Answers for every pod of a model.
    pub engine: Engine,
    /// The API server.
    pub stack: Stack,
}

/// Whether this process is in a network namespace as the chain needs it.
pub fn is_in_namespace() -> bool {
    TcpListener::bind((MARK, 0)).is_ok()
}

impl Chain {
    /// Starts everything.
    ///
    /// # Panics
    /// When something does not become ready.
    pub async fn start(settings: &ChainSettings) -> Self {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let mut chain = Self::around(stack, settings).await;
        chain.apply_profile(&settings.profile).await;
        chain.start_operator();
        chain
    }

    /// Starts everything around a control plane that has the neighbours' definitions, without the operator and its profile.
    ///
    /// # Panics
    /// When something does not become ready.
    pub async fn around(stack: Stack, settings: &ChainSettings) -> Self {
        assert!(
            is_in_namespace(),
            "the chain needs a network namespace: run this under tests/stack/namespace"
        );
        let client = stack.client().await;
        let control_plane = &stack.control_plane;
        let controller_manager = ControllerManager::start(control_plane, settings.hpa_sync_seconds);
        let (kwok, keda, kthena, prometheus) = tokio::join!(
            Kwok::start(control_plane, &client),
            Keda::start(control_plane, &client),
            Kthena::start(control_plane, &client),
            Prometheus::start(control_plane, &client, settings.prometheus),
        );
        let router = Router::start(control_plane, &client, "kthena-router-0").await;
        let operator_settings = Settings::new(&settings.operator)
            .without("--prometheus-url")
            .with(&format!("--prometheus-url={}", prometheus.url));
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
    /// When it is none.
    pub async fn apply_profile(&self, profile: &str) {
        apply(&self.stack.client().await, serde_saphyr::from_str(profile).expect("a profile")).await;
    }

    /// Starts the operator, if it does not run.
    pub fn start_operator(&mut self) {
        if self.operator.is_none() {
            self.operator = Some(self.stack.start_operator(&self.operator_settings));
        }
    }

    /// A model in a namespace of its own: opted in, routed, and with pods that become ready.
    pub async fn model(&self, name: &str) -> Model {
        self.model_with(name, |builder| builder).await
    }

    /// The same, with something different about the ModelServing.
    pub async fn model_with(
        &self,
        name: &str,
        different: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        self.model_on(&self.engine, name, different).await
    }

    /// The same, on an engine of its own.
    pub async fn model_on(
        &self,
        engine: &Engine,
        name: &str,
        different: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        let namespace = self.stack.namespace().await;
        namespace.model_server("chat", "chat", engine.port).await;
        if engine.dialect == Dialect::Sglang {
            namespace.edit_model_server("chat", json!({"inferenceEngine": "SGLang"})).await;
        }
        for (i, name) in name.split(',').enumerate() {
            namespace.model_route(&format!("chat-{i}"), name, &[("chat", 100)]).await;
        }
        let serving = different(namespace.model_serving("chat").scheduled().opted_in(name)).create().await;
        Model { name: name.to_owned(), serving }
    }

    /// Clients of a model; nothing in flight yet.
    pub fn load(&self, model: &Model) -> Load {
        self.load_named(&model.name)
    }

    /// Clients that send this model name.
    pub fn load_named(&self, name: &str) -> Load {
        // Long answers: a count of what is in flight hardly ever sees the moment between two of them.
        self.load_of(name, 3000)
    }

    /// Clients that send this model name and get answers of so many tokens.
    pub fn load_of(&self, name: &str, tokens: u32) -> Load {
        Load::start(LoadSettings {
            router: self.router.url.clone(),
            model: name.to_owned(),
            tokens,
            most_requests: 20_000,
        })
    }

    /// Sets `monitors.create` of the profile named default.
    pub async fn create_monitors(&self, when: serde_json::Value) {
        let profiles: Api<DynamicObject> = Api::all_with(self.stack.client().await, &kinds::profile());
        let patch = Patch::Merge(json!({"spec": {"monitors": {"create": when}}}));
        profiles.patch("default", &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// The folder of the logs.
    pub fn folder(&self) -> &Path {
        &self.stack.control_plane.folder
    }
}

/// A model and the ModelServing that serves it.
#[derive(Clone)]
pub struct Model {
    /// The name that clients send.
    pub name: String,
    /// What is scaled.
    pub serving: ModelServing,
}

impl Model {
    /// Waits until so many ServingGroups are wanted and there.
    pub async fn has_replicas(&self, count: i64) {
        self.serving
            .until(&format!("wants {count} ServingGroups"), |found| found.data["spec"]["replicas"] == count)
            .await;
        let there =
            |found: &DynamicObject| found.data["status"]["replicas"].as_i64().unwrap_or_default() == count;
        self.serving.until(&format!("has {count} ServingGroups"), there).await;
    }

    /// Waits until so many ServingGroups are wanted, which takes its time.
    pub async fn wants_replicas_within(&self, time: Duration, count: i64) {
        let api = self.serving.namespace.api(&kinds::model_serving());
        let wants = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| found.data["spec"]["replicas"] == count)
        };
        until_within(time, &api, "chat", &format!("wants {count} ServingGroups"), wants).await;
    }

    /// Proves that the count stays for a while, watching every change.
    ///
    /// # Panics
    /// When another count is wanted meanwhile.
    pub async fn keeps_replicas(&self, count: i64, time: Duration) {
        let api = self.serving.namespace.api(&kinds::model_serving());
        let another = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| found.data["spec"]["replicas"] != count)
        };
        let other = until_within(2 * time, &api, "chat", "wants another count", another);
        if let Ok(Some(found)) = tokio::time::timeout(time, other).await {
            panic!(
                "{} was to stay at {count} ServingGroups and wants {}",
                self.name, found.data["spec"]["replicas"]
            );
        }
    }

    /// Waits until its HPA gives this reason for a condition.
    pub async fn hpa_says(&self, condition: &str, reason: &str) {
        let says = |found: &DynamicObject| {
            let conditions = found.data["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter().any(|found| found["type"] == condition && found["reason"] == reason)
            })
        };
        until(&self.hpas(), "keda-hpa-chat", &format!("says {condition}: {reason}"), |found| {
            found.is_some_and(&says)
        })
        .await;
    }

    /// Waits until KEDA says this of its ScaledObject.
    pub async fn keda_says(&self, condition: &str, status: &str) {
        let says = |found: &DynamicObject| {
            let conditions = found.data["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter().any(|found| found["type"] == condition && found["status"] == status)
            })
        };
        self.serving.scaled_object_until(&format!("is {condition}={status}"), says).await;
    }

    /// The HPAs of its namespace.
    pub fn hpas(&self) -> Api<DynamicObject> {
        self.serving.namespace.api(&resource(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        ))
    }

    /// Waits until KEDA made its HPA.
    pub async fn hpa(&self) {
        until(&self.hpas(), "keda-hpa-chat", "exists", |found| found.is_some()).await;
    }

    /// Waits until its pods are ready and the router serves it.
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

    /// A client for its namespace.
    pub fn client(&self) -> &Client {
        &self.serving.namespace.client
    }
}
