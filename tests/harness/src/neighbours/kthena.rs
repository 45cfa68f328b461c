//! Kthena itself: its controller manager and its router.

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

/// Where Kthena is installed.
pub const NAMESPACE: &str = "kthena-system";

const CONTROLLER: Identity = Identity::ServiceAccount(NAMESPACE, "kthena-controller-manager");

/// The running controller manager.
#[derive(Debug)]
pub struct Kthena {
    /// Makes pods of ModelServings.
    pub controller: Program,
}

impl Kthena {
    /// Starts it with the rights that it is shipped with. Its definitions must be there.
    pub async fn start(control_plane: &ControlPlane, client: &Client) -> Self {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
            .await;
        grant(client, "kthena-controller-manager", "kthena/rbac/controller-manager.yaml").await;
        let kubeconfig = control_plane.kubeconfig(&CONTROLLER);
        let mut command = Command::new(binary("kthena-controller-manager"));
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--debug-port={}", free_port()))
            .args(["--enable-webhook=false", "--controllers=modelserving", "--leader-elect=false"])
            .args(["--kube-api-qps=200", "--kube-api-burst=400"]);
        Self { controller: Program::new("kthena-controller-manager", &control_plane.folder, command) }
    }
}

/// Binds the role that a component is shipped with to its service account.
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

/// One running router, and the pod that stands for it.
#[derive(Debug)]
pub struct Router {
    /// The program.
    pub program: Program,
    /// Where clients reach it.
    pub url: String,
    name: &'static str,
    port: u16,
}

/// The router takes its credentials and its configuration from fixed places only. In a mount namespace of its own these are put
/// there without touching the machine.
const IN_ITS_OWN_PLACES: &str = r#"
mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && cp -r "$1"/serviceaccount /run/secrets/kubernetes.io/
mount --bind "$1"/etc /etc
shift
exec "$@"
"#;

impl Router {
    /// Starts one on a port of its own.
    pub async fn start(control_plane: &ControlPlane, client: &Client, name: &'static str) -> Self {
        Self::start_with(control_plane, client, name, &[]).await
    }

    /// The same, with something different in its environment.
    pub async fn start_with(
        control_plane: &ControlPlane,
        client: &Client,
        name: &'static str,
        environment: &[(&str, &str)],
    ) -> Self {
        grant(client, "kthena-router", "kthena/rbac/router.yaml").await;
        let places = control_plane.folder.join(name);
        configure(&places);
        let token = token(client).await;
        for (file, content) in [("token", token.as_bytes()), ("namespace", NAMESPACE.as_bytes())] {
            write(places.join("serviceaccount").join(file), content);
        }
        fs::copy(control_plane.certificate_authority(), places.join("serviceaccount/ca.crt"))
            .expect("a copy");
        let port = free_port();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", IN_ITS_OWN_PLACES, "sh"])
            .arg(&places)
            .arg(binary("kthena-router"))
            .args([
                format!("--port={port}"),
                format!("--debug-port={}", free_port()),
                "--enable-webhook=false".to_owned(),
            ])
            .envs(environment.iter().copied())
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", control_plane.port().to_string());
        let program = Program::new(name, &control_plane.folder, command);
        let router = Self { program, url: format!("http://127.0.0.1:{port}"), name, port };
        apply(client, pod(name, port)).await;
        apply(client, service()).await;
        router.ready().await;
        router
    }

    /// Ends it, and takes its pod away.
    pub async fn remove(self, client: &Client) {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        pods.delete(self.name, &DeleteParams::default()).await.expect("to delete its pod");
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        until_listening("the router", self.port).await;
    }
}

/// Kthena's own configuration, as its chart gives it to the router.
fn configure(places: &Path) {
    fs::create_dir_all(places.join("etc/config")).expect("a folder");
    fs::create_dir_all(places.join("serviceaccount")).expect("a folder");
    let text =
        fs::read_to_string(manifests("kthena/router-configuration.yaml")).expect("Kthena's configuration");
    let (_, configuration) = text.split_once("routerConfiguration: |-").expect("Kthena's configuration");
    write(places.join("etc/config/routerConfiguration.yaml"), configuration);
    write(places.join("etc/hosts"), "127.0.0.1 localhost\n");
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

/// The router's pod, for whoever looks for it; the process answers at its address.
fn pod(name: &str, port: u16) -> Value {
    let container = json!({"name": "kthena-router", "image": "kthena-router", "ports": [{"name": "http", "containerPort": port}]});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels()},
        "spec": {"nodeName": NODE, "containers": [container]},
    })
}

/// The Service as Kthena's chart makes it, with the port by name, since each replica has its own number here.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kthena-router", "namespace": NAMESPACE, "labels": labels()},
        "spec": {"selector": labels(), "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}
