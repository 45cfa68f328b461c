//! `run`: the controller manager.

use std::{
    io::{IsTerminal as _, stderr},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::plan_args::PlanArgs;
use crate::{app, settings::Intervals};

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    plan: PlanArgs,
    /// How often to look for KEDA, the Prometheus Operator or Kthena while one of them is missing, in seconds.
    #[arg(long, env = "KTHENA_KEDA_DISCOVERY_INTERVAL", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    discovery_interval: u64,
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
        let intervals = Intervals { discovery: Duration::from_secs(self.discovery_interval) };
        runtime.block_on(async {
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            Ok(Box::pin(app::run(settings, intervals, stop)).await?)
        })
    }
}
