//! The command line: the only folder that knows flags, environment variables and standard output.

mod completion;
mod crds;
mod explain;
mod man;
mod plan_args;
mod print;
mod render;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Autoscales Kthena ModelServings with KEDA: generates a ScaledObject from one annotation.
#[derive(Parser)]
#[command(
    name = "kthena-keda",
    version,
    after_help = "Exit codes: 0 success, 1 invalid input or failure, 2 invalid arguments. explain also exits with 3 if a model is not scaled, and with 4 if that is not known yet."
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
    /// Print the CRD of AutoscalingProfile: `kthena-keda crds | kubectl apply --server-side --force-conflicts
    /// -f -`.
    Crds,
    /// Print a shell completion script: `source <(kthena-keda completion bash)`.
    Completion(completion::Completion),
    /// Print a manual page: `kthena-keda man run | man -l -`.
    Man(man::Man),
}

/// Runs the command of the arguments.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Render(render) => render.run(),
        Command::Explain(explain) => explain.run(),
        Command::Crds => crds::run(),
        Command::Completion(completion) => completion.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
    }
}
