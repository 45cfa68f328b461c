//! A control plane, models on it, and what belongs to others.

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

/// A control plane takes most of a core while it starts.
static STACKS: Semaphore = Semaphore::const_new(4);

pub async fn stack(crds: &[Crds]) -> (Stack, SemaphorePermit<'static>) {
    let permit = STACKS.acquire().await.unwrap();
    (Stack::start(crds).await, permit)
}

/// Where something goes wrong.
pub struct World {
    pub stack: Stack,
    pub models: Namespace,
    /// Decides when and what goes wrong.
    pub random: Random,
    strangers: Vec<(ApiResource, DynamicObject)>,
    seed: u64,
    _permit: SemaphorePermit<'static>,
}

impl World {
    /// One with Kthena's and KEDA's definitions.
    pub async fn start() -> Self {
        let (stack, permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
        let models = stack.namespace().await;
        let seed = seed();
        let mut world =
            Self { stack, models, random: Random::of(seed), strangers: Vec::new(), seed, _permit: permit };
        world.add_profile().await;
        world.add_strangers_scaled_object().await;
        world.add_stranger(&kinds::service(), json!({"ports": [{"port": 80}]})).await;
        world
    }

    /// The profile that some models of a burst use.
    pub async fn add_profile(&self) {
        let profile = json!({
            "apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "gold"},
            "spec": {"replicas": {"max": 20}},
        });
        harness::objects::apply(&self.models.client, profile).await;
    }

    /// A ScaledObject of somebody else's, which nobody touches.
    pub async fn add_strangers_scaled_object(&mut self) {
        let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
        let scaled_object = json!({"scaleTargetRef": {"name": "shop"}, "triggers": [trigger]});
        self.add_stranger(&kinds::scaled_object(), scaled_object).await;
    }

    /// Takes the place of one that went with its definition.
    async fn add_stranger(&mut self, kind: &ApiResource, spec: Value) {
        let created = self.models.create(kind, json!({"metadata": {"name": "shop"}, "spec": spec})).await;
        self.strangers.retain(|(of, _)| of.kind != kind.kind);
        self.strangers.push((kind.clone(), created));
    }

    /// The operator, straight at the API server, once it is ready.
    pub async fn start_operator(&self) -> Process {
        ready(self.stack.start_operator(&Settings::new(BINARY))).await
    }

    /// The operator, with somebody in between, once it is ready.
    pub async fn start_operator_behind_proxy(&self) -> (Process, FaultProxy) {
        let proxy = FaultProxy::start(&self.stack.control_plane, &OPERATOR, Fault::None).await;
        let operator = Settings::new(BINARY).start(&self.stack.control_plane.folder, &proxy.kubeconfig());
        (ready(operator).await, proxy)
    }

    /// Begins to create so many models.
    pub fn burst(&mut self, count: usize) -> Burst {
        Burst::of(&self.models, count, self.random.fork())
    }

    /// Begins to create so many, and waits for some moment in the course of it.
    pub async fn in_the_midst_of_a_burst(&mut self, count: usize) -> Burst {
        let made = count / 4 + usize::try_from(self.random.below(count as u64 / 2)).unwrap();
        let burst = self.burst(count);
        burst.has_made(made).await;
        burst
    }

    /// Somebody deletes a few of the ScaledObjects that there are.
    pub async fn lose_some(&mut self) {
        let api = self.models.api(&kinds::scaled_object());
        let ours =
            api.list(&ListParams::default()).await.unwrap().items.into_iter().map(|found| found.name_any());
        for name in ours.filter(|name| !self.is_a_strangers(name)).collect::<Vec<_>>() {
            if self.random.below(10) == 0 {
                // The operator may have removed it itself by now.
                let _ = api.delete(&name, &DeleteParams::default()).await;
            }
        }
    }

    pub fn is_a_strangers(&self, name: &str) -> bool {
        self.strangers.iter().any(|(_, stranger)| stranger.name_any() == name)
    }

    /// What others have is as they made it.
    pub async fn nobody_elses_is_touched(&self) {
        for (kind, before) in &self.strangers {
            let now = self.models.api(kind).get(&before.name_any()).await.unwrap();
            assert_eq!(
                (now.uid(), now.resource_version()),
                (before.uid(), before.resource_version()),
                "{} is not ours",
                kind.kind
            );
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        #[expect(clippy::print_stderr, reason = "whoever looks at a failed test wants to repeat it")]
        if std::thread::panicking() {
            eprintln!("FAULT_SEED={} repeats this", self.seed);
        }
    }
}

async fn ready(operator: Process) -> Process {
    until_asked("it is ready", async || ask(&operator, "/readyz").await, |(code, _)| *code == 200).await;
    operator
}

/// How often the operator may ask, at most, between a fault's begin and now, with so many models.
///
/// A model's n-th failure in a row is followed by a rest of at least 250 ms × 2ⁿ⁻¹, up to 15 s. A try is `requests` long: one where all
/// fail, and three where only some do, since a model is read, and its status and ScaledObject are written. Besides, each model may come
/// and change once meanwhile, which are tries that succeed. The dozen watches each list and watch again after at least 400 ms, doubling.
/// Discovery asks two questions twice a second, since something is missing in every world; events are 25 at first, then one a second.
pub fn most_requests(models: usize, began: Instant, requests: usize) -> usize {
    let lasted = began.elapsed();
    let tries = 1 + rests(Duration::from_millis(250), lasted);
    let watches = 12 * 2 * (1 + rests(Duration::from_millis(400), lasted));
    let seconds = usize::try_from(lasted.as_secs()).unwrap() + 1;
    models * (tries * requests + 2 * 3) + watches + seconds * 5 + 25
}

/// How many rests, of which the first is that long and each further one twice as long, up to 15 s, fit into a time.
fn rests(first: Duration, lasted: Duration) -> usize {
    let (mut rest, mut sum, mut count) = (first, first, 0);
    while sum <= lasted {
        rest = (rest * 2).min(Duration::from_secs(15));
        sum += rest;
        count += 1;
    }
    count
}
