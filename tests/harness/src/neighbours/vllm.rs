//! Real vLLM engines on CPUs, one for each pod that asks for it, in place of the simulated kubelet.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, built},
    stack::root,
    wait::until_asked_within,
    web,
};

/// Pod annotation that gives a pod a real engine.
pub const RUNTIME: &str = "stack.test/runtime";
/// Port of every engine.
pub const PORT: u16 = 8000;

/// Time limit of a start, on a busy machine.
const START: Duration = Duration::from_mins(5);
/// Interval of the readiness probe.
const PROBE: Duration = Duration::from_millis(200);
/// Grace period of pods that set none.
const GRACE: i64 = 30;

/// The way in which engines start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By a copy of a process that has already imported vLLM, to save time.
    Fork,
    /// In a new process, as in vLLM's container image.
    Exec,
}

/// A period in the life of an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `/health` responds with status 200; the time since the start.
    Ready(Duration),
    /// The process ended by itself, with this exit code or negative signal.
    Failed(i64),
    /// The process ended after SIGTERM; the time since the signal, and the exit code or negative signal.
    Stopped(Duration, i64),
}

/// A running vLLM environment, which starts an engine for each pod and reports its readiness, as a kubelet does.
///
/// A pod gets an engine once it has an address, with the arguments of its first container. On deletion the engine
/// gets SIGTERM after the `sleep` of a `preStop` hook, and SIGKILL at the end of the grace period.
#[derive(Debug)]
pub struct Vllm {
    process: Child,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    commands: Option<ChildStdin>,
    logs: PathBuf,
    engines: BTreeMap<String, Engine>,
    is_ready: bool,
    /// Changes of all engines, with the pods' names.
    changes: Vec<(String, Change)>,
}

#[derive(Debug)]
struct Engine {
    pod: Pod,
    started: Instant,
    stopped: Option<Instant>,
}

/// `true` if the environment was built, by `tests/stack/build vllm`.
pub fn is_built() -> bool {
    built().join("vllm/venv").exists()
}

impl Vllm {
    /// Starts the environment and the watch of pods.
    ///
    /// # Panics
    /// If the environment was not built.
    pub async fn start(control_plane: &ControlPlane, start: Start) -> Self {
        let mut command = Command::new(built().join("vllm/venv/bin/python"));
        command.arg(root().join("tests/vllm/engines.py")).args((start == Start::Exec).then_some("--exec"));
        let log = fs::File::create(control_plane.folder.join("vllm.log")).expect("a file");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the environment of vLLM; run `tests/stack/build vllm`");
        let (commands, events) = (process.stdin.take(), process.stdout.take().expect("a pipe"));
        let logs = control_plane.folder.join("vllm");
        fs::create_dir_all(&logs).expect("a folder");
        let state = Arc::new(Mutex::new(State {
            commands,
            logs,
            engines: BTreeMap::new(),
            is_ready: false,
            changes: Vec::new(),
        }));
        let config = control_plane.config(&Identity::Admin).await;
        let (kubelet, kubelet_config) = (Kubelet(state.clone()), config.clone());
        thread::spawn(move || on_runtime(kubelet.follow_pods(kubelet_config)));
        let kubelet = Kubelet(state.clone());
        thread::spawn(move || {
            for line in BufReader::new(events).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    on_runtime(kubelet.handle(&config, event));
                }
            }
        });
        let vllm = Self { process, state };
        let is_ready = async || locked(&vllm.state).is_ready;
        until_asked_within(START, "vLLM is imported", is_ready, |is_ready| *is_ready).await;
        vllm
    }

    /// Changes of all engines so far, with the pods' names.
    pub fn changes(&self) -> Vec<(String, Change)> {
        locked(&self.state).changes.clone()
    }

    /// Number of engines that run or load.
    pub fn count(&self) -> usize {
        locked(&self.state).engines.len()
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        // At the end of its input it kills all engines.
        locked(&self.state).commands = None;
        let _ = self.process.wait();
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_runtime(task: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(task);
}

impl State {
    fn send(&mut self, command: &Value) {
        if let Some(commands) = &mut self.commands {
            let _ = writeln!(commands, "{command}");
        }
    }
}

/// Name of an engine: namespace, name and UID, because a pod of the same name may follow.
fn key(pod: &Pod) -> String {
    format!("{}.{}.{}", pod.namespace().unwrap_or_default(), pod.name_any(), pod.uid().unwrap_or_default())
}

#[derive(Clone)]
struct Kubelet(Arc<Mutex<State>>);

impl Kubelet {
    async fn follow_pods(self, config: Config) {
        let client = Client::try_from(config).expect("a client");
        let pods: Api<Pod> = Api::all(client.clone());
        let mut states = std::pin::pin!(
            watcher::watcher(pods, watcher::Config::default()).default_backoff().touched_objects()
        );
        while let Some(state) = states.next().await {
            if locked(&self.0).commands.is_none() {
                return;
            }
            if let Ok(pod) = state
                && pod.annotations().contains_key(RUNTIME)
            {
                self.reconcile(&client, &pod).await;
            }
        }
    }

    async fn reconcile(&self, client: &Client, pod: &Pod) {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let engine = locked(&self.0).engines.get(&key(pod)).map(|engine| engine.stopped.is_some());
        match (engine, is_terminating, address) {
            (None, false, Some(address)) => self.start(client, pod, address),
            (None, true, _) => remove(client, pod).await,
            (Some(false), true, _) => self.stop(pod),
            (None, false, None) | (Some(_), ..) => {}
        }
    }

    fn start(&self, client: &Client, pod: &Pod, address: &str) {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let mut arguments = container.and_then(|container| container.args.clone()).unwrap_or_default();
        let model = built().join("vllm/model").display().to_string();
        for argument in ["--model", &model, "--host", address, "--port", &PORT.to_string()] {
            arguments.push(argument.to_owned());
        }
        let name = key(pod);
        {
            let mut state = locked(&self.0);
            let log = state.logs.join(format!("{name}.log"));
            state.send(&json!({"start": name, "arguments": arguments, "log": log}));
            let engine = Engine { pod: pod.clone(), started: Instant::now(), stopped: None };
            state.engines.insert(name, engine);
        }
        let (kubelet, client, pod, url) =
            (self.clone(), client.clone(), pod.clone(), format!("http://{address}:{PORT}/health"));
        tokio::spawn(async move { kubelet.probe(&client, &pod, &url).await });
    }

    /// Waits until the engine is ready, and reports it.
    async fn probe(&self, client: &Client, pod: &Pod, url: &str) {
        while web::get(url).await.is_none_or(|(status, _)| status != 200) {
            sleep(PROBE).await;
            if !locked(&self.0).engines.contains_key(&key(pod)) {
                return;
            }
        }
        {
            let mut state = locked(&self.0);
            if let Some(time) = state.engines.get(&key(pod)).map(|engine| engine.started.elapsed()) {
                state.changes.push((pod.name_any(), Change::Ready(time)));
            }
        }
        report_readiness(client, pod, true).await;
    }

    fn stop(&self, pod: &Pod) {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let hook =
            container.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref());
        let delay = Duration::from_secs(hook.map_or(0, |sleep| sleep.seconds).unsigned_abs());
        let grace =
            Duration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(GRACE).unsigned_abs());
        let name = key(pod);
        if let Some(engine) = locked(&self.0).engines.get_mut(&name) {
            engine.stopped = Some(Instant::now() + delay);
        }
        let kubelet = self.clone();
        tokio::spawn(async move {
            sleep(delay.min(grace)).await;
            locked(&kubelet.0).send(&json!({"stop": name, "grace": grace.saturating_sub(delay).as_secs()}));
        });
    }

    /// Handles an event of the environment.
    async fn handle(&self, config: &Config, event: Value) {
        let Some(name) = event["ended"].as_str() else {
            locked(&self.0).is_ready = true;
            return;
        };
        let Some(engine) = locked(&self.0).engines.remove(name) else { return };
        let code = event["code"].as_i64().unwrap_or_default();
        let client = Client::try_from(config.clone()).expect("a client");
        let change = match engine.stopped {
            Some(stopped) => Change::Stopped(stopped.elapsed(), code),
            None => Change::Failed(code),
        };
        if engine.stopped.is_some() {
            remove(&client, &engine.pod).await;
        } else {
            report_readiness(&client, &engine.pod, false).await;
        }
        locked(&self.0).changes.push((engine.pod.name_any(), change));
    }
}

async fn report_readiness(client: &Client, pod: &Pod, is_ready: bool) {
    let (now, status) = (Timestamp::now().to_string(), if is_ready { "True" } else { "False" });
    let conditions: Vec<Value> = ["Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|kind| json!({"type": kind, "status": if *kind == "Initialized" { "True" } else { status }, "lastTransitionTime": now}))
        .collect();
    let containers: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": is_ready, "started": is_ready,
                "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let patch = json!({"status": {"conditions": conditions, "containerStatuses": containers}});
    // The pod may be gone.
    let _ =
        api(client, pod).patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
}

/// Removes a terminating pod from the API server.
async fn remove(client: &Client, pod: &Pod) {
    let preconditions = Preconditions { uid: pod.uid(), ..Preconditions::default() };
    let parameters =
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let _ = api(client, pod).delete(&pod.name_any(), &parameters).await;
}

fn api(client: &Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default())
}
