//! Kthena's controller manager and router.

use std::{fs, path::Path, process::Command};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use super::{Program, kwok::NODE, manifests};
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary, free_port},
    objects::{apply, read},
    process::write,
    wait::until_listening,
};

/// Namespace of Kthena.
pub const NAMESPACE: &str = "kthena-system";

const CONTROLLER: Identity = Identity::ServiceAccount(NAMESPACE, "kthena-controller-manager");

/// Kthena's running controller manager.
#[derive(Debug)]
pub struct Kthena {
    /// Creates the pods of ModelServings.
    pub controller: Program,
}

impl Kthena {
    /// Starts the controller manager with the permissions of its release. Kthena's CRDs must be installed.
    pub async fn start(control_plane: &ControlPlane, client: &Client) -> Self {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
            .await;
        grant(client, "kthena-controller-manager", "kthena/rbac/controller-manager.yaml").await;
        let kubeconfig = control_plane.kubeconfig(&CONTROLLER);
        let mut command = Command::new(binary("kthena-controller-manager"));
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--debug-port={}", free_port()))
            .args([
                "--enable-webhook=false",
                "--controllers=modelserving,modelbooster,autoscaler",
                "--leader-elect=false",
            ])
            .args(["--kube-api-qps=200", "--kube-api-burst=400"]);
        Self { controller: Program::new("kthena-controller-manager", &control_plane.folder, command) }
    }
}

/// Binds the `ClusterRole` of a component's release to its service account.
async fn grant(client: &Client, name: &str, role: &str) {
    apply(client, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}})).await;
    for role in read(&manifests(role)) {
        apply(client, role).await;
    }
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE});
    apply(
        client,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name}, "roleRef": role, "subjects": [subject],
        }),
    )
    .await;
}

/// A running router and the pod that represents it.
#[derive(Debug)]
pub struct Router {
    /// The program.
    pub program: Program,
    /// URL for clients.
    pub url: String,
    name: &'static str,
    port: u16,
}

/// Mounts credentials and configuration at the fixed paths from which the router reads them, in a mount
/// namespace of its own so that the machine stays unchanged.
const MOUNT_FILES: &str = r#"
mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && cp -r "$1"/serviceaccount /run/secrets/kubernetes.io/
mount --bind "$1"/etc /etc
shift
exec "$@"
"#;

/// Waiting requests in an engine at which the router passes it over, in Kthena's chart.
pub const MAX_WAITING: u32 = 10;

/// Settings of a router.
#[derive(Clone, Copy, Debug)]
pub struct RouterSettings<'a> {
    /// Further environment variables.
    pub environment: &'a [(&'a str, &'a str)],
    /// Waiting requests in an engine at which the router passes it over. It refuses requests while it passes over all engines.
    pub max_waiting: u32,
}

impl Default for RouterSettings<'_> {
    fn default() -> Self {
        Self { environment: &[], max_waiting: MAX_WAITING }
    }
}

impl Router {
    /// Starts a router on a free port.
    pub async fn start(control_plane: &ControlPlane, client: &Client, name: &'static str) -> Self {
        Self::start_with(control_plane, client, name, RouterSettings::default()).await
    }

    /// [`Self::start`] with settings.
    pub async fn start_with(
        control_plane: &ControlPlane,
        client: &Client,
        name: &'static str,
        settings: RouterSettings<'_>,
    ) -> Self {
        grant(client, "kthena-router", "kthena/rbac/router.yaml").await;
        let folder = control_plane.folder.join(name);
        configure(&folder, settings.max_waiting);
        let token = token(client).await;
        for (file, content) in [("token", token.as_bytes()), ("namespace", NAMESPACE.as_bytes())] {
            write(folder.join("serviceaccount").join(file), content);
        }
        fs::copy(control_plane.certificate_authority(), folder.join("serviceaccount/ca.crt"))
            .expect("a copy");
        let port = free_port();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", MOUNT_FILES, "sh"])
            .arg(&folder)
            .arg(binary("kthena-router"))
            .args([
                format!("--port={port}"),
                format!("--debug-port={}", free_port()),
                "--enable-webhook=false".to_owned(),
            ])
            .envs(settings.environment.iter().copied())
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", control_plane.port().to_string());
        let program = Program::new(name, &control_plane.folder, command);
        let router = Self { program, url: format!("http://127.0.0.1:{port}"), name, port };
        apply(client, pod(name, port)).await;
        apply(client, service()).await;
        router.ready().await;
        router
    }

    /// Stops the router and deletes its pod.
    pub async fn remove(self, client: &Client) {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        pods.delete(self.name, &DeleteParams::default()).await.expect("to delete its pod");
    }

    /// Waits until the router listens.
    pub async fn ready(&self) {
        until_listening("the router", self.port).await;
    }
}

/// Writes the router configuration of Kthena's chart, with this many waiting requests in an engine that is not passed over.
fn configure(folder: &Path, max_waiting: u32) {
    fs::create_dir_all(folder.join("etc/config")).expect("a folder");
    fs::create_dir_all(folder.join("serviceaccount")).expect("a folder");
    let text =
        fs::read_to_string(manifests("kthena/router-configuration.yaml")).expect("Kthena's configuration");
    let (_, configuration) = text.split_once("routerConfiguration: |-").expect("Kthena's configuration");
    let default = format!("maxWaitingRequests: {MAX_WAITING}");
    assert!(configuration.contains(&default), "Kthena's configuration has {default}");
    let configuration = configuration.replace(&default, &format!("maxWaitingRequests: {max_waiting}"));
    write(folder.join("etc/config/routerConfiguration.yaml"), &configuration);
    write(folder.join("etc/hosts"), "127.0.0.1 localhost\n");
}

async fn token(client: &Client) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let token = accounts
        .create_token_request("kthena-router", &PostParams::default(), &request)
        .await
        .expect("a token");
    token.status.expect("a token").token
}

fn labels() -> Value {
    json!({"app.kubernetes.io/component": "kthena-router", "app.kubernetes.io/name": "networking"})
}

/// The router's pod, at whose address the process listens; Services and the operator find the router through
/// it.
fn pod(name: &str, port: u16) -> Value {
    let container = json!({"name": "kthena-router", "image": "kthena-router", "ports": [{"name": "http", "containerPort": port}]});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels()},
        "spec": {"nodeName": NODE, "containers": [container]},
    })
}

/// The Service of Kthena's chart, except that it refers to the port by name: each replica has another port
/// number here.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kthena-router", "namespace": NAMESPACE, "labels": labels()},
        "spec": {"selector": labels(), "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}
