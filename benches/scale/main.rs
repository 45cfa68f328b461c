//! Cost and speed of the operator with many models on a real API server, compared with a bare client that
//! makes the same writes.
//!
//! Each contender of a round has its own API server with the same models. The order changes from round to
//! round.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a manual benchmark, which prints its results and stops by panicking"
)]

mod cases;
mod contender;
mod figures;
mod floor;
mod latency;
mod models;
mod queries;
mod report;
mod tenant;

use std::{fs, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use harness::{Crds, Settings, Stack};
use k8s_openapi::jiff::Timestamp;

use crate::{
    contender::settled,
    figures::{Figures, Run},
    models::Models,
};

/// Address without a server: Prometheus is not part of the benchmark.
const PROMETHEUS: &str = "http://prometheus:9090";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the benchmark.
    Rounds(Bench),
    /// Measures the cost of the operator's own queries, and prints it.
    Queries {
        /// Operator binary.
        binary: PathBuf,
        /// Number of models.
        #[arg(long, default_value_t = 1000)]
        models: usize,
    },
    /// Writes the page and its plots again from the results in a folder.
    Report {
        /// Folder of the results, such as `docs/benchmarks`.
        folder: PathBuf,
    },
    /// Runs the bare client: makes the writes in a file.
    Floor {
        /// Kubeconfig of the API server.
        kubeconfig: PathBuf,
        /// File of writes.
        file: PathBuf,
        /// List and watch the kinds that are written, and discard the bytes.
        #[arg(long)]
        watching: bool,
    },
}

#[derive(clap::Args)]
struct Bench {
    /// Operator binary.
    binary: PathBuf,
    /// Number of models.
    #[arg(long, default_value_t = 1000)]
    models: usize,
    /// Number of rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Folder for the results; without it they are only printed.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Run this contender only.
    #[arg(long)]
    only: Option<Case>,
    /// Seconds at rest in the last round.
    #[arg(long, default_value_t = 300)]
    rest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// The bare client.
    Floor,
    /// The bare client with the list and watch of the kinds that it writes.
    Watching,
    /// One operator.
    One,
    /// Two operators, each with a shard.
    Two,
    /// One operator, and as many models of a hostile tenant in another namespace.
    Tenant,
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Command::Floor { kubeconfig, file, watching } => floor::run(kubeconfig, &file, watching).await,
        Command::Rounds(bench) => bench.run().await,
        Command::Queries { binary, models } => queries::run(&binary, models).await,
        Command::Report { folder } => report::pages(&folder),
    }
}

impl Bench {
    async fn run(&self) {
        let mut figures = Figures::default();
        let mut environment = (0, String::new());
        for round in 0..self.rounds {
            let mut order = [Case::Floor, Case::Watching, Case::One, Case::Two, Case::Tenant];
            let first = round % order.len();
            order.rotate_left(first);
            for case in order.into_iter().filter(|case| self.only.is_none_or(|only| only == *case)) {
                environment = self.run_case(case, round, &mut figures).await;
            }
            for part in ["watching", "start", "shards"] {
                push_ratio(&mut figures, part, "floor");
            }
            push_ratio(&mut figures, "start", "watching");
        }
        println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
        let (size, kubernetes) = environment;
        let versions = [("kthena-keda", env!("CARGO_PKG_VERSION").to_owned()), ("Kubernetes", kubernetes)];
        let run = Run {
            models: self.models,
            rounds: self.rounds,
            date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            machine: machine(),
            versions: versions.map(|(component, version)| (component.to_owned(), version)).into(),
            size,
            figures,
        };
        self.to.iter().for_each(|folder| report::write(folder, &run));
    }

    /// Runs one contender; returns the size of a ModelServing in bytes and the version of Kubernetes.
    async fn run_case(&self, case: Case, round: usize, figures: &mut Figures) -> (usize, String) {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let settings = Settings::new(&self.binary)
            .without("--log-level")
            .without("--check-interval")
            .without("--discovery-interval");
        let models = Models::create(stack.namespace().await, self.models).await;
        let environment = (
            models.size().await,
            stack.client().await.apiserver_version().await.expect("a version").git_version,
        );
        println!("round {}, {case:?}: {} ModelServings of {} bytes", round + 1, self.models, environment.0);
        settled(&stack).await;
        let rest = if round + 1 == self.rounds { Duration::from_secs(self.rest) } else { Duration::ZERO };
        match case {
            Case::Floor | Case::Watching => {
                let is_watching = case == Case::Watching;
                let start = floor::prepare(&stack, &models, PROMETHEUS, is_watching).await;
                let part = if is_watching { "watching" } else { "floor" };
                cases::floor(&stack, start, &models, part, figures).await;
            }
            Case::One => cases::one_operator(&stack, &settings, &models, rest, figures).await,
            Case::Tenant => cases::hostile_tenant(&stack, &settings, &models, figures).await,
            Case::Two => cases::two_shards(&stack, &settings, &models, figures).await,
        }
        environment
    }
}

/// Adds the ratio of a part's time to that of a floor, if the last round measured both.
fn push_ratio(figures: &mut Figures, part: &str, floor: &str) {
    let seconds = figures.last(&format!("{part}.seconds"));
    if let (Some(seconds), Some(least)) = (seconds, figures.last(&format!("{floor}.seconds"))) {
        figures.push(&format!("{part}.over_{floor}"), seconds / least);
    }
}

/// Value of a `name: value` line in a file of `/proc`; empty if there is none.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        .unwrap_or_default()
}

/// Number of cores, processor and memory.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default();
    format!("{cores} × {}, {} GiB", field("/proc/cpuinfo", "model name"), memory / 1024 / 1024)
}
