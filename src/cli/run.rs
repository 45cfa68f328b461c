//! `run`: the controller manager.

use std::{
    env, fs,
    path::PathBuf,
    process::{ExitCode, id},
    time::Duration,
};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::plan_args::{PlanArgs, namespace};
use crate::{
    app,
    prometheus::ClientConfig,
    runtime::lease::Candidate,
    settings::{RunSettings, Settings, ShadowSettings, Shard},
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
    /// Seconds between discoveries while KEDA, the Prometheus Operator or a part of Kthena is missing.
    #[arg(long, env = "KTHENA_KEDA_DISCOVERY_INTERVAL", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    discovery_interval: u64,
    /// Seconds between checks of the signals in Prometheus; each takes a few queries for all models together.
    #[arg(long, env = "KTHENA_KEDA_CHECK_INTERVAL", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    check_interval: u64,
    /// File with a bearer token for the operator's own Prometheus queries, read again for each. KEDA has its
    /// own credentials.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_BEARER_TOKEN_FILE", value_name = "FILE")]
    prometheus_bearer_token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust for Prometheus, in addition to the system's.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_CA_FILE", value_name = "FILE")]
    prometheus_ca_file: Option<PathBuf>,
    /// Write the condition AutoscalingReady to ModelServings; false where only Kthena may write that status.
    /// Events and explain still report everything.
    #[arg(long, env = "KTHENA_KEDA_WRITE_CONDITIONS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    write_conditions: bool,
    /// Export the number of ServingGroups of each model and their loading times: up to 16 series for each. backtest,
    /// recommend and serviceTime: auto read them.
    #[arg(long, env = "KTHENA_KEDA_MODEL_METRICS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    model_metrics: bool,
    /// Models in shadow that are observed at most, the oldest first. Each takes one query per signal and sync period of the
    /// HPA.
    #[arg(long, env = "KTHENA_KEDA_SHADOW_MAX", value_name = "MODELS", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=1000))]
    shadow_max: u16,
    /// Seconds between two decisions of a model in shadow: --horizontal-pod-autoscaler-sync-period of your
    /// kube-controller-manager.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    hpa_sync_period: u64,
    /// Scale the roles of ModelServings with the annotation autoscaling.kthena.io/roles. The operator then changes the
    /// number of each role in the ModelServing, and needs the permission to patch ModelServings.
    #[arg(long, env = "KTHENA_KEDA_SCALE_ROLES", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    scale_roles: bool,
    /// Address of /metrics, /healthz and /readyz; :PORT listens on all addresses.
    #[arg(long, env = "KTHENA_KEDA_LISTEN", value_name = "[ADDRESS]:PORT", default_value_t = Listen::Everywhere(8080))]
    listen: Listen,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// Log filter as tracing directives, such as info,kube=debug.
    #[arg(long, env = "KTHENA_KEDA_LOG_LEVEL", value_name = "DIRECTIVES", default_value = "info")]
    log_level: EnvFilter,
    /// Log format.
    #[arg(long, env = "KTHENA_KEDA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// OTLP endpoint for traces over HTTP, such as `http://collector.tracing.svc:4318`; no traces by default.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// Flags of leader election: one of the instances with the same Lease works, the others are followers.
#[derive(Args)]
struct ElectionArgs {
    /// Work only while holding the Lease, so that several instances can run.
    #[arg(long, env = "KTHENA_KEDA_LEADER_ELECT", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Name of the Lease; each shard needs its own.
    #[arg(long, env = "KTHENA_KEDA_LEASE_NAME", value_name = "NAME", default_value = OPERATOR, value_parser = lease_name)]
    lease_name: String,
    /// Namespace of the Lease.
    #[arg(long, env = "KTHENA_KEDA_LEASE_NAMESPACE", value_name = "NAMESPACE", default_value = OPERATOR, value_parser = namespace)]
    lease_namespace: String,
    /// Holder identity written to the Lease. It must be unique; by default the host name and the process id.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    lease_identity: Option<String>,
    /// Lease duration in seconds: the time for which followers wait for a leader that stopped renewing.
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

/// Flags that divide the work among several instances.
#[derive(Args)]
struct ShardArgs {
    /// Label selector of this instance's ModelServings, such as shard=a. A ModelServing that no longer
    /// matches keeps its ScaledObject.
    #[arg(long, env = "KTHENA_KEDA_SELECTOR", value_name = "SELECTOR")]
    selector: Option<LabelSelector>,
    /// Namespaces of this instance's ModelServings, separated by commas; all by default. It needs permissions
    /// only in these.
    #[arg(long, env = "KTHENA_KEDA_WATCH_NAMESPACES", value_name = "NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    watch_namespaces: Vec<String>,
    /// Maintain the router's ServiceMonitor and the status of AutoscalingProfiles, for all models of the
    /// cluster. True for exactly one of several instances.
    #[arg(long, env = "KTHENA_KEDA_CLUSTER_DUTIES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    cluster_duties: bool,
    /// Image of the stand-in pods that hold requests for models at zero, where a profile sets scaleToZero.hold; without
    /// it the operator makes none. It needs permissions for pods and Services.
    #[arg(long, env = "KTHENA_KEDA_STAND_IN_IMAGE", value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stand_in_image: Option<String>,
}

impl ShardArgs {
    fn shard(&self) -> Shard {
        let mut namespaces = self.watch_namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        Shard {
            selector: self.selector.clone(),
            namespaces,
            cluster_duties: self.cluster_duties,
            stand_in_image: self.stand_in_image.clone(),
        }
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
pub(super) enum LogFormat {
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
        // Dependencies may compile in two providers, and rustls then needs an explicit choice. Traces need
        // it, too.
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
                tracing::error!(error = &*error, "kthena-keda failed; exiting");
                ExitCode::FAILURE
            }
        }
    }

    fn start(&self) -> Result<(), Box<dyn std::error::Error>> {
        // All tasks wait for the network. One thread avoids handing tasks between threads, which took a third
        // of the CPU time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let settings = Settings { scale_roles: self.scale_roles, ..self.plan.settings() };
        let run_settings = RunSettings {
            discovery: Duration::from_secs(self.discovery_interval),
            probe_interval: Duration::from_secs(self.check_interval),
            write_conditions: self.write_conditions,
            model_metrics: self.model_metrics,
            listen: self.listen,
            election: self.election.candidate(),
            shard: self.shard.shard(),
            shadow: ShadowSettings {
                max: self.shadow_max.into(),
                hpa_sync_period: Duration::from_secs(self.hpa_sync_period),
            },
            prometheus_client: ClientConfig {
                bearer_token_file: self.prometheus_bearer_token_file.clone(),
                ca_file: self.prometheus_ca_file.clone(),
            },
        };
        runtime.block_on(async {
            let stop = super::termination()?;
            Ok(Box::pin(app::run(settings, run_settings, stop)).await?)
        })
    }
}
