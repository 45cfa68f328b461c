//! The command line: the only place that knows flags, environment and standard output.

mod render;
mod run;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{
    intent::{Profile, PrometheusSettings, PrometheusUrl},
    settings::Settings,
};

/// Autoscales Kthena ModelServings with KEDA: one annotation gives a ScaledObject.
#[derive(Parser)]
#[command(name = "kthena-keda", version, after_help = "Exit codes: 0 done, 1 bad input or failure, 2 bad arguments.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller manager.
    Run(Box<run::Run>),
    /// Print the objects that the operator would apply for the given ModelServings; needs no cluster.
    Render(render::Render),
}

/// Settings that decide what is planned.
#[derive(Args)]
struct PlanArgs {
    /// Prometheus as KEDA reaches it, such as <http://prometheus-operated.monitoring.svc:9090>; no trailing slash.
    #[arg(long, env = "KTHENA_KEDA_PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<PrometheusUrl>,
    /// The namespace in which kthena-router runs.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", default_value = "kthena-system")]
    router_namespace: String,
}

impl PlanArgs {
    fn settings(&self) -> Settings {
        let prometheus = self.prometheus_url.clone().map(|url| PrometheusSettings { url });
        Settings { defaults: Profile { prometheus, ..Profile::built_in() }, router_namespace: self.router_namespace.clone() }
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Render(render) => render.run(),
    }
}
