//! `run`: the controller manager.

use std::{
    env, fs,
    path::PathBuf,
    process::{ExitCode, id},
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::plan_args::{PlanArgs, namespace};
use crate::{
    app,
    prometheus::ClientConfig,
    runtime::lease::Candidate,
    settings::{RunSettings, Shard},
    telemetry::{
        logs::{self, Format},
        server::Listen,
        traces::Traces,
    },
};
use kthena_keda_core::{
    api::metadata::OPERATOR,
    domain::{LabelSelector, ObjectName, ValueError},
};

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    plan: PlanArgs,
    /// How often to look for KEDA, the Prometheus Operator or Kthena while one of them is missing, in seconds.
    #[arg(long, env = "KTHENA_KEDA_DISCOVERY_INTERVAL", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    discovery_interval: u64,
    /// How often to ask Prometheus whether the signals of all models are there, in seconds: a few questions, however many models.
    #[arg(long, env = "KTHENA_KEDA_CHECK_INTERVAL", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    check_interval: u64,
    /// A file with a bearer token for the operator's own questions to Prometheus; read again for each. KEDA has its own credentials.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_BEARER_TOKEN_FILE", value_name = "FILE")]
    prometheus_bearer_token_file: Option<PathBuf>,
    /// A file of certificate authorities (PEM) that the operator trusts at Prometheus, besides the system's.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_CA_FILE", value_name = "FILE")]
    prometheus_ca_file: Option<PathBuf>,
    /// Whether to write the condition AutoscalingReady on ModelServings; false where only Kthena may write that status. Events tell all
    /// the same, and so does explain.
    #[arg(long, env = "KTHENA_KEDA_WRITE_CONDITIONS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    write_conditions: bool,
    /// Where to serve /metrics, /healthz and /readyz: an address and a port, or a port alone for all addresses.
    #[arg(long, env = "KTHENA_KEDA_LISTEN", value_name = "[ADDRESS]:PORT", default_value_t = Listen::Everywhere(8080))]
    listen: Listen,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// What to log, as tracing directives such as info,kube=debug.
    #[arg(long, env = "KTHENA_KEDA_LOG_LEVEL", value_name = "DIRECTIVES", default_value = "info")]
    log_level: EnvFilter,
    /// How to log.
    #[arg(long, env = "KTHENA_KEDA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Where to send traces by OTLP over HTTP, such as <http://collector.tracing.svc:4318>; without, there are none.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// Of several instances with the same Lease one works, and the others wait for it to end.
#[derive(Args)]
struct ElectionArgs {
    /// Whether to work only while holding a Lease, so that several instances can stand by for each other.
    #[arg(long, env = "KTHENA_KEDA_LEADER_ELECT", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The name of the Lease; each shard needs one of its own.
    #[arg(long, env = "KTHENA_KEDA_LEASE_NAME", value_name = "NAME", default_value = OPERATOR, value_parser = lease_name)]
    lease_name: String,
    /// The namespace of the Lease.
    #[arg(long, env = "KTHENA_KEDA_LEASE_NAMESPACE", value_name = "NAMESPACE", default_value = OPERATOR, value_parser = namespace)]
    lease_namespace: String,
    /// Who this instance is in the Lease: unique, such as the pod's name. Without, the host's name and the process's number.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    lease_identity: Option<String>,
    /// How long the others wait for a leader that fell silent, in seconds.
    #[arg(long, env = "KTHENA_KEDA_LEASE_DURATION", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=3600))]
    lease_duration: u64,
}

impl ElectionArgs {
    fn candidate(&self) -> Option<Candidate> {
        self.leader_elect.then(|| Candidate {
            namespace: self.lease_namespace.clone(),
            name: self.lease_name.clone(),
            identity: self
                .lease_identity
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(process_identity),
            duration: Duration::from_secs(self.lease_duration),
        })
    }
}

/// Which part of the work is this instance's, where several share it.
#[derive(Args)]
struct ShardArgs {
    /// Which ModelServings are this instance's, by their labels, such as shard=a. One that leaves the selector keeps its ScaledObject.
    #[arg(long, env = "KTHENA_KEDA_SELECTOR", value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// The namespaces whose ModelServings are this instance's, separated by commas; without, all. No rights are needed in others.
    #[arg(long, env = "KTHENA_KEDA_WATCH_NAMESPACES", value_name = "NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    watch_namespaces: Vec<String>,
    /// Whether this instance does what is to be done once for all models of the cluster, whoever's they are: the router's ServiceMonitor
    /// and the status of AutoscalingProfiles. True for exactly one of several.
    #[arg(long, env = "KTHENA_KEDA_CLUSTER_DUTIES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    cluster_duties: bool,
}

impl ShardArgs {
    fn shard(&self) -> Shard {
        let mut namespaces = self.watch_namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        Shard { selector: self.selector.clone(), namespaces, cluster_duties: self.cluster_duties }
    }
}

fn lease_name(text: &str) -> Result<String, ValueError> {
    text.parse().map(ObjectName::into_string)
}

fn process_identity() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), id())
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        // Two providers can be compiled in by dependencies; naming one keeps the TLS library from guessing. Traces need it, too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let traces = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        let traces =
            traces.map(|endpoint| Traces::start(endpoint, env::var("OTEL_SERVICE_NAME").ok())).transpose();
        let layer = traces.as_ref().ok().and_then(Option::as_ref).map(Traces::layer);
        tracing_subscriber::registry()
            .with(logs::layer(self.log_format.into(), self.log_level.clone()))
            .with(layer)
            .init();
        let result = traces.map_err(Into::into).and_then(|traces| {
            let result = self.start();
            traces.iter().for_each(Traces::shut_down);
            result
        });
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = &*error, "cannot run");
                ExitCode::FAILURE
            }
        }
    }

    fn start(&self) -> Result<(), Box<dyn std::error::Error>> {
        // Everything waits for the network. With one thread nothing is handed from one to another, which took a third of the CPU time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let settings = self.plan.settings();
        let run_settings = RunSettings {
            discovery: Duration::from_secs(self.discovery_interval),
            check: Duration::from_secs(self.check_interval),
            write_conditions: self.write_conditions,
            listen: self.listen,
            election: self.election.candidate(),
            shard: self.shard.shard(),
            prometheus_client: ClientConfig {
                bearer_token_file: self.prometheus_bearer_token_file.clone(),
                ca_file: self.prometheus_ca_file.clone(),
            },
        };
        runtime.block_on(async {
            let (mut terminate, mut interrupt) =
                (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            Ok(Box::pin(app::run(settings, run_settings, stop)).await?)
        })
    }
}
