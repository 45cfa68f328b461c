//! Flags of `backtest`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    source::SourceFlags,
    times::{duration, positive, time},
};
use kthena_keda_core::foresight::{
    fleet,
    overrides::Override,
    report::{Check, Slo},
};

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 invalid input, 2 Prometheus is not reachable or refuses, 3 the data does not suffice, 4 a condition of --fail-if holds. See docs/backtest.md."
)]
pub(crate) struct Backtest {
    #[command(flatten)]
    pub(in crate::cli) source: SourceFlags,

    /// Setting to try, such as target=12, min=2, max=40, serviceTime=5s, headroom=1.5, drainTime=5m,
    /// scaleUp.policies=8/60s, scaleDown.stabilizationWindow=10m, or an annotation; repeatable.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "What to compare")]
    pub(in crate::cli) set: Vec<Override>,
    /// File with an AutoscalingProfile to try.
    #[arg(long, value_name = "FILE", help_heading = "What to compare")]
    pub(in crate::cli) with_profile: Option<PathBuf>,
    /// Compare with a fixed number of ServingGroups: static=N, or static for the least one that meets --slo;
    /// repeatable.
    #[arg(long, value_name = "static[=N]", value_parser = compare, help_heading = "What to compare")]
    pub(in crate::cli) compare: Vec<Compare>,
    /// Take recorded values of custom signals although other settings would have changed them.
    #[arg(long, help_heading = "What to compare")]
    pub(in crate::cli) assume_independent: bool,

    /// Requests that one ServingGroup serves at once; 1.25 times the target of active-requests by default.
    #[arg(long, value_name = "NUMBER", value_parser = positive, help_heading = "Assumptions")]
    pub(in crate::cli) capacity: Option<f64>,
    /// Time that one request takes without waiting; measured by default.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Assumptions")]
    pub(in crate::cli) service_time: Option<f64>,
    /// Time from the start of a ServingGroup until it is ready.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m", help_heading = "Assumptions")]
    pub(in crate::cli) cold_start: f64,
    /// Place where requests wait: the engine that the router chose, or the router with fairness scheduling.
    #[arg(long, value_enum, default_value_t = Queue::Engine, help_heading = "Assumptions")]
    pub(in crate::cli) queue: Queue,
    /// Seconds between two decisions of the HPA: --horizontal-pod-autoscaler-sync-period of the cluster; by default that of
    /// the operator's Deployment, else 15.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600), help_heading = "Assumptions")]
    pub(in crate::cli) hpa_sync_period: Option<u64>,
    /// Price of a GPU for an hour.
    #[arg(long, value_name = "PRICE", value_parser = positive, help_heading = "Assumptions")]
    pub(in crate::cli) gpu_cost: Option<f64>,
    /// GPUs of one ServingGroup; by default the limits of its pods.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Assumptions")]
    pub(in crate::cli) gpus_per_group: Option<u32>,

    /// Share of the requests and the time that they may wait.
    #[arg(long, value_name = "pNN=DURATION", default_value = "p95=10s", help_heading = "Output")]
    pub(in crate::cli) slo: Slo,
    /// Show each rule of the HPA's last sync up to this time.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Output")]
    pub(in crate::cli) explain: Option<i64>,
    /// Exit with 4 under this condition, such as waiting>1% or p95>=5s, of the last settings; repeatable.
    #[arg(long, value_name = "CONDITION", help_heading = "Output")]
    pub(in crate::cli) fail_if: Vec<Check>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub(in crate::cli) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Table for a terminal.
    Table,
    /// JSON (foresight.kthena.io/v1).
    Json,
    /// One row for each step.
    Csv,
    /// Picture of the ServingGroups and of the waiting requests.
    Svg,
    /// Page with picture and tables; one file, without script.
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Queue {
    /// In the engine that the router chose.
    Engine,
    /// In the router.
    Router,
}

impl From<Queue> for fleet::Queue {
    fn from(queue: Queue) -> Self {
        match queue {
            Queue::Engine => Self::Engine,
            Queue::Router => Self::Router,
        }
    }
}

/// Something to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Compare {
    /// A fixed number of ServingGroups; `None` is the least one that meets the objective.
    Static(Option<u32>),
}

fn compare(text: &str) -> Result<Compare, String> {
    let expected = || "expected static or static=N with N >= 1".to_owned();
    match text.strip_prefix("static").ok_or_else(expected)? {
        "" => Ok(Compare::Static(None)),
        number => {
            let number = number.strip_prefix('=').and_then(|number| number.parse().ok());
            let number = number.filter(|number| (1..=100_000).contains(number));
            number.map(|number| Compare::Static(Some(number))).ok_or_else(expected)
        }
    }
}
