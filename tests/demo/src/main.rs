//! Scales a model under load in the terminal, on real components, with one annotation, an outage of Prometheus and a
//! bounded backlog, and wakes a second model whose first request is held.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "prints to the terminal")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use demo::{Picture, Recorder, Sample, Shell, View, draw, print_heading};
use engine::{Counts, EngineSettings, Load};
use harness::{
    Chain, ChainSettings, Model,
    neighbours::{Dns, Kubelet},
    stack::root,
};
use tokio::time::{Instant, sleep};

/// Interval of samples.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time limit of each step.
const LIMIT: Duration = Duration::from_mins(1);
/// Length of the Prometheus outage, long enough to show that replicas stay unchanged.
const OUTAGE: Duration = Duration::from_secs(12);

/// Window of the arrivals in the query of a bounded backlog.
const ARRIVALS: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    // Print a failure in one line, without a backtrace.
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
    print_heading(
        "Starting a Kubernetes control plane, KEDA, Prometheus, the Prometheus Operator, Kthena, and kthena-keda with the RBAC permissions in config/install/rbac.yaml.",
    );
    let operator = root().join(operator);
    let mut settings = ChainSettings::quick(&operator);
    // For the backtest.
    settings.operator_interval = Some("1s");
    // Requests wait in the engines, instead of being refused.
    settings.router_max_waiting = 1000;
    // Slow enough to follow on the screen.
    settings.profile = settings.profile.replace("stabilizationWindow: 2s", "stabilizationWindow: 5s");
    settings.profile = settings.profile.replace("initialCooldown: 10s", "initialCooldown: 10s, hold: {}");
    settings.engine = EngineSettings { concurrency: 10, ..EngineSettings::default() };
    let chain = Box::pin(Chain::start_with_stand_ins(&settings)).await;
    let sleeping = Sleeping::start(&chain, &operator).await;
    let chat = chain.model_with("llama-3", |builder| builder.loading("3s")).await;
    chat.serves(&chain).await;
    chat.hpa().await;
    chat.keda_says("Ready", "True").await;
    let shell = Shell::new(&chain.stack, operator);
    show_objects(&shell, &chat).await;
    let mut scenario = Scenario {
        load: chain.load(&chat),
        shell,
        chain,
        chat,
        sleeping,
        recorder: Recorder::default(),
        view: View::default(),
    };
    scenario.run().await;
    let picture = root().join("target/demo/closed-loop");
    draw(
        &scenario.recorder,
        Picture { title: "One annotation: a model follows its load", level: None },
        &picture,
    );
    print_heading(&format!("Done. Chart of the run: {}", relative(&picture.with_extension("svg"))));
}

/// Path relative to the project's root folder.
fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Shows the generated objects, and the effects of a valid and an invalid annotation.
async fn show_objects(shell: &Shell, chat: &Model) {
    let namespace = chat.serving.namespace.name.as_str();
    print_heading(
        "The ModelServing has one annotation. The operator created a ScaledObject and the router's ServiceMonitor; KEDA created the HPA.",
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
    print_heading(
        "The HPA selects one pod per ServingGroup with the label selector of the scale subresource.",
    );
    shell.kubectl(&[
        "get",
        "modelserving",
        "chat",
        "-n",
        namespace,
        "-o",
        "jsonpath={.status.labelSelector}{\"\\n\"}",
    ]);
    print_heading(
        "A valid annotation changes the ScaledObject. A misspelled one keeps the ScaledObject and is reported in a condition.",
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

/// A model at zero, and a kubelet that runs its stand-in and its engines.
struct Sleeping {
    model: Model,
    _kubelet: (Dns, Kubelet),
}

impl Sleeping {
    async fn start(chain: &Chain, operator: &Path) -> Self {
        let control_plane = &chain.stack.control_plane;
        let dns = Dns::start(control_plane).await;
        let kubelet = Kubelet::start(control_plane, operator, &dns, EngineSettings::default()).await;
        let bounds = ["min", "max"].map(|bound| format!("autoscaling.kthena.io/{bound}-replicas"));
        let model = chain
            .model_at(kubelet.port, "qwen-3", |builder| {
                let builder = builder.mocked().loading("3s").replicas(0);
                builder.annotated(&bounds[0], "0").annotated(&bounds[1], "1")
            })
            .await;
        Self { model, _kubelet: (dns, kubelet) }
    }
}

/// The part of the demo that runs under load.
struct Scenario {
    shell: Shell,
    chain: Chain,
    chat: Model,
    sleeping: Sleeping,
    load: Load,
    recorder: Recorder,
    view: View,
}

impl Scenario {
    async fn run(&mut self) {
        self.step("One ServingGroup, no load.", "");
        self.for_a_while(Duration::from_secs(4), |sample| sample.wanted == 1).await;

        self.step(
            "Load rises to 37 requests in flight. The target is 10 per ServingGroup, so the HPA scales to four.",
            "load rises",
        );
        self.load.hold(37);
        self.until("four ServingGroups", |sample| sample.wanted == 4 && sample.ready == 4).await;

        self.step("Load stays constant, and so do the ServingGroups.", "constant");
        self.for_a_while(Duration::from_secs(6), |sample| sample.wanted == 4).await;

        self.step(
            "Prometheus stops, and load falls to 15. Without data the number of ServingGroups stays.",
            "Prometheus stopped",
        );
        self.chain.prometheus.server.kill();
        self.load.hold(15);
        self.for_a_while(OUTAGE, |sample| sample.wanted == 4).await;

        self.step("Prometheus is back. 15 requests in flight need two ServingGroups.", "back");
        self.chain.prometheus.server.start();
        self.until("two ServingGroups", |sample| sample.wanted == 2 && sample.ready == 2).await;
        let back = self.recorder.elapsed();

        self.step("Load ends.", "load ends");
        self.load.hold(0);
        self.until("one ServingGroup", |sample| sample.wanted == 1 && sample.ready == 1).await;
        self.for_a_while(Duration::from_secs(3), |sample| sample.wanted == 1).await;

        self.step(
            "What would other settings have done? backtest replays the run from Prometheus, first as it was.",
            "",
        );
        self.backtest();

        self.wake().await;

        let namespace = self.chat.serving.namespace.name.clone();
        self.step("A bound on the backlog needs half a minute of data since the outage.", "");
        while self.recorder.elapsed() < back + ARRIVALS {
            self.sample().await;
        }
        self.step(
            "Ten requests of 2 s arrive each second, which need two ServingGroups. With a service time, requests that wait for one to load ask for no more.",
            "10 requests per second",
        );
        let service_time = "autoscaling.kthena.io/service-time=2s";
        self.shell.kubectl(&["annotate", "modelserving", "chat", "-n", &namespace, service_time]);
        self.load = self.chain.load_of(&self.chat.name, 200);
        self.load.arrive(10, 1000);
        self.until("two ServingGroups", |sample| sample.wanted == 2).await;
        self.for_a_while(Duration::from_secs(8), |sample| sample.wanted <= 3).await;
        self.load.hold(0);

        self.step("Opting out deletes the generated objects. The model keeps running with its replicas.", "");
        self.shell.kubectl(&["annotate", "modelserving", "chat", "-n", &namespace, "kthena.io/model-name-"]);
        self.chat.serving.scaled_object_gone().await;
        self.shell.kubectl(&["get", "scaledobjects,servicemonitors", "-A"]);
        self.shell.kubectl(&["get", "modelserving", "chat", "-n", &namespace, "--subresource=scale"]);
    }

    /// Sends one request to the model at zero.
    async fn wake(&mut self) {
        let model = &self.sleeping.model;
        let namespace = model.serving.namespace.name.as_str();
        print_heading(
            "A second model is at zero. Its stand-in pod holds requests until a ServingGroup is ready.",
        );
        self.shell.kubectl(&["get", "modelserving", "chat", "-n", namespace, "--subresource=scale"]);
        self.shell.kubectl(&["get", "pods", "-n", namespace]);
        self.view.begin("Its first request wakes it, and is answered: no client has to ask again.");
        let load = self.chain.load_of(&model.name, 50);
        let (mut recorder, started) = (Recorder::default(), Instant::now());
        load.hold(1);
        while load.counts().served == 0 {
            self.view.show(recorder.look(&self.chain, model, &load).await);
            assert!(started.elapsed() < LIMIT, "waited {LIMIT:?} for an answer: {:?}", load.counts());
            sleep(INTERVAL).await;
        }
        let Counts { served, failed, .. } = load.counts();
        println!(
            "\nanswered after {:.1} s: {served} served, {failed} failed",
            started.elapsed().as_secs_f64()
        );
        assert_eq!(failed, 0, "requests that failed");
        drop(load);
        self.shell.kubectl(&["get", "pods", "-n", namespace]);
    }

    /// Compares the run with a higher target, and shows what a recommendation knows and the cost.
    fn backtest(&self) {
        let model = format!("{}/chat", self.chat.serving.namespace.name);
        let since = format!("--since={}s", self.recorder.elapsed().as_secs());
        let prometheus = format!("--prometheus-url={}", self.chain.prometheus.url);
        self.shell.kthena_keda(&[
            "backtest",
            &model,
            &since,
            "--step=1s",
            "--hpa-sync-period=2",
            "--cold-start=3s",
            // No response of the demo ends by itself.
            "--service-time=10m",
            "--capacity=10",
            "--set=target=20",
            &prometheus,
        ]);
        print_heading(
            "A recommendation needs a day of requests. After a minute recommend says what it knows so far, and exits with 3.",
        );
        self.shell.kthena_keda_unfit(&[
            "recommend",
            &model,
            &since,
            "--step=1s",
            "--hpa-sync-period=2",
            "--capacity=10",
            &prometheus,
        ]);
        self.shell.kthena_keda(&[
            "cost",
            &model,
            &since,
            "--gpus-per-group=8",
            "--gpu-cost=2.5",
            &prometheus,
        ]);
    }

    /// Starts a step; a `mark` that is not empty labels it in the chart.
    fn step(&mut self, text: &str, mark: &str) {
        self.view.begin(text);
        if !mark.is_empty() {
            self.recorder.mark(mark);
        }
    }

    async fn sample(&mut self) -> Sample {
        let sample = self.recorder.look(&self.chain, &self.chat, &self.load).await.clone();
        self.view.show(&sample);
        sleep(INTERVAL).await;
        sample
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Sample) -> bool) {
        let limit = Instant::now() + LIMIT;
        loop {
            let sample = self.sample().await;
            if done(&sample) {
                return;
            }
            assert!(Instant::now() < limit, "waited {LIMIT:?} for {what}; last sample: {sample:?}");
        }
    }

    async fn for_a_while(&mut self, time: Duration, holds: impl Fn(&Sample) -> bool) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let sample = self.sample().await;
            assert!(holds(&sample), "unexpected change: {sample:?}");
        }
    }
}
