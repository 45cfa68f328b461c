//! The chart, installed by helm, and the operator's pods as its Deployment defines them.
//!
//! No containers run in the stack. Instead, each pod is bound to the only node, and once it has an address
//! the operator's binary starts with the pod's arguments, environment and service account, and listens at the
//! pod's address.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tokio::task::JoinHandle;

use crate::{
    Identity, Process,
    control_plane::{ControlPlane, binary},
    neighbours::bind,
    operator::OPERATOR,
    stack::root,
};

/// Namespace and release name of the chart.
pub const RELEASE: &str = "kthena-keda";

/// The chart's release in a cluster.
#[derive(Debug)]
pub struct Release {
    kubeconfig: PathBuf,
    home: PathBuf,
    pods: Pods,
}

impl Release {
    /// Prepares for [`upgrade`](Self::upgrade), which installs the chart; its pods run this binary.
    pub async fn prepare(control_plane: &ControlPlane, operator: &Path) -> Self {
        let client = control_plane.client(&Identity::Admin).await;
        Self {
            kubeconfig: control_plane.kubeconfig(&Identity::Admin),
            home: control_plane.folder.join("helm"),
            pods: Pods::watch(client, control_plane, operator),
        }
    }

    /// Installs or upgrades the chart with these values (`--set`); returns helm's output.
    ///
    /// # Errors
    /// Standard error of helm, if it fails.
    pub fn upgrade(&self, values: &[String]) -> Result<String, String> {
        self.install(&root().join("charts/kthena-keda"), values)
    }

    /// Installs another chart, such as that of an earlier release, or upgrades to it; returns helm's output.
    ///
    /// # Errors
    /// Standard error of helm, if it fails.
    pub fn install(&self, chart: &Path, values: &[String]) -> Result<String, String> {
        let mut arguments =
            vec!["upgrade", "--install", RELEASE, chart.to_str().expect("a path"), "--create-namespace"];
        arguments.extend(values.iter().flat_map(|value| ["--set", value.as_str()]));
        self.helm(&arguments)
    }

    /// Uninstalls the chart; returns helm's output.
    ///
    /// # Errors
    /// Standard error of helm, if it fails.
    pub fn uninstall(&self) -> Result<String, String> {
        self.helm(&["uninstall", RELEASE])
    }

    fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary("helm"));
        command
            .args(arguments)
            .args(["--namespace", RELEASE])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home);
        let output = command.output().expect("helm");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(stdout.into_owned()) } else { Err(stderr.into_owned()) }
    }

    /// Names of the pods that have been started and not deleted, killed ones included.
    pub fn pods(&self) -> Vec<String> {
        self.pods.running().keys().cloned().collect()
    }

    /// Kills the process of a pod like the loss of its node: it does not start again.
    pub fn kill(&self, pod: &str) {
        let process = self.pods.running().insert(pod.to_owned(), None);
        drop(process.flatten().unwrap_or_else(|| panic!("{pod} does not run")));
    }

    /// Logs of all running pods, for failure messages.
    pub fn logs(&self) -> String {
        let running = self.pods.running();
        running
            .iter()
            .filter_map(|(name, process)| Some(format!("{name}:\n{}", process.as_ref()?.log())))
            .collect()
    }
}

type Running = BTreeMap<String, Option<Process>>;

/// The operator's pods and their processes.
#[derive(Debug)]
struct Pods {
    running: Arc<Mutex<Running>>,
    watcher: JoinHandle<()>,
}

impl Pods {
    fn watch(client: Client, control_plane: &ControlPlane, operator: &Path) -> Self {
        let running = Arc::<Mutex<Running>>::default();
        let starter = Starter {
            operator: operator.to_owned(),
            folder: control_plane.folder.clone(),
            kubeconfig: control_plane.kubeconfig(&OPERATOR),
        };
        let (shared, api) = (running.clone(), Api::<Pod>::namespaced(client, RELEASE));
        let watcher = tokio::spawn(async move {
            loop {
                if let Ok(pods) =
                    api.list(&ListParams::default().labels("app.kubernetes.io/name=kthena-keda")).await
                {
                    bind_all(&api, &pods.items).await;
                    starter.sync(&mut shared.lock().expect("a lock"), &pods.items);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { running, watcher }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().expect("a lock")
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Binds pods to the only node, because there is no scheduler.
async fn bind_all(api: &Api<Pod>, pods: &[Pod]) {
    for pod in pods.iter().filter(|pod| !is_bound(pod)) {
        bind(api, pod).await;
    }
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_some())
}

struct Starter {
    operator: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Starter {
    /// Starts a process for each pod that has an address, and terminates the processes of deleted pods.
    fn sync(&self, running: &mut Running, pods: &[Pod]) {
        let live = || pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let deleted: Vec<String> =
            running.keys().filter(|name| !live().any(|pod| pod.name_any() == **name)).cloned().collect();
        for process in deleted.iter().filter_map(|name| running.remove(name).flatten()) {
            // Terminates on a thread of its own, because it may take up to 10 s.
            std::thread::spawn(move || assert!(process.terminate(), "the operator exits with 0 on SIGTERM"));
        }
        for pod in live() {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            if let Some(address) = address.filter(|_| !running.contains_key(&pod.name_any())) {
                running.insert(pod.name_any(), Some(self.start(pod, &address)));
            }
        }
    }

    fn start(&self, pod: &Pod, address: &str) -> Process {
        let spec = pod.spec.as_ref().expect("a spec");
        let account = spec.service_account_name.as_deref().expect("a service account");
        assert_eq!(
            OPERATOR.user(),
            format!("system:serviceaccount:{RELEASE}:{account}"),
            "the tests have a certificate for this service account only"
        );
        let [Container { args, env, .. }] = spec.containers.as_slice() else {
            panic!("expected one container")
        };
        let mut command = Command::new(&self.operator);
        let args =
            args.iter().flatten().map(|arg| arg.replace("--listen=:", &format!("--listen={address}:")));
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        command.envs(env.iter().flatten().map(|variable| (variable.name.clone(), value(variable, pod))));
        Process::start(&self.folder, &pod.name_any(), &command)
    }
}

/// Value of an environment variable, including references of the downward API.
fn value(variable: &EnvVar, pod: &Pod) -> String {
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    match field.map(|field| field.field_path.as_str()) {
        None => variable.value.clone().unwrap_or_default(),
        Some("metadata.name") => pod.name_any(),
        Some("metadata.namespace") => pod.namespace().unwrap_or_default(),
        Some(other) => panic!("unsupported field reference {other}"),
    }
}
