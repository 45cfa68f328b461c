//! The chart, installed by the real helm, and the operator's pods, run as the Deployment has them.
//!
//! Nothing runs containers here. So that the chart is used as it is shipped, its pods are bound to the one node, and for each that gets an
//! address the operator's binary is started with the pod's arguments, environment and service account, listening at the pod's address.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Binding, Container, EnvVar, ObjectReference, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, ObjectMeta, PostParams},
};
use tokio::task::JoinHandle;

use crate::{
    Identity, Process,
    control_plane::{ControlPlane, binary},
    neighbours::NODE,
    operator::OPERATOR,
    stack::root,
};

/// Where the chart is installed, and as what.
pub const RELEASE: &str = "kthena-keda";

/// The chart in a cluster.
#[derive(Debug)]
pub struct Release {
    kubeconfig: PathBuf,
    home: PathBuf,
    pods: Pods,
}

impl Release {
    /// Nothing is installed yet; whatever pods there will be are run with this binary.
    pub async fn prepare(control_plane: &ControlPlane, operator: &Path) -> Self {
        let client = control_plane.client(&Identity::Admin).await;
        Self {
            kubeconfig: control_plane.kubeconfig(&Identity::Admin),
            home: control_plane.folder.join("helm"),
            pods: Pods::follow(client, control_plane, operator),
        }
    }

    /// Installs the chart, or upgrades it, with these values; answers what helm says.
    ///
    /// # Errors
    /// What helm complains about.
    pub fn upgrade(&self, values: &[String]) -> Result<String, String> {
        let chart = root().join("charts/kthena-keda");
        let mut arguments =
            vec!["upgrade", "--install", RELEASE, chart.to_str().expect("a path"), "--create-namespace"];
        arguments.extend(values.iter().flat_map(|value| ["--set", value.as_str()]));
        self.helm(&arguments)
    }

    /// Uninstalls it.
    ///
    /// # Errors
    /// What helm complains about.
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
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said.into_owned()) } else { Err(complained.into_owned()) }
    }

    /// The names of the pods that run.
    pub fn pods(&self) -> Vec<String> {
        self.pods.running().keys().cloned().collect()
    }

    /// Kills the process of a pod, as if its node were gone: it is not started again.
    pub fn kill(&self, pod: &str) {
        let process = self.pods.running().insert(pod.to_owned(), None);
        drop(process.flatten().unwrap_or_else(|| panic!("{pod} does not run")));
    }

    /// The logs of all pods so far, for messages.
    pub fn logs(&self) -> String {
        let running = self.pods.running();
        running
            .iter()
            .filter_map(|(name, process)| Some(format!("{name}:\n{}", process.as_ref()?.log())))
            .collect()
    }
}

type Running = BTreeMap<String, Option<Process>>;

/// The operator's pods, each with its process.
#[derive(Debug)]
struct Pods {
    running: Arc<Mutex<Running>>,
    follower: JoinHandle<()>,
}

impl Pods {
    fn follow(client: Client, control_plane: &ControlPlane, operator: &Path) -> Self {
        let running = Arc::<Mutex<Running>>::default();
        let starter = Starter {
            operator: operator.to_owned(),
            folder: control_plane.folder.clone(),
            kubeconfig: control_plane.kubeconfig(&OPERATOR),
        };
        let (shared, api) = (running.clone(), Api::<Pod>::namespaced(client, RELEASE));
        let follower = tokio::spawn(async move {
            loop {
                if let Ok(pods) =
                    api.list(&ListParams::default().labels("app.kubernetes.io/name=kthena-keda")).await
                {
                    bind(&api, &pods.items).await;
                    starter.follow(&mut shared.lock().expect("a lock"), &pods.items);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { running, follower }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().expect("a lock")
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// There is no scheduler, and one node.
async fn bind(api: &Api<Pod>, pods: &[Pod]) {
    let unbound = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
    for pod in pods.iter().filter(unbound) {
        let target = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(NODE.to_owned()),
            ..ObjectReference::default()
        };
        let metadata = ObjectMeta { name: Some(pod.name_any()), ..ObjectMeta::default() };
        let binding = Binding { metadata, target };
        // A pod that went meanwhile needs no node.
        let _ = api
            .create_subresource::<_, serde_json::Value>(
                "binding",
                &pod.name_any(),
                &PostParams::default(),
                &binding,
            )
            .await;
    }
}

struct Starter {
    operator: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Starter {
    /// Starts what has got an address, and tells to end what is gone.
    fn follow(&self, running: &mut Running, pods: &[Pod]) {
        let stays = |name: &str| {
            pods.iter().any(|pod| pod.name_any() == name && pod.metadata.deletion_timestamp.is_none())
        };
        let gone: Vec<String> = running.keys().filter(|name| !stays(name)).cloned().collect();
        for process in gone.iter().filter_map(|name| running.remove(name).flatten()) {
            // Ends within ten seconds, as it promises, while everything else goes on.
            std::thread::spawn(move || assert!(process.terminate(), "SIGTERM ends it in order"));
        }
        for pod in pods.iter().filter(|pod| stays(&pod.name_any())) {
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
            "the tests have certificates for this one"
        );
        let [Container { args, env, .. }] = spec.containers.as_slice() else {
            panic!("one container is expected")
        };
        let mut command = Command::new(&self.operator);
        let args =
            args.iter().flatten().map(|arg| arg.replace("--listen=:", &format!("--listen={address}:")));
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        command.envs(env.iter().flatten().map(|variable| (variable.name.clone(), value(variable, pod))));
        Process::start(&self.folder, &pod.name_any(), &command)
    }
}

/// The value of an environment variable, by the downward API where it says so.
fn value(variable: &EnvVar, pod: &Pod) -> String {
    let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
    match field.map(|field| field.field_path.as_str()) {
        None => variable.value.clone().unwrap_or_default(),
        Some("metadata.name") => pod.name_any(),
        Some("metadata.namespace") => pod.namespace().unwrap_or_default(),
        Some(other) => panic!("{other} is not known here"),
    }
}
