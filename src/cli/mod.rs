//! The command line: the only folder that knows flags, environment variables and standard output.

mod access;
mod backtest;
mod cluster_view;
mod completion;
mod cost;
mod crds;
mod documents;
mod explain;
mod hold;
mod man;
mod operator;
mod plan_args;
mod print;
mod prometheus_route;
mod recommend;
mod render;
mod run;
mod shadow;

use std::{io, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Autoscales Kthena ModelServings with KEDA: generates a ScaledObject from one annotation.
#[derive(Parser)]
#[command(
    name = "kthena-keda",
    version,
    after_help = "Exit codes: 0 success, 1 invalid input or failure, 2 invalid arguments. explain also exits with 3 if a model is not scaled, and with 4 if that is not known yet. backtest, recommend and cost have exit codes of their own."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller manager.
    Run(Box<run::Run>),
    /// Print the objects that the operator would apply for ModelServings in files; needs no cluster.
    Render(render::Render),
    /// Explain why a model scales, or why not and what to do, from the live cluster and its Prometheus.
    Explain(explain::Explain),
    /// Simulate the autoscaling of a model on its past or on a file of arrivals, and compare settings.
    Backtest(Box<backtest::Backtest>),
    /// Show the number of ServingGroups that each model in shadow would hold, beside the number that it holds.
    Shadow(Box<shadow::Shadow>),
    /// Derive target, bounds and speeds of a model from its past, with the evidence for each.
    Recommend(Box<recommend::Recommend>),
    /// Show the GPU-hours of models: recorded, with the settings in force, and at a fixed number.
    Cost(Box<cost::Cost>),
    /// Hold the requests of a model that sleeps until an engine is ready; the operator runs it in stand-in pods.
    Hold(Box<hold::Hold>),
    /// Print the CRDs: `kthena-keda crds | kubectl apply --server-side --force-conflicts -f -`.
    Crds(crds::Crds),
    /// Print a shell completion script: `source <(kthena-keda completion bash)`.
    Completion(completion::Completion),
    /// Print a manual page: `kthena-keda man run | man -l -`.
    Man(man::Man),
}

/// Runs the command of the arguments.
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage_error(&error),
    };
    match command {
        Command::Run(run) => run.run(),
        Command::Render(render) => render.run(),
        Command::Explain(explain) => explain.run(),
        Command::Backtest(backtest) => backtest.run(),
        Command::Shadow(shadow) => shadow.run(),
        Command::Recommend(recommend) => recommend.run(),
        Command::Cost(cost) => cost.run(),
        Command::Hold(hold) => hold.run(),
        Command::Crds(crds) => crds.run(),
        Command::Completion(completion) => completion.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
    }
}

/// Prints help, or an error about the arguments. The commands that read Prometheus' history exit with 1 for it, since 2 is an error
/// of Prometheus there.
fn usage_error(error: &clap::Error) -> ExitCode {
    // A closed standard error leaves no place to report its own error.
    let _ = error.print();
    let reads_history = std::env::args_os()
        .nth(1)
        .is_some_and(|command| ["backtest", "recommend", "cost"].iter().any(|name| command == *name));
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if reads_history => ExitCode::FAILURE,
        code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
    }
}

/// Completes on SIGTERM or SIGINT.
///
/// # Errors
/// If the handlers cannot be installed.
fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
