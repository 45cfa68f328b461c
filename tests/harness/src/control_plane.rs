//! etcd and kube-apiserver on free loopback ports, with RBAC and an audit log.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{
    certificates::{Authority, Identity, Pair, SigningKey, signing_key},
    process::{Process, write},
    stack::root,
};

/// Time limit for the API server to become ready; a few seconds are usual.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// Logs every request when it completes, and a watch also when it starts.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// Output folder of the stack's build script.
pub fn built() -> PathBuf {
    root().join("target/stack")
}

/// Path of a binary of the stack.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let path = built().join("bin").join(name);
    assert!(path.exists(), "{name} is not built: run `make stack`");
    path
}

/// A free loopback port, which this process does not return again.
///
/// It lies below Linux's ephemeral ports (32768 and up), so that no outgoing connection takes it before the
/// intended process listens on it, or while that process is stopped.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Concurrent test binaries start at different ports.
    let start = process::id() * 500;
    let ports = (0..COUNT).map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut ports = ports.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Creates a folder for one stack, and removes the folders of processes that no longer exist.
fn folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let runs = built().join("runs");
    for run in fs::read_dir(&runs).into_iter().flatten().flatten() {
        let owner =
            run.file_name().to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(run.path());
        }
    }
    let folder = runs.join(format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder).expect("a folder for the stack");
    folder
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Folder of logs, keys and data; removed on drop unless the thread is panicking.
    pub folder: PathBuf,
    authority: Authority,
    signing_key: PathBuf,
    api_server: Option<Process>,
    command: Command,
    port: u16,
    etcd_command: Command,
    etcd: Option<Process>,
}

impl ControlPlane {
    /// Starts etcd and the API server, and waits until the API server is ready.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = folder();
        let authority = Authority::new(&folder, "cluster-ca");
        let etcd_port = free_port();
        let etcd_command = etcd_command(&folder, etcd_port);
        let etcd = Some(Process::start(&folder, "etcd", &etcd_command));
        let port = free_port();
        let signing = signing_key(&folder);
        let command = api_server_command(&folder, &authority, &signing, etcd_port, port);
        let mut this = Self {
            folder,
            authority,
            signing_key: signing.private,
            api_server: None,
            command,
            port,
            etcd_command,
            etcd,
        };
        this.start_api_server().await;
        this
    }

    /// URL of the API server.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Starts the API server unless it is running, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready within a minute.
    pub async fn start_api_server(&mut self) {
        if self.api_server.is_none() {
            self.api_server = Some(Process::start(&self.folder, "kube-apiserver", &self.command));
        }
        let client = self.client(&Identity::Admin).await;
        let started = Instant::now();
        loop {
            let ready = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            match client.request_text(ready).await {
                Ok(_) => return,
                Err(error) => self.check_startup(started, &error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Panics if the API server has ended or is not ready in time.
    fn check_startup(&mut self, started: Instant, error: &kube::Error) {
        let ended = self.api_server.as_mut().is_some_and(Process::has_ended);
        assert!(
            started.elapsed() < READY_LIMIT && !ended,
            "kube-apiserver is not ready: {error}; see {}",
            self.folder.join("kube-apiserver.log").display()
        );
    }

    /// Kills the API server.
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Process of the API server; `None` while it is stopped.
    pub fn api_server(&self) -> Option<&Process> {
        self.api_server.as_ref()
    }

    /// Kills etcd; the API server continues without its store.
    pub fn stop_etcd(&mut self) {
        self.etcd = None;
    }

    /// Starts etcd again with its data.
    pub fn start_etcd(&mut self) {
        if self.etcd.is_none() {
            self.etcd = Some(Process::start(&self.folder, "etcd", &self.etcd_command));
        }
    }

    /// Sends etcd a signal by name. After `STOP` it accepts connections and does not respond.
    pub fn signal_etcd(&mut self, signal: &str) {
        if let Some(etcd) = &mut self.etcd {
            etcd.signal(signal);
        }
    }

    /// Loopback port of the API server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Authority that signs the cluster's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// PEM file of the authority's certificate.
    pub fn certificate_authority(&self) -> &Path {
        &self.authority.certificate
    }

    /// PEM file of the key that signs service-account tokens.
    pub fn signing_key(&self) -> &Path {
        &self.signing_key
    }

    /// Client configuration for an identity.
    pub async fn config(&self, identity: &Identity) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(identity)).expect("a valid kubeconfig");
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("a valid kubeconfig")
    }

    /// Creates a client with an identity.
    pub async fn client(&self, identity: &Identity) -> Client {
        Client::try_from(self.config(identity).await).expect("a client")
    }

    /// Client certificate of an identity, signed on the first call.
    pub fn client_certificate(&self, identity: &Identity) -> Pair {
        let name = identity.user().replace(':', "-");
        let (certificate, key) =
            (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")));
        if certificate.exists() && key.exists() {
            return Pair { certificate, key };
        }
        self.authority.client(&name, identity)
    }

    /// Kubeconfig of an identity, written on the first call.
    pub fn kubeconfig(&self, identity: &Identity) -> PathBuf {
        let name = identity.user().replace(':', "-");
        let path = self.folder.join(format!("{name}.kubeconfig"));
        if path.exists() {
            return path;
        }
        let Pair { certificate, key } = self.client_certificate(identity);
        let cluster = json!({"server": self.url(), "certificate-authority": self.authority.certificate});
        kubeconfig(path, &cluster, &json!({"client-certificate": certificate, "client-key": key}))
    }
}

/// Writes a kubeconfig with one cluster and one user to `path`.
pub fn kubeconfig(path: PathBuf, cluster: &serde_json::Value, user: &serde_json::Value) -> PathBuf {
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "stack",
        "clusters": [{"name": "stack", "cluster": cluster}],
        "users": [{"name": "stack", "user": user}],
        "contexts": [{"name": "stack", "context": {"cluster": "stack", "user": "stack"}}],
    });
    // Rename the complete file: concurrent tests may read the same kubeconfig.
    let part = write(path.with_extension(format!("part-{}", free_port())), content.to_string());
    fs::rename(part, &path).expect("a kubeconfig");
    path
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.api_server = None;
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "points to the logs of a failed test")]
            {
                eprintln!("logs: {}", self.folder.display());
            }
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn etcd_command(folder: &Path, port: u16) -> Command {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
    let mut command = Command::new(binary("etcd"));
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .arg("--unsafe-no-fsync");
    command
}

fn api_server_command(
    folder: &Path,
    authority: &Authority,
    signing: &SigningKey,
    etcd: u16,
    port: u16,
) -> Command {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "127.0.0.1",
        "192.0.2.10",
        "10.0.0.1",
    ];
    let server = authority.server("kube-apiserver", &names);
    let front_proxy = Authority::new(folder, "front-proxy-ca");
    let proxy = front_proxy.client("front-proxy", &Identity::User("front-proxy-client"));
    let policy = write(folder.join("audit-policy.yaml"), AUDIT_POLICY);
    let mut command = Command::new(binary("kube-apiserver"));
    let mut flag = |name: &str, value: &dyn AsRef<Path>| {
        command.arg(format!("--{name}={}", value.as_ref().display()));
    };
    flag("tls-cert-file", &server.certificate);
    flag("tls-private-key-file", &server.key);
    flag("client-ca-file", &authority.certificate);
    flag("service-account-key-file", &signing.public);
    flag("service-account-signing-key-file", &signing.private);
    flag("requestheader-client-ca-file", &front_proxy.certificate);
    flag("proxy-client-cert-file", &proxy.certificate);
    flag("proxy-client-key-file", &proxy.key);
    flag("audit-policy-file", &policy);
    flag("audit-log-path", &folder.join("audit.log"));
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
        .arg(format!("--secure-port={port}"))
        // In megabytes; large enough that the log is not rotated, because tests count its requests.
        .arg("--audit-log-maxsize=4000")
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ])
        .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"])
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--requestheader-allowed-names=front-proxy-client",
        ])
        .args([
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
        ])
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-");
    command
}
