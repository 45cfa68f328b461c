//! The Prometheus Operator, and a Prometheus that runs on what it makes of our monitors.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
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

/// How Prometheus runs.
#[derive(Clone, Copy, Debug)]
pub struct PrometheusSettings {
    /// How long a series that gets no more samples is answered with its last value, in seconds; 5 minutes where nobody says otherwise.
    pub lookback_seconds: u32,
}

/// The running Prometheus and its operator.
#[derive(Debug)]
pub struct Prometheus {
    /// Makes the configuration.
    pub operator: Program,
    /// Scrapes and answers.
    pub server: Program,
    /// Where it answers.
    pub url: String,
    configuration: PathBuf,
    data: PathBuf,
}

/// A Prometheus that scrapes nothing and counts what it is asked.
#[derive(Debug)]
pub struct Bare {
    /// Where it answers.
    pub url: String,
    _server: Program,
}

impl Bare {
    /// How many questions it was asked so far.
    pub async fn questions(&self) -> u64 {
        let (_, text) = web::get(&format!("{}/metrics", self.url)).await.expect("its own metrics");
        let asked = text.lines().filter(|line| {
            line.starts_with("prometheus_http_requests_total") && line.contains("handler=\"/api/v1/query\"")
        });
        asked.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// A second Prometheus, which lets nobody in without a client certificate and a password.
#[derive(Debug)]
pub struct Guarded {
    /// Where it answers, by TLS.
    pub url: String,
    /// What it takes to be let in, by KEDA's names.
    pub credentials: Value,
    _server: Program,
}

/// The name and password, and what Prometheus keeps of it (bcrypt).
const LOGIN: (&str, &str) = ("admin", "test");
const HASH: &str = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay";

impl Prometheus {
    /// Starts both. The definitions must be there.
    pub async fn start(control_plane: &ControlPlane, client: &Client, settings: PrometheusSettings) -> Self {
        apply(client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
            .await;
        let operator = start_operator(control_plane);
        apply(client, object(control_plane)).await;
        let folder = control_plane.folder.join("prometheus");
        fs::create_dir_all(&folder).expect("a folder");
        let configuration = folder.join("prometheus.yaml");
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let config = control_plane.config(&Identity::Admin).await;
        follow_configuration(config, configuration.clone(), url.clone());
        until_asked(
            "there is a configuration for Prometheus",
            async || configuration.exists(),
            |exists| *exists,
        )
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

    /// Starts one that scrapes nothing, with no operator beside it.
    pub async fn bare(folder: &Path) -> Bare {
        let folder = folder.join("prometheus-bare");
        fs::create_dir_all(&folder).expect("a folder");
        let port = free_port();
        let server = Program::new(
            "prometheus-bare",
            &folder,
            command(&write(folder.join("prometheus.yaml"), ""), &folder.join("data"), port),
        );
        until_listening("Prometheus", port).await;
        Bare { url: format!("http://127.0.0.1:{port}"), _server: server }
    }

    /// Starts another one with the same configuration, once the router is scraped by it.
    pub async fn guarded(&self, control_plane: &ControlPlane) -> Guarded {
        let scrapes_router = async || {
            fs::read_to_string(&self.configuration).is_ok_and(|text| text.contains("kthena-keda-router"))
        };
        until_asked("the router is to be scraped", scrapes_router, |scrapes| *scrapes).await;
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
        let web = json!({"tls_server_config": tls, "basic_auth_users": {LOGIN.0: HASH}});
        let web = write(folder.join("web.json"), web.to_string());
        let port = free_port();
        let mut command = command(&self.configuration, &folder.join("data"), port);
        command.arg(format!("--web.config.file={}", web.display()));
        let read = |path: &Path| fs::read_to_string(path).expect("a file");
        let credentials = json!({
            "username": LOGIN.0, "password": LOGIN.1, "ca": read(authority), "cert": read(&client.certificate), "key": read(&client.key),
        });
        let server = Program::new("prometheus-guarded", &control_plane.folder, command);
        until_listening("the guarded Prometheus", port).await;
        Guarded { url: format!("https://127.0.0.1:{port}"), credentials, _server: server }
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        until_asked("Prometheus answers", async || self.query("vector(1)").await, Option::is_some).await;
    }

    /// Loses everything that it recorded; it must not be running.
    pub fn forget(&self) {
        fs::remove_dir_all(&self.data).expect("to remove its data");
    }

    /// The values of all elements that a query answers.
    pub async fn values(&self, query: &str) -> Vec<f64> {
        let answer = get(&self.url, "/api/v1/query", &[("query", query)]).await.unwrap_or_default();
        let elements = answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default();
        elements.iter().filter_map(|element| element.pointer("/value/1")?.as_str()?.parse().ok()).collect()
    }

    /// The value of a query that answers one element; none for any other answer.
    pub async fn query(&self, query: &str) -> Option<f64> {
        let answer = get(&self.url, "/api/v1/query", &[("query", query)]).await?;
        let result = answer.pointer("/data/result")?.as_array()?.clone();
        let [element] = result.as_slice() else { return None };
        element.pointer("/value/1")?.as_str()?.parse().ok()
    }

    /// Waits until a query has this value.
    pub async fn until(&self, query: &str, done: impl Fn(Option<f64>) -> bool) {
        until_asked(
            &format!("{query} is as it should be"),
            async || self.query(query).await,
            |value| done(*value),
        )
        .await;
    }
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

/// A Prometheus that takes every monitor of every namespace.
fn object(control_plane: &ControlPlane) -> Value {
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

/// Does what the config-reloader beside a Prometheus does, on a thread of its own for as long as the process lives.
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

/// Everything but letters and digits as `%NN`.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
