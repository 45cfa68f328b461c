//! A control plane with models and with foreign objects.

use std::time::{Duration, Instant};

use harness::{
    Crds, Fault, FaultProxy, Namespace, OPERATOR, Process, Random, Settings, Stack, ask, kinds, random::seed,
    wait::until_asked,
};
use kube::{
    ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams},
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::burst::Burst;

pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// Limits the number of control planes, because each takes most of a core while it starts.
static STACKS: Semaphore = Semaphore::const_new(4);

pub async fn stack(crds: &[Crds]) -> (Stack, SemaphorePermit<'static>) {
    let permit = STACKS.acquire().await.unwrap();
    (Stack::start(crds).await, permit)
}

/// A control plane for one fault test.
pub struct Cluster {
    pub stack: Stack,
    pub models: Namespace,
    /// Source of the moments and kinds of faults.
    pub random: Random,
    foreign: Vec<(ApiResource, DynamicObject)>,
    seed: u64,
    _permit: SemaphorePermit<'static>,
}

impl Cluster {
    /// Starts a control plane with the CRDs of Kthena and KEDA.
    pub async fn start() -> Self {
        let (stack, permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
        let models = stack.namespace().await;
        let seed = seed();
        let mut cluster =
            Self { stack, models, random: Random::of(seed), foreign: Vec::new(), seed, _permit: permit };
        cluster.add_profile().await;
        cluster.add_foreign_scaled_object().await;
        cluster.add_foreign(&kinds::service(), json!({"ports": [{"port": 80}]})).await;
        cluster
    }

    /// The profile that some models of a burst use.
    pub async fn add_profile(&self) {
        let profile = json!({
            "apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "gold"},
            "spec": {"replicas": {"max": 20}},
        });
        harness::objects::apply(&self.models.client, profile).await;
    }

    /// A ScaledObject without a ModelServing, which the operator must not change.
    pub async fn add_foreign_scaled_object(&mut self) {
        let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
        let scaled_object = json!({"scaleTargetRef": {"name": "shop"}, "triggers": [trigger]});
        self.add_foreign(&kinds::scaled_object(), scaled_object).await;
    }

    /// Creates a foreign object, which replaces a recorded one that was deleted with its CRD.
    async fn add_foreign(&mut self, kind: &ApiResource, spec: Value) {
        let created = self.models.create(kind, json!({"metadata": {"name": "shop"}, "spec": spec})).await;
        self.foreign.retain(|(of, _)| of.kind != kind.kind);
        self.foreign.push((kind.clone(), created));
    }

    /// Starts the operator and waits until it is ready.
    pub async fn start_operator(&self) -> Process {
        ready(self.stack.start_operator(&Settings::new(BINARY))).await
    }

    /// Starts the operator behind a [`FaultProxy`] and waits until it is ready.
    pub async fn start_operator_behind_proxy(&self) -> (Process, FaultProxy) {
        let proxy = FaultProxy::start(&self.stack.control_plane, &OPERATOR, Fault::None).await;
        let operator = Settings::new(BINARY).start(&self.stack.control_plane.folder, &proxy.kubeconfig());
        (ready(operator).await, proxy)
    }

    /// Starts to create `count` models.
    pub fn start_burst(&mut self, count: usize) -> Burst {
        Burst::start(&self.models, count, self.random.fork())
    }

    /// Starts to create `count` models, and waits until a random part of them is created.
    pub async fn start_burst_and_wait_midway(&mut self, count: usize) -> Burst {
        let created = count / 4 + usize::try_from(self.random.below(count as u64 / 2)).unwrap();
        let burst = self.start_burst(count);
        burst.has_created(created).await;
        burst
    }

    /// Deletes a random tenth of the operator's ScaledObjects.
    pub async fn delete_some_scaled_objects(&mut self) {
        let api = self.models.api(&kinds::scaled_object());
        let owned =
            api.list(&ListParams::default()).await.unwrap().items.into_iter().map(|found| found.name_any());
        for name in owned.filter(|name| !self.is_foreign(name)).collect::<Vec<_>>() {
            if self.random.below(10) == 0 {
                // The operator may have deleted it already.
                let _ = api.delete(&name, &DeleteParams::default()).await;
            }
        }
    }

    /// `true` if an object of this name is foreign.
    pub fn is_foreign(&self, name: &str) -> bool {
        self.foreign.iter().any(|(_, object)| object.name_any() == name)
    }

    /// Checks that the foreign objects are unchanged.
    pub async fn assert_foreign_unchanged(&self) {
        for (kind, before) in &self.foreign {
            let now = self.models.api(kind).get(&before.name_any()).await.unwrap();
            assert_eq!(
                (now.uid(), now.resource_version()),
                (before.uid(), before.resource_version()),
                "the foreign {} is changed",
                kind.kind
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        #[expect(clippy::print_stderr, reason = "the seed repeats a failed test")]
        if std::thread::panicking() {
            eprintln!("FAULT_SEED={} repeats this", self.seed);
        }
    }
}

async fn ready(operator: Process) -> Process {
    until_asked("the operator is ready", async || ask(&operator, "/readyz").await, |(code, _)| *code == 200)
        .await;
    operator
}

/// Maximum number of the operator's requests since `started`, the start of a fault, with `models` models.
///
/// After the n-th failure in a row of a model, the operator waits at least 250 ms × 2ⁿ⁻¹, up to 15 s. A try
/// sends `requests` requests: one where all fail, and three where only some do, because the operator reads
/// the model and writes its status and its ScaledObject. In addition, each model can be created and changed
/// once, which are tries that succeed. Each of the dozen watches lists and watches again after at least 400
/// ms, doubling. Discovery sends two requests twice a second, because every cluster here lacks some kind.
/// Events are 25 at first, then five per second.
pub fn request_limit(models: usize, started: Instant, requests: usize) -> usize {
    let elapsed = started.elapsed();
    let tries = 1 + retries(Duration::from_millis(250), elapsed);
    let watches = 12 * 2 * (1 + retries(Duration::from_millis(400), elapsed));
    let seconds = usize::try_from(elapsed.as_secs()).unwrap() + 1;
    models * (tries * requests + 2 * 3) + watches + seconds * 9 + 25
}

/// Number of retries in `elapsed`, with a first delay of `first` that doubles up to 15 s.
fn retries(first: Duration, elapsed: Duration) -> usize {
    let (mut delay, mut sum, mut count) = (first, first, 0);
    while sum <= elapsed {
        delay = (delay * 2).min(Duration::from_secs(15));
        sum += delay;
        count += 1;
    }
    count
}
