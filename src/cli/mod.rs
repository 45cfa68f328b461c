//! The command line: the only place that knows flags, environment and standard output.

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

/// Autoscales Kthena ModelServings with KEDA: one annotation gives a ScaledObject.
#[derive(Parser)]
#[command(
    name = "kthena-keda",
    version,
    after_help = "Exit codes: 0 done, 1 bad input or failure, 2 bad arguments; of explain also 3 where a model is not scaled, 4 where nobody can tell yet."
)]
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
    /// Say why a model scales, or why it does not and what to do, from the live cluster and its Prometheus.
    Explain(explain::Explain),
    /// Print the definition of AutoscalingProfile: `kthena-keda crds | kubectl apply --server-side --force-conflicts -f -`.
    Crds,
    /// Print a script that completes this command line in a shell: `source <(kthena-keda completion bash)`.
    Completion(completion::Completion),
    /// Print the manual page: `kthena-keda man run | man -l -`.
    Man(man::Man),
}

/// Runs the command that the arguments name.
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
