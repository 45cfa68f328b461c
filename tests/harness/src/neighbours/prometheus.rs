//! The Prometheus Operator, and a Prometheus with the configuration that it generates from monitors.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, runtime::watcher};
use serde_json::{Value, json};

use super::Program;
use crate::{
    certificates::Identity,
    control_plane::{ControlPlane, binary, free_port},
    objects::apply,
    process::write,
    wait::{until_asked, until_listening},
    web,
};

const NAMESPACE: &str = "monitoring";
const NAME: &str = "main";

/// Settings of Prometheus.
#[derive(Clone, Copy, Debug)]
pub struct PrometheusSettings {
    /// Time in seconds for which a query returns the last sample of a series (`--query.lookback-delta`, 5
    /// minutes by default).
    pub lookback_seconds: u32,
}

/// The running Prometheus and its operator.
#[derive(Debug)]
pub struct Prometheus {
    /// Prometheus Operator, which generates the configuration.
    pub operator: Program,
    /// Prometheus itself.
    pub server: Program,
    /// Base URL of its API.
    pub url: String,
    configuration: PathBuf,
    data: PathBuf,
}

/// A Prometheus that scrapes nothing and counts its queries.
#[derive(Debug)]
pub struct Bare {
    /// Base URL of its API.
    pub url: String,
    server: Program,
}

impl Bare {
    /// CPU time so far.
    pub fn cpu(&self) -> Duration {
        self.server.cpu()
    }

    /// Number of instant queries so far.
    pub async fn questions(&self) -> u64 {
        let (_, text) = web::get(&format!("{}/metrics", self.url)).await.expect("its own metrics");
        let counters = text.lines().filter(|line| {
            line.starts_with("prometheus_http_requests_total") && line.contains("handler=\"/api/v1/query\"")
        });
        counters.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// A second Prometheus, which requires a client certificate and a password.
#[derive(Debug)]
pub struct Guarded {
    /// Base URL of its API, with HTTPS.
    pub url: String,
    /// Credentials by the parameter names of KEDA's TriggerAuthentication.
    pub credentials: Value,
    _server: Program,
}

/// Name and password of the guarded Prometheus.
const LOGIN: (&str, &str) = ("admin", "test");
/// bcrypt hash of the password, for Prometheus' web configuration.
const PASSWORD_HASH: &str = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay";

impl Prometheus {
    /// Starts Prometheus and its operator. The Prometheus Operator's CRDs must be installed.
    pub async fn start(control_plane: &ControlPlane, client: &Client, settings: PrometheusSettings) -> Self {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
            .await;
        let operator = start_operator(control_plane);
        apply(client, prometheus_object(control_plane)).await;
        let folder = control_plane.folder.join("prometheus");
        fs::create_dir_all(&folder).expect("a folder");
        let configuration = folder.join("prometheus.yaml");
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let config = control_plane.config(&Identity::Admin).await;
        follow_configuration(config, configuration.clone(), url.clone());
        until_asked("Prometheus has a configuration", async || configuration.exists(), |exists| *exists)
            .await;
        let data = folder.join("data");
        let mut command = command(&configuration, &data, port);
        command
            .arg(format!("--query.lookback-delta={}s", settings.lookback_seconds))
            .arg("--web.enable-lifecycle");
        let server = Program::new("prometheus", &control_plane.folder, command);
        let prometheus = Self { operator, server, url, configuration, data };
        prometheus.ready().await;
        prometheus
    }

    /// Starts a Prometheus that scrapes nothing, without the Prometheus Operator.
    pub async fn bare(folder: &Path) -> Bare {
        Self::with_configuration(folder, free_port(), "").await
    }

    /// Starts a Prometheus that scrapes only itself, every second, as a target with these labels.
    pub async fn of_itself(folder: &Path, labels: &Value) -> Bare {
        let port = free_port();
        let job = json!({
            "job_name": "itself", "scrape_interval": "1s",
            "static_configs": [{"targets": [format!("127.0.0.1:{port}")], "labels": labels}],
        });
        let configuration = json!({"scrape_configs": [job]}).to_string();
        let bare = Self::with_configuration(folder, port, &configuration).await;
        until_asked(
            "Prometheus has scraped itself a few times",
            async || query(&bare.url, "sum_over_time(up[1m])").await,
            |scrapes| scrapes.is_some_and(|scrapes| scrapes > 3.0),
        )
        .await;
        bare
    }

    /// Starts a Prometheus that scrapes nothing and has this history, as `OpenMetrics` text with timestamps.
    ///
    /// # Panics
    /// If promtool does not accept the history.
    pub async fn with_history(folder: &Path, history: &str) -> Bare {
        Self::with_history_and(folder, history, &[]).await
    }

    /// The same with arguments of its own.
    ///
    /// # Panics
    /// If promtool does not accept the history.
    pub async fn with_history_and(folder: &Path, history: &str, arguments: &[&str]) -> Bare {
        let folder = folder.join("prometheus-history");
        fs::create_dir_all(&folder).expect("a folder");
        let file = write(folder.join("history.txt"), history);
        let mut promtool = Command::new(binary("promtool"));
        promtool.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(file);
        let output = promtool.arg(folder.join("prometheus-bare/data")).output().expect("promtool");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::start_bare(&folder, free_port(), "", arguments).await
    }

    async fn with_configuration(folder: &Path, port: u16, configuration: &str) -> Bare {
        Self::start_bare(folder, port, configuration, &[]).await
    }

    async fn start_bare(folder: &Path, port: u16, configuration: &str, arguments: &[&str]) -> Bare {
        let folder = folder.join("prometheus-bare");
        fs::create_dir_all(&folder).expect("a folder");
        let file = write(folder.join("prometheus.yaml"), configuration);
        let mut command = command(&file, &folder.join("data"), port);
        command.args(arguments);
        let server = Program::new("prometheus-bare", &folder, command);
        let url = format!("http://127.0.0.1:{port}");
        // It listens before it has opened its data, and answers 503 until then.
        let is_ready = async || self::query(&url, "vector(1)").await;
        until_asked("Prometheus responds", is_ready, Option::is_some).await;
        Bare { url, server }
    }

    /// Starts a second Prometheus with the same configuration, once that scrapes the router.
    pub async fn guarded(&self, control_plane: &ControlPlane) -> Guarded {
        until_asked(
            "the configuration scrapes the router",
            async || {
                fs::read_to_string(&self.configuration).is_ok_and(|text| text.contains("kthena-keda-router"))
            },
            |scrapes| *scrapes,
        )
        .await;
        let folder = control_plane.folder.join("prometheus-guarded");
        fs::create_dir_all(&folder).expect("a folder");
        let (server, client) = (
            control_plane.authority().server("guarded", &["127.0.0.1"]),
            Identity::User("keda-at-prometheus"),
        );
        let client = control_plane.client_certificate(&client);
        let authority = control_plane.certificate_authority();
        let tls = json!({
            "cert_file": server.certificate, "key_file": server.key,
            "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": authority,
        });
        let web = json!({"tls_server_config": tls, "basic_auth_users": {LOGIN.0: PASSWORD_HASH}});
        let web = write(folder.join("web.json"), web.to_string());
        let port = free_port();
        let mut command = command(&self.configuration, &folder.join("data"), port);
        command.arg(format!("--web.config.file={}", web.display()));
        let credentials = json!({
            "username": LOGIN.0, "password": LOGIN.1,
            "ca": text_of(authority), "cert": text_of(&client.certificate), "key": text_of(&client.key),
        });
        let server = Program::new("prometheus-guarded", &control_plane.folder, command);
        until_listening("the guarded Prometheus", port).await;
        Guarded { url: format!("https://127.0.0.1:{port}"), credentials, _server: server }
    }

    /// Waits until it answers a query.
    pub async fn ready(&self) {
        until_asked("Prometheus responds", async || self.query("vector(1)").await, Option::is_some).await;
    }

    /// Deletes all its samples; it must not be running.
    pub fn forget(&self) {
        fs::remove_dir_all(&self.data).expect("to remove its data");
    }

    /// Values of all samples in the result of a query.
    pub async fn values(&self, query: &str) -> Vec<f64> {
        let response = get(&self.url, "/api/v1/query", &[("query", query)]).await.unwrap_or_default();
        let samples = response.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default();
        samples.iter().filter_map(|sample| sample.pointer("/value/1")?.as_str()?.parse().ok()).collect()
    }

    /// Value of a query whose result is exactly one sample; `None` for any other response.
    pub async fn query(&self, query: &str) -> Option<f64> {
        self::query(&self.url, query).await
    }

    /// Waits until `done` accepts the value of a query.
    pub async fn until(&self, query: &str, done: impl Fn(Option<f64>) -> bool) {
        until_asked(
            &format!("{query} has the expected value"),
            async || self.query(query).await,
            |value| done(*value),
        )
        .await;
    }
}

async fn query(base: &str, query: &str) -> Option<f64> {
    let response = get(base, "/api/v1/query", &[("query", query)]).await?;
    let result = response.pointer("/data/result")?.as_array()?.clone();
    let [sample] = result.as_slice() else { return None };
    sample.pointer("/value/1")?.as_str()?.parse().ok()
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn command(configuration: &Path, data: &Path, port: u16) -> Command {
    let mut command = Command::new(binary("prometheus"));
    command
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command
}

fn start_operator(control_plane: &ControlPlane) -> Program {
    let pair = control_plane.client_certificate(&Identity::Admin);
    let mut command = Command::new(binary("prometheus-operator"));
    command
        .arg(format!("--apiserver={}", control_plane.url()))
        .arg(format!("--ca-file={}", control_plane.certificate_authority().display()))
        .arg(format!("--cert-file={}", pair.certificate.display()))
        .arg(format!("--key-file={}", pair.key.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{}", free_port()));
    Program::new("prometheus-operator", &control_plane.folder, command)
}

/// A Prometheus object that selects all monitors of all namespaces.
fn prometheus_object(control_plane: &ControlPlane) -> Value {
    let pair = control_plane.client_certificate(&Identity::Admin);
    let tls = json!({"caFile": control_plane.certificate_authority(), "certFile": pair.certificate, "keyFile": pair.key});
    json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": {}, "podMonitorSelector": {}, "podMonitorNamespaceSelector": {},
            "serviceDiscoveryRole": "EndpointSlice", "apiserverConfig": {"host": control_plane.url(), "tlsConfig": tls},
        },
    })
}

/// Writes and reloads the generated configuration like the config-reloader sidecar, on a thread that lives as
/// long as the process.
fn follow_configuration(config: kube::Config, path: PathBuf, url: String) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::try_from(config).expect("a client");
            let secrets: Api<Secret> = Api::namespaced(client, NAMESPACE);
            let mut states = std::pin::pin!(watcher::watch_object(secrets, &format!("prometheus-{NAME}")));
            while let Some(state) = states.next().await {
                if let Some(configuration) =
                    state.ok().flatten().and_then(|secret| secret.data?.remove("prometheus.yaml.gz"))
                {
                    replace(&path, &configuration.0);
                    let _ = post(&url, "/-/reload").await;
                }
            }
        });
    });
}

fn replace(path: &Path, zipped: &[u8]) {
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped).read_to_string(&mut text).expect("a configuration");
    let text = text.replace("$(POD_NAME)", "prometheus-0").replace("$(SHARD)", "0");
    let part = write(path.with_extension("part"), text);
    let _ = fs::rename(part, path);
}

async fn get(base: &str, path: &str, query: &[(&str, &str)]) -> Option<Value> {
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
    serde_json::from_str(&web::get(&format!("{base}{path}?{}", query.join("&"))).await?.1).ok()
}

async fn post(base: &str, path: &str) -> Option<Vec<u8>> {
    web::send(http::Request::post(format!("{base}{path}")).body(String::new()).ok()?)
        .await
        .map(|(_, body)| body)
}

/// Percent-encodes everything but ASCII letters and digits.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
