//! `run`: the controller manager.

use std::{
    io::{IsTerminal as _, stderr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::plan_args::PlanArgs;
use crate::{app, prometheus::Access, settings::RunSettings};

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
    /// What to log, as tracing directives such as info,kube=debug.
    #[arg(long, env = "KTHENA_KEDA_LOG_LEVEL", value_name = "DIRECTIVES", default_value = "info")]
    log_level: EnvFilter,
    /// How to log.
    #[arg(long, env = "KTHENA_KEDA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        let log = tracing_subscriber::fmt().with_env_filter(self.log_level.clone()).with_writer(stderr).with_ansi(stderr().is_terminal());
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().init(),
        }
        match self.start() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = &*error, "cannot run");
                ExitCode::FAILURE
            }
        }
    }

    fn start(&self) -> Result<(), Box<dyn std::error::Error>> {
        // Two providers can be compiled in by dependencies; naming one keeps the TLS library from guessing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let settings = self.plan.settings();
        let run_settings = RunSettings {
            discovery: Duration::from_secs(self.discovery_interval),
            check: Duration::from_secs(self.check_interval),
            write_conditions: self.write_conditions,
            access: Access { bearer_token_file: self.prometheus_bearer_token_file.clone(), ca_file: self.prometheus_ca_file.clone() },
        };
        runtime.block_on(async {
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
