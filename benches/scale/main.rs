//! What the operator costs and how fast it is with many models, on a real API server, beside a bare client that makes the same writes.
//!
//! Each round gives every contender an API server of its own, with the same models in it, in an order that changes from round to round.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "it is run by hand, and prints what it found"
)]

mod contender;
mod figures;
mod floor;
mod latency;
mod models;
mod ours;
mod report;

use std::{fs, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use harness::{Crds, Settings, Stack};
use k8s_openapi::jiff::Timestamp;

use crate::{
    contender::settled,
    figures::{Figures, Run},
    models::Models,
};

/// Nobody listens there: what is measured has no part in it.
const PROMETHEUS: &str = "http://prometheus:9090";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures.
    Rounds(Bench),
    /// Writes table and plots anew, from the runs that lie in a folder.
    Report { folder: PathBuf },
    /// Is the floor: makes the writes that a file holds.
    Floor { kubeconfig: PathBuf, file: PathBuf },
}

#[derive(clap::Args)]
struct Bench {
    /// The operator.
    binary: PathBuf,
    /// How many models.
    #[arg(long, default_value_t = 1000)]
    models: usize,
    /// How many rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where the results are written.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Measures this contender alone.
    #[arg(long)]
    only: Option<Who>,
    /// How long the last round looks at rest, in seconds.
    #[arg(long, default_value_t = 300)]
    rest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    Floor,
    One,
    Two,
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Command::Floor { kubeconfig, file } => floor::run(kubeconfig, &file).await,
        Command::Rounds(bench) => bench.run().await,
        Command::Report { folder } => report::pages(&folder),
    }
}

impl Bench {
    async fn run(&self) {
        let mut figures = Figures::default();
        let mut of = (0, String::new());
        for round in 0..self.rounds {
            let mut order = [Who::Floor, Who::One, Who::Two];
            order.rotate_left(round % 3);
            for who in order.into_iter().filter(|who| self.only.is_none_or(|only| only == *who)) {
                of = self.part(who, round, &mut figures).await;
            }
            let over = |part: &str| Some(figures.last(part)? / figures.last("floor.seconds")?);
            for (ratio, value) in
                [("start.over_floor", over("start.seconds")), ("shards.over_floor", over("shards.seconds"))]
            {
                if let Some(value) = value {
                    figures.push(ratio, value);
                }
            }
        }
        println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
        let (size, kubernetes) = of;
        let versions = [("kthena-keda", env!("CARGO_PKG_VERSION").to_owned()), ("Kubernetes", kubernetes)];
        let run = Run {
            models: self.models,
            rounds: self.rounds,
            date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            machine: machine(),
            versions: versions.map(|(of, version)| (of.to_owned(), version)).into(),
            size,
            figures,
        };
        self.to.iter().for_each(|folder| report::write(folder, &run));
    }

    /// Answers how large the models were, and the version of Kubernetes.
    async fn part(&self, who: Who, round: usize, figures: &mut Figures) -> (usize, String) {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let settings = Settings::new(&self.binary)
            .without("--log-level")
            .without("--check-interval")
            .without("--discovery-interval");
        let models = Models::create(stack.namespace().await, self.models).await;
        let of = (
            models.size().await,
            stack.client().await.apiserver_version().await.expect("a version").git_version,
        );
        println!("round {}, {who:?}: {} ModelServings of {} bytes", round + 1, self.models, of.0);
        settled(&stack).await;
        let rest = if round + 1 == self.rounds { Duration::from_secs(self.rest) } else { Duration::ZERO };
        match who {
            Who::Floor => {
                let start = floor::prepared(&stack, &models, PROMETHEUS).await;
                ours::floor(&stack, start, &models, figures).await;
            }
            Who::One => ours::one(&stack, &settings, &models, rest, figures).await,
            Who::Two => ours::two(&stack, &settings, &models, figures).await,
        }
        of
    }
}

/// The processor, how many of them, and the memory.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default();
    format!("{cores} × {}, {} GiB", field("/proc/cpuinfo", "model name"), memory / 1024 / 1024)
}
