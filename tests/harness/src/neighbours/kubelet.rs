//! The part of a kubelet that kwok only simulates: it runs the stand-in pods and the mock engines of pods that ask for one, at the
//! pods' addresses, and reports their readiness.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use engine::{Engine, EngineSettings};
use k8s_openapi::{
    api::core::v1::{Binding, ObjectReference, Pod, PodCondition},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    dns::Dns,
    kwok::{LOADING, NODE},
    vllm::RUNTIME,
};
use crate::{
    Process,
    certificates::Identity,
    control_plane::{ControlPlane, free_port},
    process::write,
    web,
};

/// Label of stand-in pods, whose containers run the operator's binary.
pub const STAND_IN: &str = "autoscaling.kthena.io/stand-in";
/// Value of [`RUNTIME`] for a mock engine.
pub(crate) const MOCK: &str = "mock";

/// Interval at which pods are compared with their containers.
const SYNC: Duration = Duration::from_millis(100);
/// Grace period of pods that set none.
const GRACE: i64 = 30;

/// Mounts the pod's resolver configuration in a mount namespace of its own, so that the machine stays unchanged.
const MOUNT_RESOLVER: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;

/// The running kubelet.
#[derive(Debug)]
pub struct Kubelet {
    /// Port of every mock engine.
    pub port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    containers: Mutex<BTreeMap<String, Container>>,
    has_stopped: AtomicBool,
}

/// The container of a pod.
#[derive(Debug)]
struct Container {
    pod: String,
    runs: Runs,
    /// End of the grace period.
    killed_at: Option<Instant>,
}

#[derive(Debug)]
enum Runs {
    Loading(Instant),
    /// `None` after it died.
    Engine(Option<Engine>),
    StandIn(Process),
}

struct Settings {
    operator: PathBuf,
    folder: PathBuf,
    resolv_conf: Box<dyn Fn(&str) -> PathBuf + Send>,
    engine: EngineSettings,
    port: u16,
}

impl Kubelet {
    /// Starts it. Stand-in pods run `operator` and resolve names at `dns`; mock engines have these settings.
    pub async fn start(
        control_plane: &ControlPlane,
        operator: &Path,
        dns: &Dns,
        engine: EngineSettings,
    ) -> Self {
        let config = control_plane.config(&Identity::Admin).await;
        let (shared, port, folder) = (Arc::<Shared>::default(), free_port(), control_plane.folder.clone());
        let template = std::fs::read_to_string(dns.resolv_conf("NAMESPACE")).expect("a file");
        let files = folder.clone();
        let resolv_conf = move |namespace: &str| {
            write(files.join(format!("{namespace}.resolv.conf")), template.replace("NAMESPACE", namespace))
        };
        let settings = Settings {
            operator: operator.to_owned(),
            folder,
            resolv_conf: Box::new(resolv_conf),
            engine,
            port,
        };
        let worker = Worker { shared: shared.clone(), settings };
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(worker.run(config));
        });
        Self { port, shared, thread: Some(thread) }
    }

    /// Names of the stand-in pods that run.
    pub fn stand_ins(&self) -> Vec<String> {
        let containers = self.shared.containers();
        let stand_ins = containers.values().filter(|container| matches!(container.runs, Runs::StandIn(_)));
        stand_ins.map(|container| container.pod.clone()).collect()
    }

    /// Log of the stand-in pods of this name.
    pub fn log(&self, pod: &str) -> String {
        self.with_stand_in(pod, |process| process.log()).unwrap_or_default()
    }

    /// Present and peak resident memory of a stand-in, in KiB, and its CPU time.
    pub fn usage(&self, pod: &str) -> Option<((u64, u64), Duration)> {
        self.with_stand_in(pod, |process| Some((process.memory()?, process.cpu()?))).flatten()
    }

    /// Sends a signal by name to a stand-in. After `KILL` it starts again, as a container of a pod does.
    pub fn signal(&self, pod: &str, signal: &str) {
        self.with_stand_in(pod, |process| process.signal(signal)).expect("the stand-in");
    }

    /// Kills the mock engines of all pods whose names begin with `prefix`, and returns their number. They do not start again.
    pub fn kill_engines(&self, prefix: &str) -> usize {
        let mut containers = self.shared.containers();
        let engines = containers.values_mut().filter(|container| container.pod.starts_with(prefix));
        let killed: Vec<Engine> = engines
            .filter_map(|container| match &mut container.runs {
                Runs::Engine(engine) => engine.take(),
                Runs::Loading(_) | Runs::StandIn(_) => None,
            })
            .collect();
        killed.len()
    }

    fn with_stand_in<T>(&self, pod: &str, action: impl FnOnce(&mut Process) -> T) -> Option<T> {
        let mut containers = self.shared.containers();
        let container = containers.values_mut().find(|container| container.pod == pod)?;
        match &mut container.runs {
            Runs::StandIn(process) => Some(action(process)),
            Runs::Loading(_) | Runs::Engine(_) => None,
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.has_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_stand_in(pod: &Pod) -> bool {
    pod.labels().contains_key(STAND_IN)
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Namespace and name, because pods of different namespaces have the same name.
fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// The time of [`LOADING`], in milliseconds or seconds.
fn loading(pod: &Pod) -> Duration {
    let text = pod.annotations().get(LOADING).map_or("0s", String::as_str);
    let parsed = match text.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse().map(Duration::from_millis),
        None => text.trim_end_matches('s').parse().map(Duration::from_secs),
    };
    parsed.unwrap_or_else(|_| panic!("invalid loading time {text}"))
}

struct Worker {
    shared: Arc<Shared>,
    settings: Settings,
}

impl Worker {
    async fn run(self, config: Config) {
        let client = Client::try_from(config).expect("a client");
        let pods: Api<Pod> = Api::all(client.clone());
        while !self.shared.has_stopped.load(Ordering::Relaxed) {
            if let Ok(found) = pods.list(&ListParams::default()).await {
                let runs_mock = |pod: &Pod| pod.annotations().get(RUNTIME).is_some_and(|name| name == MOCK);
                for pod in found.items.iter().filter(|pod| is_stand_in(pod) || runs_mock(pod)) {
                    self.sync(&client, pod).await;
                }
                let uids: Vec<String> = found.items.iter().filter_map(ResourceExt::uid).collect();
                self.shared.containers().retain(|uid, _| uids.contains(uid));
            }
            sleep(SYNC).await;
        }
        self.shared.containers().clear();
    }

    async fn sync(&self, client: &Client, pod: &Pod) {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if !has_node && !is_terminating(pod) {
            return bind(&api, pod).await;
        }
        if is_terminating(pod) {
            if self.has_ended(pod) {
                remove(&api, pod).await;
            } else {
                report(&api, pod, false).await;
            }
            return;
        }
        let Some(address) = address(pod) else { return };
        let is_ready = self.start(pod, address) && (!is_stand_in(pod) || probe(pod, address).await);
        report(&api, pod, is_ready).await;
    }

    /// Starts the container unless it runs; returns `true` if it runs.
    fn start(&self, pod: &Pod, address: IpAddr) -> bool {
        let mut containers = self.shared.containers();
        let container = containers.entry(pod.uid().unwrap_or_default()).or_insert_with(|| {
            let runs = if is_stand_in(pod) {
                Runs::StandIn(self.stand_in(pod, address))
            } else {
                Runs::Loading(Instant::now())
            };
            Container { pod: name(pod), runs, killed_at: None }
        });
        match &mut container.runs {
            Runs::Loading(since) if since.elapsed() < loading(pod) => return false,
            Runs::Loading(_) => {
                let engine =
                    Engine::start_at((address, self.settings.port).into(), self.settings.engine.clone());
                container.runs = Runs::Engine(Some(engine));
            }
            Runs::Engine(engine) => return engine.is_some(),
            Runs::StandIn(process) => {
                if process.has_ended() {
                    *process = self.stand_in(pod, address);
                }
            }
        }
        true
    }

    fn stand_in(&self, pod: &Pod, address: IpAddr) -> Process {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).expect("a container");
        let namespace = pod.namespace().unwrap_or_default();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", MOUNT_RESOLVER, "sh"])
            .arg((self.settings.resolv_conf)(&namespace))
            .arg(&self.settings.operator)
            .args(container.args.iter().flatten().map(|argument| argument.replace("$$", "$")))
            .arg(format!("--address={address}"))
            .arg("--log-level=info,kthena_keda=debug");
        Process::start(&self.settings.folder, &name(pod).replace('/', "-"), &command)
    }

    /// Ends the container of a terminating pod; returns `true` once it has ended.
    fn has_ended(&self, pod: &Pod) -> bool {
        let mut containers = self.shared.containers();
        let uid = pod.uid().unwrap_or_default();
        let Some(container) = containers.get_mut(&uid) else { return true };
        if let Runs::StandIn(process) = &mut container.runs {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(GRACE).unsigned_abs();
            let is_first = container.killed_at.is_none();
            let killed_at =
                *container.killed_at.get_or_insert_with(|| Instant::now() + Duration::from_secs(grace));
            if is_first {
                process.signal("TERM");
            }
            if !process.has_ended() && Instant::now() < killed_at {
                return false;
            }
        }
        containers.remove(&uid);
        true
    }
}

/// Binds a pod to the only node, because there is no scheduler.
pub async fn bind(api: &Api<Pod>, pod: &Pod) {
    let target = ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(NODE.to_owned()),
        ..ObjectReference::default()
    };
    let metadata = ObjectMeta { name: Some(pod.name_any()), ..ObjectMeta::default() };
    let binding = Binding { metadata, target };
    // An error is fine: the pod may have been deleted meanwhile.
    let _ = api
        .create_subresource::<_, Value>("binding", &pod.name_any(), &PostParams::default(), &binding)
        .await;
}

/// Asks the readiness probe of the first container.
async fn probe(pod: &Pod, address: IpAddr) -> bool {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let mut arguments = container.into_iter().flat_map(|container| container.args.iter().flatten());
    let port = arguments.find_map(|argument| argument.strip_prefix("--probe-port=")).unwrap_or("8081");
    let answer = web::get(&format!("http://{address}:{port}/readyz")).await;
    answer.is_some_and(|(status, _)| status == 200)
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition.status == "True")
}

/// Writes the readiness of a pod, which its readiness gates decide, too, if it has changed.
async fn report(api: &Api<Pod>, pod: &Pod, runs: bool) {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let is_ready = runs && gates.into_iter().all(|gate| is_true(pod, &gate.condition_type));
    if is_true(pod, "ContainersReady") == runs && is_true(pod, "Ready") == is_ready {
        return;
    }
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: bool| json!({"type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": now});
    let conditions =
        [condition("Initialized", true), condition("ContainersReady", runs), condition("Ready", is_ready)];
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<Value> = containers
        .map(|container| {
            let state = if runs { json!({"running": {"startedAt": now}}) } else { json!({"waiting": {}}) };
            json!({"name": container.name, "image": container.image, "imageID": "", "restartCount": 0, "ready": runs, "started": runs, "state": state})
        })
        .collect();
    let patch = json!({"status": {"conditions": conditions, "containerStatuses": statuses}});
    // The strategy merges conditions by type, so those of others stay. The pod may be gone.
    let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
}

/// Removes a terminating pod from the API server.
async fn remove(api: &Api<Pod>, pod: &Pod) {
    let preconditions = Preconditions { uid: pod.uid(), ..Preconditions::default() };
    let parameters =
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let _ = api.delete(&pod.name_any(), &parameters).await;
}
