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

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use harness::{Crds, Settings, Stack};

use crate::{contender::settled, figures::Figures, models::Models};

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
    Rounds(Rounds),
    /// Is the floor: makes the writes that a file holds.
    Floor { kubeconfig: PathBuf, file: PathBuf },
}

#[derive(clap::Args)]
struct Rounds {
    /// The operator.
    binary: PathBuf,
    /// How many models.
    #[arg(long, default_value_t = 1000)]
    models: usize,
    /// How many rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long the last round looks at rest, in seconds.
    #[arg(long, default_value_t = 300)]
    rest: u64,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Floor,
    One,
    Two,
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Command::Floor { kubeconfig, file } => floor::run(kubeconfig, &file).await,
        Command::Rounds(rounds) => rounds.run().await,
    }
}

impl Rounds {
    async fn run(&self) {
        let mut figures = Figures::default();
        for round in 0..self.rounds {
            let mut order = [Who::Floor, Who::One, Who::Two];
            order.rotate_left(round % 3);
            for who in order {
                self.part(who, round, &mut figures).await;
            }
            let over = |part: &str| Some(figures.last(part)? / figures.last("floor.seconds")?);
            let (start, shards) = (over("start.seconds"), over("shards.seconds"));
            figures.push("start.over_floor", start.unwrap_or(f64::NAN));
            figures.push("shards.over_floor", shards.unwrap_or(f64::NAN));
            println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
        }
    }

    async fn part(&self, who: Who, round: usize, figures: &mut Figures) {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let settings = Settings::new(&self.binary).without("--log-level").without("--check-interval").without("--discovery-interval");
        let models = Models::create(stack.namespace().await, self.models).await;
        println!("round {round}, {who:?}: {} ModelServings of {} bytes", self.models, models.size().await);
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
    }
}
