//! `hold`: the stand-in of a model that sleeps.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use clap::Args;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::run::LogFormat;
use crate::{
    hold::{self, HoldSettings, Limits},
    telemetry::{logs, server::Listen},
};
use kthena_keda_core::domain::{Kibibytes, MAX_BODIES, ValueError, seconds};

#[derive(Args)]
pub(super) struct Hold {
    /// Port on which kthena-router sends requests: a workloadPort of the model's ModelServers. Each request is forwarded to the
    /// same port of an engine. Repeat it for several.
    #[arg(long, value_name = "PORT", required = true, value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// DNS name of the headless Service that has the ready engines of the model, and nothing else. Requests are sent only to its
    /// addresses. SERVICE.NAMESPACE.svc is completed by the cluster domain of the pod's /etc/resolv.conf.
    #[arg(long, value_name = "HOST")]
    engines: String,
    /// Model name that requests may have, after kthena-router has replaced it by that of the ModelServer; others are answered
    /// with 404. Repeat it for several; without it, all are accepted.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Longest time that a request is held, from 1s to 24h; then it is answered with 503.
    #[arg(long, env = "KTHENA_KEDA_HOLD_TIMEOUT", value_name = "DURATION", default_value = "10m", value_parser = timeout)]
    timeout: Duration,
    /// Maximum number of requests that are held; others are answered with 503.
    #[arg(long, env = "KTHENA_KEDA_HOLD_MAX_REQUESTS", value_name = "REQUESTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_requests: u32,
    /// Maximum size of one request's body, from 1Ki to 1024Mi; longer ones are answered with 503.
    #[arg(long, env = "KTHENA_KEDA_HOLD_MAX_BODY", value_name = "SIZE", default_value = "1Mi", value_parser = size)]
    max_body: Kibibytes,
    /// Maximum size of the bodies of all requests that are held, from 1Ki to 1024Mi; others are answered with 503.
    #[arg(long, env = "KTHENA_KEDA_HOLD_MAX_BODIES", value_name = "SIZE", default_value = "64Mi", value_parser = size)]
    max_bodies: Kibibytes,
    /// Time without an answer after which a streaming request gets status 200 and comments that keep its connection open, up to 1h.
    /// An error is then an event of the stream. 0s never sends comments.
    #[arg(long, env = "KTHENA_KEDA_HOLD_KEEP_ALIVE_AFTER", value_name = "DURATION", default_value = "15s", value_parser = keep_alive)]
    keep_alive_after: Duration,
    /// Port of /healthz, /readyz and /metrics of the stand-in itself.
    #[arg(long, env = "KTHENA_KEDA_HOLD_PROBE_PORT", value_name = "PORT", default_value_t = 8081)]
    probe_port: u16,
    /// Address on which all ports listen; by default all addresses.
    #[arg(long, env = "KTHENA_KEDA_HOLD_ADDRESS", value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Log filter as tracing directives, such as info,kube=debug.
    #[arg(long, env = "KTHENA_KEDA_LOG_LEVEL", value_name = "DIRECTIVES", default_value = "info")]
    log_level: EnvFilter,
    /// Log format.
    #[arg(long, env = "KTHENA_KEDA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn timeout(text: &str) -> Result<Duration, ValueError> {
    duration(text, 1, 24 * 3600)
}

fn keep_alive(text: &str) -> Result<Duration, ValueError> {
    // Zero needs no unit.
    if text == "0" { Ok(Duration::ZERO) } else { duration(text, 0, 3600) }
}

fn size(text: &str) -> Result<Kibibytes, ValueError> {
    Kibibytes::parse(text, MAX_BODIES)
}

fn duration(text: &str, min: i32, max: i32) -> Result<Duration, ValueError> {
    seconds(text, min..=max).map(|seconds| Duration::from_secs(seconds.unsigned_abs().into()))
}

impl Hold {
    pub(super) fn run(self) -> ExitCode {
        tracing_subscriber::registry()
            .with(logs::layer(self.log_format.into(), self.log_level.clone()))
            .init();
        match self.start() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "kthena-keda hold failed; exiting");
                ExitCode::FAILURE
            }
        }
    }

    fn settings(self) -> HoldSettings {
        HoldSettings {
            address: self.address,
            ports: self.port,
            engines: self.engines,
            models: self.model.into_iter().collect(),
            timeout: self.timeout,
            limits: Limits {
                max_requests: usize::try_from(self.max_requests).unwrap_or(usize::MAX),
                max_body: self.max_body.bytes(),
                max_bodies: self.max_bodies.bytes(),
            },
            keep_alive_after: Some(self.keep_alive_after).filter(|after| !after.is_zero()),
            probe: match self.address {
                Some(address) => Listen::At((address, self.probe_port).into()),
                None => Listen::Everywhere(self.probe_port),
            },
        }
    }

    fn start(self) -> std::io::Result<()> {
        // One thread for everything, and one for lookups, which the C library blocks.
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let stop = super::termination()?;
            hold::run(self.settings(), stop).await
        })
    }
}
