//! KEDA's operator, metrics adapter and admission webhooks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kube::Client;
use serde_json::{Value, json};

use super::{Program, manifests};
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary, free_port},
    objects::{apply, apply_file, read},
    wait::{until_asked, until_listening},
};

const OPERATOR: Identity = Identity::ServiceAccount("keda", "keda-operator");
const HOSTS: [&str; 5] = [
    "localhost",
    "keda-operator.keda.svc",
    "keda-metrics-apiserver.keda.svc",
    "keda-admission-webhooks.keda.svc",
    "127.0.0.1",
];

/// The running KEDA.
#[derive(Debug)]
pub struct Keda {
    /// Creates HPAs from ScaledObjects, and scales between zero and one.
    pub operator: Program,
    /// Serves external metrics to the HPA.
    pub adapter: Program,
    /// Reject invalid ScaledObjects.
    pub webhooks: Program,
}

impl Keda {
    /// Starts KEDA with the permissions and webhooks of its release. KEDA's CRDs must be installed.
    pub async fn start(control_plane: &ControlPlane, client: &Client) -> Self {
        let starter = Starter::prepare(control_plane, client).await;
        let grpc = free_port();
        let operator = starter.operator(grpc);
        let (port, adapter) = starter.adapter(grpc);
        let (webhook_port, webhooks) = starter.webhooks();
        serve_metrics(client, port, &starter.authority).await;
        register_webhooks(client, webhook_port, &starter.authority).await;
        let keda = Self { operator, adapter, webhooks };
        keda.ready(client).await;
        keda
    }

    /// Starts only the admission webhooks, which reject invalid ScaledObjects; nothing is scaled.
    pub async fn start_webhooks(control_plane: &ControlPlane, client: &Client) -> Program {
        let starter = Starter::prepare(control_plane, client).await;
        let (port, webhooks) = starter.webhooks();
        register_webhooks(client, port, &starter.authority).await;
        webhooks
    }

    /// Waits until the API server serves external metrics.
    pub async fn ready(&self, client: &Client) {
        let discover = async || {
            let request = http::Request::get("/apis/external.metrics.k8s.io/v1beta1")
                .body(Vec::new())
                .expect("a request");
            client.request_text(request).await.map(drop).map_err(|error| error.to_string())
        };
        until_asked("KEDA serves external metrics", discover, Result::is_ok).await.expect("external metrics");
    }
}

struct Starter<'a> {
    control_plane: &'a ControlPlane,
    kubeconfig: PathBuf,
    certificates: PathBuf,
    authority: Vec<u8>,
}

impl<'a> Starter<'a> {
    async fn prepare(control_plane: &'a ControlPlane, client: &Client) -> Self {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keda"}})).await;
        for file in [
            "rbac/role.yaml",
            "rbac/role_binding.yaml",
            "metrics-server/role.yaml",
            "metrics-server/role_binding.yaml",
        ] {
            apply_file(client, &manifests("keda").join(file)).await;
        }
        let certificates = control_plane.authority().folder_of("keda", &HOSTS);
        let authority = fs::read(certificates.join("ca.crt")).expect("a certificate");
        Self { control_plane, kubeconfig: control_plane.kubeconfig(&OPERATOR), certificates, authority }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .arg(format!("--cert-dir={}", self.certificates.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("WATCH_NAMESPACE", "")
            .env("POD_NAMESPACE", "keda")
            .env("KEDA_CLUSTER_OBJECT_NAMESPACE", "keda");
        command
    }

    fn program(&self, name: &'static str, command: Command) -> Program {
        Program::new(name, &self.control_plane.folder, command)
    }

    fn operator(&self, grpc: u16) -> Program {
        let mut command = self.command("keda");
        command
            .arg(format!("--metrics-service-bind-address=127.0.0.1:{grpc}"))
            .arg(format!("--metrics-bind-address=127.0.0.1:{}", free_port()))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{}", free_port()))
            .args(["--enable-webhook-patching=false", "--enable-apiservice-patching=false"])
            // At a poll every two seconds, the default of 20 a second suffices for 40 models.
            .args(["--kube-api-qps=100", "--kube-api-burst=200"]);
        self.program("keda", command)
    }

    fn adapter(&self, grpc: u16) -> (u16, Program) {
        let port = free_port();
        let mut command = self.command("keda-adapter");
        command
            .arg(format!("--secure-port={port}"))
            .arg(format!("--port={}", free_port()))
            .arg(format!("--metrics-service-address=localhost:{grpc}"))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--tls-cert-file={}", self.certificates.join("tls.crt").display()))
            .arg(format!("--tls-private-key-file={}", self.certificates.join("tls.key").display()));
        for flag in ["authentication-kubeconfig", "authorization-kubeconfig", "lister-kubeconfig"] {
            command.arg(format!("--{flag}={}", self.kubeconfig.display()));
        }
        (port, self.program("keda-adapter", command))
    }

    fn webhooks(&self) -> (u16, Program) {
        let port = free_port();
        let mut command = self.command("keda-webhooks");
        command
            .arg(format!("--port={port}"))
            .arg(format!("--metrics-bind-address=127.0.0.1:{}", free_port()))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{}", free_port()));
        (port, self.program("keda-webhooks", command))
    }
}

/// Registers the adapter for external metrics. Its Service resolves to localhost, where the API server
/// connects to the adapter's own port.
async fn serve_metrics(client: &Client, port: u16, authority: &[u8]) {
    apply(
        client,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "keda-metrics-apiserver", "namespace": "keda"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }),
    )
    .await;
    let service = json!({"name": "keda-metrics-apiserver", "namespace": "keda", "port": port});
    let spec = json!({
        "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": service, "caBundle": bundle(authority),
    });
    let metadata = json!({"name": "v1beta1.external.metrics.k8s.io"});
    apply(client, json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": spec})).await;
}

/// Registers the webhooks as KEDA's release does, but with a URL instead of a Service, and with the failure
/// policy `Fail` so that a test notices a failing webhook.
async fn register_webhooks(client: &Client, port: u16, authority: &[u8]) {
    for mut registration in read(Path::new(&manifests("keda/webhooks/validation_webhooks.yaml"))) {
        for webhook in registration["webhooks"].as_array_mut().into_iter().flatten() {
            let path = webhook
                .pointer("/clientConfig/service/path")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            webhook["clientConfig"] =
                json!({"url": format!("https://localhost:{port}{path}"), "caBundle": bundle(authority)});
            webhook["failurePolicy"] = json!("Fail");
        }
        apply(client, registration).await;
    }
    until_listening("KEDA's webhooks", port).await;
}

fn bundle(certificate: &[u8]) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(certificate.to_vec())).expect("base64")
}
