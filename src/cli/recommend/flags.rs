//! Flags of `recommend`.

use clap::{Args, ValueEnum};

use crate::cli::backtest::{
    flags::Queue,
    source::SourceFlags,
    times::{duration, positive},
};
use kthena_keda_core::foresight::recommend::{self, Objective};

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 invalid input, 2 Prometheus is not reachable or refuses, 3 the data does not suffice, with each reason. See docs/recommend.md."
)]
pub(crate) struct Recommend {
    #[command(flatten)]
    pub(super) source: SourceFlags,

    /// Objective: the time that a share of the requests may take up to their last byte, such as p95=30s, or up to the
    /// first token, such as ttft=2s; by default 1.5 times the p95 while few requests are in flight.
    #[arg(long, value_name = "OBJECTIVE", help_heading = "Objective")]
    pub(super) slo: Option<Objective>,

    /// Requests that one ServingGroup carries within the objective; measured by default.
    #[arg(long, value_name = "NUMBER", value_parser = positive, help_heading = "Assumptions")]
    pub(super) capacity: Option<f64>,
    /// Time that one request takes without waiting; measured by default.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Assumptions")]
    pub(super) service_time: Option<f64>,
    /// Time from the start of a ServingGroup until it is ready; measured by default, else 5 minutes.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Assumptions")]
    pub(super) cold_start: Option<f64>,
    /// Place where requests wait: the engine that the router chose, or the router with fairness scheduling.
    #[arg(long, value_enum, default_value_t = Queue::Engine, help_heading = "Assumptions")]
    pub(super) queue: Queue,
    /// Seconds between two decisions of the HPA: --horizontal-pod-autoscaler-sync-period of the cluster; by default that of
    /// the operator's Deployment, else 15.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600), help_heading = "Assumptions")]
    pub(super) hpa_sync_period: Option<u64>,
    /// Take recorded values of custom signals although other settings would have changed them.
    #[arg(long, help_heading = "Assumptions")]
    pub(super) assume_independent: bool,
    /// Price of a GPU for an hour.
    #[arg(long, value_name = "PRICE", value_parser = positive, help_heading = "Assumptions")]
    pub(super) gpu_cost: Option<f64>,
    /// GPUs of one ServingGroup; by default the limits of its pods.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Assumptions")]
    pub(super) gpus_per_group: Option<u32>,

    /// Form of the lines to paste.
    #[arg(long, value_enum, default_value_t = ApplyAs::Annotations, help_heading = "Output")]
    pub(super) apply_as: ApplyAs,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub(super) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Table for a terminal, and the lines to paste.
    Table,
    /// JSON (foresight.kthena.io/v1).
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ApplyAs {
    /// `kubectl annotate`, and a profile for what annotations do not have.
    Annotations,
    /// An `AutoscalingProfile`.
    Profile,
    /// `kubectl patch`, and a profile for what annotations do not have.
    Patch,
}

impl From<ApplyAs> for recommend::ApplyAs {
    fn from(apply: ApplyAs) -> Self {
        match apply {
            ApplyAs::Annotations => Self::Annotations,
            ApplyAs::Profile => Self::Profile,
            ApplyAs::Patch => Self::Patch,
        }
    }
}
