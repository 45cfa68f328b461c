//! Shows in a terminal what one annotation gives: a model that load scales, on the real components, with Prometheus away for a while.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use demo::{Picture, Recorder, Sample, Shell, View, draw, say};
use engine::{EngineSettings, Load};
use harness::{Chain, ChainSettings, Model, stack::root};
use tokio::time::{Instant, sleep};

/// How often the chain is looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// How long any part of the story may take.
const LIMIT: Duration = Duration::from_mins(1);
/// Long enough to see that nothing moves.
const A_WHILE: Duration = Duration::from_secs(12);

#[tokio::main]
async fn main() -> ExitCode {
    // Whatever goes wrong is said in one line.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("\nthe demo stopped: {}", panic.payload_as_str().unwrap_or("unknown"));
    }));
    let Some(operator) = std::env::args_os().nth(1) else {
        eprintln!("usage: demo OPERATOR-BINARY");
        return ExitCode::from(2);
    };
    match tokio::spawn(Box::pin(show(PathBuf::from(operator)))).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn show(operator: PathBuf) {
    say(
        "Starting Kubernetes' control plane, KEDA, Prometheus and its operator, Kthena, and kthena-keda under the rights in config/install/rbac.yaml.",
    );
    let mut settings = ChainSettings::quick(operator);
    // Slow enough to be watched.
    settings.profile = settings.profile.replace("stabilizationWindow: 2s", "stabilizationWindow: 5s");
    settings.engine = EngineSettings { concurrency: 10, ..EngineSettings::default() };
    let chain = Box::pin(Chain::start(&settings)).await;
    let chat = chain.model_with("llama-3", |builder| builder.loading("3s")).await;
    chat.serves(&chain).await;
    chat.hpa().await;
    chat.keda_says("Ready", "True").await;
    ask(&Shell::new(&chain.stack), &chat).await;
    let mut story =
        Story { load: chain.load(&chat), chain, chat, recorder: Recorder::default(), view: View::default() };
    story.tell().await;
    let picture = root().join("target/demo/closed-loop");
    draw(
        &story.recorder,
        Picture { title: "One annotation: a model follows its load", level: None },
        &picture,
    );
    say(&format!("Done. What was recorded is drawn in {}.", shown(&picture.with_extension("svg"))));
}

/// As somebody in the project's folder would name it.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// What a user would type to see what the annotation gave.
async fn ask(shell: &Shell, chat: &Model) {
    let namespace = chat.serving.namespace.name.as_str();
    say(
        "A ModelServing has one annotation, and KEDA's ScaledObject, the HPA and the router's ServiceMonitor are there.",
    );
    shell.kubectl(&[
        "get",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "-o",
        "jsonpath={.metadata.annotations}{\"\\n\"}",
    ]);
    shell.kubectl(&["get", "scaledobjects,hpa", "-n", namespace]);
    shell.kubectl(&[
        "get",
        "scaledobject",
        "chat",
        "-n",
        namespace,
        "-o",
        "jsonpath={.spec.triggers[0].metadata.query}{\"\\n\"}",
    ]);
    shell.kubectl(&["get", "servicemonitors", "-A"]);
    say("The HPA finds one pod per ServingGroup by the selector of the scale subresource.");
    shell.kubectl(&[
        "get",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "-o",
        "jsonpath={.status.labelSelector}{\"\\n\"}",
    ]);
    say(
        "An annotation changes, and then a typo: the change is taken over; the typo tears nothing down and is told.",
    );
    shell.kubectl(&[
        "annotate",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "autoscaling.kthena.io/max-replicas=6",
    ]);
    chat.serving
        .scaled_object_until("has a maximum of 6", |found| {
            found.data.pointer("/spec/maxReplicaCount").is_some_and(|max| max == 6)
        })
        .await;
    shell.kubectl(&["get", "scaledobjects", "-n", namespace]);
    shell.kubectl(&[
        "annotate",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "autoscaling.kthena.io/min-replica=2",
    ]);
    chat.serving.reason("InvalidConfiguration").await;
    let message = "jsonpath={.status.conditions[?(@.type==\"AutoscalingReady\")].message}{\"\\n\"}";
    shell.kubectl(&["get", "modelserving", "chat", "-n", namespace, "-o", message]);
    shell.kubectl(&[
        "annotate",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "autoscaling.kthena.io/min-replica-",
    ]);
}

/// The part that is watched live.
struct Story {
    chain: Chain,
    chat: Model,
    load: Load,
    recorder: Recorder,
    view: View,
}

impl Story {
    async fn tell(&mut self) {
        self.part("One ServingGroup, no load.", "");
        self.for_a_while(Duration::from_secs(4), |sample| sample.wanted == 1).await;

        self.part(
            "Load rises to 37 requests in flight. A ServingGroup carries 10, so four are needed.",
            "load rises",
        );
        self.load.hold(37);
        self.until("four ServingGroups", |sample| sample.wanted == 4 && sample.ready == 4).await;

        self.part("Load holds, and so does the fleet.", "holds");
        self.for_a_while(Duration::from_secs(6), |sample| sample.wanted == 4).await;

        self.part(
            "Prometheus is stopped, and most clients leave. Nobody can tell, so nothing is taken away.",
            "Prometheus stopped",
        );
        self.chain.prometheus.server.kill();
        self.load.hold(15);
        self.for_a_while(A_WHILE, |sample| sample.wanted == 4).await;

        self.part("Prometheus is back: 15 requests need two.", "back");
        self.chain.prometheus.server.start();
        self.until("two ServingGroups", |sample| sample.wanted == 2 && sample.ready == 2).await;

        self.part("Load ends.", "load ends");
        self.load.hold(0);
        self.until("one ServingGroup", |sample| sample.wanted == 1 && sample.ready == 1).await;
        self.for_a_while(Duration::from_secs(3), |sample| sample.wanted == 1).await;

        self.part("Opting out takes away what was generated; the model runs on as it is.", "");
        let shell = Shell::new(&self.chain.stack);
        let namespace = self.chat.serving.namespace.name.clone();
        shell.kubectl(&["annotate", "modelserving", "chat", "-n", &namespace, "kthena.io/model-name-"]);
        self.chat.serving.scaled_object_gone().await;
        shell.kubectl(&["get", "scaledobjects,servicemonitors", "-A"]);
        shell.kubectl(&["get", "modelserving", "chat", "-n", &namespace, "--subresource=scale"]);
    }

    /// Begins a part; what has a short name too is marked on the picture.
    fn part(&mut self, text: &str, mark: &str) {
        self.view.begin(text);
        if !mark.is_empty() {
            self.recorder.mark(mark);
        }
    }

    async fn glance(&mut self) -> Sample {
        let sample = self.recorder.look(&self.chain, &self.chat, &self.load).await.clone();
        self.view.show(&sample);
        sleep(GLANCE).await;
        sample
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Sample) -> bool) {
        let limit = Instant::now() + LIMIT;
        loop {
            let sample = self.glance().await;
            if done(&sample) {
                return;
            }
            assert!(Instant::now() < limit, "waited {LIMIT:?} for {what}; last seen: {sample:?}");
        }
    }

    async fn for_a_while(&mut self, time: Duration, holds: impl Fn(&Sample) -> bool) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let sample = self.glance().await;
            assert!(holds(&sample), "this was not to change: {sample:?}");
        }
    }
}
