//! A chain whose pods have real engines.

use std::time::Duration;

use harness::{
    Chain, ChainSettings, Model, ModelServingBuilder, RealEngine,
    chain::is_in_namespace,
    neighbours::{
        Vllm,
        vllm::{self, Change, Start},
    },
    wait::until_asked_within,
};
use serde_json::json;
use tokio::time::sleep;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// Name by which the engines know their model. Clients use another name, which the router replaces.
const SERVED: &str = "tiny";

/// Time limit for the start of several engines at once.
pub const LOADED: Duration = Duration::from_mins(5);

/// Tokens of a response that outlasts every test.
pub const ENDLESS: u32 = 10_000;

/// A chain and its engines.
pub struct Engines {
    pub vllm: Vllm,
    pub chain: Chain,
}

impl Engines {
    /// Starts a chain; `None` where it cannot run or vLLM is not built.
    pub async fn start(settings: &ChainSettings) -> Option<Self> {
        if !can_run() {
            return None;
        }
        // VLLM_START=exec: engines start as in vLLM's container image, which takes several times as long.
        let start = match std::env::var("VLLM_START").as_deref() {
            Ok("exec") => Start::Exec,
            _ => Start::Fork,
        };
        Some(Self::around(Chain::start(settings).await, start).await)
    }

    /// Starts a chain whose operator may make stand-ins, and whose engines take as long to start as in vLLM's container
    /// image; `None` where it cannot run or vLLM is not built.
    pub async fn holding(settings: &ChainSettings) -> Option<Self> {
        if !can_run() {
            return None;
        }
        Some(Self::around(Chain::start_with_stand_ins(settings).await, Start::Exec).await)
    }

    async fn around(chain: Chain, start: Start) -> Self {
        let vllm = Vllm::start(&chain.stack.control_plane, start).await;
        println!("logs: {}", chain.folder().display());
        Self { vllm, chain }
    }

    /// A chain with short periods.
    pub async fn quick() -> Option<Self> {
        Self::start(&ChainSettings::quick(BINARY)).await
    }

    /// Creates a model: opted in, routed, and with real engines.
    pub async fn model(
        &self,
        name: &str,
        engine: &RealEngine,
        change: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        let model = self.create(name, engine, change).await;
        self.has_ready(&model, 1).await;
        model.keda_says("Ready", "True").await;
        model
    }

    /// [`Self::model`] without waiting for a ServingGroup.
    pub async fn create(
        &self,
        name: &str,
        engine: &RealEngine,
        change: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
    ) -> Model {
        let namespace = self.chain.stack.namespace().await;
        namespace.model_server("chat", "chat", vllm::PORT).await;
        namespace.edit_model_server("chat", json!({"model": SERVED})).await;
        namespace.model_route("chat", name, &[("chat", 100)]).await;
        let builder = namespace.model_serving("chat").scheduled().opted_in(name).real(engine);
        let serving = change(builder).create().await.within(LOADED);
        Model { name: name.to_owned(), serving }
    }

    /// Waits until this number of ServingGroups is wanted and available.
    pub async fn has_ready(&self, model: &Model, count: i64) {
        let what = format!("has {count} ServingGroups that are available");
        let is_ready = model.serving.until(&what, |found| {
            found.data["spec"]["replicas"] == count
                && found.data["status"]["availableReplicas"].as_i64().unwrap_or_default() == count
        });
        tokio::select! {
            _ = is_ready => {}
            () = self.failure() => {}
        }
    }

    /// Waits forever.
    ///
    /// # Panics
    /// If an engine fails.
    async fn failure(&self) {
        loop {
            for (pod, change) in self.vllm.changes() {
                let logs = self.chain.folder().join("vllm");
                assert!(
                    !matches!(change, Change::Failed(_)),
                    "{pod}: {change:?}; see the logs in {}",
                    logs.display()
                );
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Deletes a model and waits until its engines have ended, so that the next test has the memory.
    pub async fn delete(&self, model: &Model) {
        model.serving.delete().await;
        until_asked_within(LOADED, "the engines end", async || self.vllm.count(), |count| *count == 0).await;
    }

    /// Loading times of all engines so far.
    pub fn loading_times(&self) -> Vec<Duration> {
        let changes = self.vllm.changes();
        changes
            .iter()
            .filter_map(|(_, change)| if let Change::Ready(time) = change { Some(*time) } else { None })
            .collect()
    }
}

/// `true` if these tests can run in this process. Otherwise prints that one is skipped.
fn can_run() -> bool {
    let obstacle = match (is_in_namespace(), vllm::is_built()) {
        (false, _) => "a network namespace",
        (true, false) => "vLLM",
        (true, true) => return true,
    };
    eprintln!("SKIPPED: this needs {obstacle}; run `make soak-vllm`");
    false
}

/// Settings of vLLM: `slots` requests at a time, and a KV cache of `cache` bytes, such as `64M`.
pub fn engine(slots: usize, cache: &str, more: &[&str]) -> RealEngine {
    let slots = slots.to_string();
    let arguments = [
        "--served-model-name",
        SERVED,
        "--dtype",
        "bfloat16",
        "--max-model-len",
        "16384",
        "--max-num-seqs",
        &slots,
        "--enforce-eager",
        "--block-size",
        "32",
        "--kv-cache-memory-bytes",
        cache,
        "--logits-processors",
        "slow:Slow",
    ];
    let arguments = arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
    RealEngine { arguments, grace_seconds: 5, pre_stop_seconds: 0 }
}

/// Seconds with one decimal, for printing.
pub fn seconds(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{:.1} s", time.as_secs_f64())).collect::<Vec<_>>().join(", ")
}
