//! Flags of `backtest`, and contradictions between them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    failure::Failure,
    times::{duration, positive, time, whole_seconds},
};
use crate::{cli::plan_args::namespace, prometheus::ClientConfig};
use kthena_keda_core::{
    domain::PrometheusUrl,
    foresight::{
        fleet,
        overrides::Override,
        report::{Check, Slo},
    },
};

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 invalid input, 2 Prometheus is not reachable or refuses, 3 the data does not suffice, 4 a condition of --fail-if holds. See docs/backtest.md."
)]
pub(crate) struct Backtest {
    /// ModelServing, from the cluster of the kubeconfig, or the one of several in the files of -f.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(super) model: Option<String>,
    /// YAML or JSON file with the ModelServing and the objects that affect its plan, instead of a cluster;
    /// repeatable.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Namespace of the ModelServing, if it is given by its name alone, and of the objects in files that name none.
    #[arg(short, long, value_parser = namespace)]
    pub(super) namespace: Option<String>,
    /// Context of the kubeconfig; the current context by default.
    #[arg(long)]
    pub(super) context: Option<String>,

    /// Length of the time to read, up to --to; seven days by default.
    #[arg(long, value_name = "DURATION", value_parser = since, help_heading = "Time")]
    pub(super) since: Option<i64>,
    /// Start of the time to read, such as 2026-11-19T05:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(super) from: Option<i64>,
    /// End of the time to read; now by default.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Time")]
    pub(super) to: Option<i64>,
    /// Length of a step; by default 15s, or the distance of the samples in the store if that is longer.
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds, help_heading = "Time")]
    pub(super) step: Option<u32>,

    /// Address of Prometheus as reached from here, such as <http://localhost:9090>; by default queries go
    /// through the API server.
    #[arg(long, value_name = "URL", help_heading = "Data")]
    pub(super) prometheus_url: Option<PrometheusUrl>,
    /// File with a bearer token for Prometheus at --prometheus-url.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) prometheus_bearer_token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust for Prometheus at --prometheus-url.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) prometheus_ca_file: Option<PathBuf>,
    /// Namespace of kthena-router; by default that of the operator's Deployment, else kthena-system.
    #[arg(long, env = "KTHENA_KEDA_ROUTER_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace, help_heading = "Data")]
    pub(super) router_namespace: Option<String>,
    /// Write what was read to a file, without addresses and credentials.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) save: Option<PathBuf>,
    /// Read a file of --save instead of Prometheus; without a model it has the settings, too.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) history: Option<PathBuf>,
    /// Read arrivals from a CSV file with columns such as time, arrivals and `output_tokens`, instead of
    /// Prometheus; needs no cluster.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub(super) load: Option<PathBuf>,
    /// Column of --load with requests per second, if several columns end with _rps.
    #[arg(long, value_name = "COLUMN", requires = "load", help_heading = "Data")]
    pub(super) load_column: Option<String>,
    /// Length of a row of --load without a column time, unless the name of the file ends with it.
    #[arg(long, value_name = "DURATION", value_parser = whole_seconds, requires = "load", help_heading = "Data")]
    pub(super) load_row: Option<u32>,

    /// Setting to try, such as target=12, min=2, max=40, serviceTime=5s, headroom=1.5, drainTime=5m,
    /// scaleUp.policies=8/60s, scaleDown.stabilizationWindow=10m, or an annotation; repeatable.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "What to compare")]
    pub(super) set: Vec<Override>,
    /// File with an AutoscalingProfile to try.
    #[arg(long, value_name = "FILE", help_heading = "What to compare")]
    pub(super) with_profile: Option<PathBuf>,
    /// Compare with a fixed number of ServingGroups: static=N, or static for the least one that meets --slo;
    /// repeatable.
    #[arg(long, value_name = "static[=N]", value_parser = compare, help_heading = "What to compare")]
    pub(super) compare: Vec<Compare>,
    /// Take recorded values of custom signals although other settings would have changed them.
    #[arg(long, help_heading = "What to compare")]
    pub(super) assume_independent: bool,

    /// Requests that one ServingGroup serves at once; 1.25 times the target of active-requests by default.
    #[arg(long, value_name = "NUMBER", value_parser = positive, help_heading = "Assumptions")]
    pub(super) capacity: Option<f64>,
    /// Time that one request takes without waiting; measured by default.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Assumptions")]
    pub(super) service_time: Option<f64>,
    /// Time from the start of a ServingGroup until it is ready.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m", help_heading = "Assumptions")]
    pub(super) cold_start: f64,
    /// Place where requests wait: the engine that the router chose, or the router with fairness scheduling.
    #[arg(long, value_enum, default_value_t = Queue::Engine, help_heading = "Assumptions")]
    pub(super) queue: Queue,
    /// Seconds between two decisions of the HPA: --horizontal-pod-autoscaler-sync-period of the cluster.
    #[arg(long, env = "KTHENA_KEDA_HPA_SYNC_PERIOD", value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600), help_heading = "Assumptions")]
    pub(super) hpa_sync_period: u64,
    /// Price of a GPU for an hour.
    #[arg(long, value_name = "PRICE", value_parser = positive, help_heading = "Assumptions")]
    pub(super) gpu_cost: Option<f64>,
    /// GPUs of one ServingGroup; by default the limits of its pods.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Assumptions")]
    pub(super) gpus_per_group: Option<u32>,

    /// Share of the requests and the time that they may wait.
    #[arg(long, value_name = "pNN=DURATION", default_value = "p95=10s", help_heading = "Output")]
    pub(super) slo: Slo,
    /// Show each rule of the HPA's last sync up to this time.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Output")]
    pub(super) explain: Option<i64>,
    /// Exit with 4 under this condition, such as waiting>1% or p95>=5s, of the last settings; repeatable.
    #[arg(long, value_name = "CONDITION", help_heading = "Output")]
    pub(super) fail_if: Vec<Check>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub(super) output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
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
pub(super) enum Queue {
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
pub(super) enum Compare {
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

#[allow(clippy::cast_possible_truncation, reason = "bounded by the parser")]
fn since(text: &str) -> Result<i64, String> {
    duration(text).map(|seconds| seconds as i64)
}

impl Backtest {
    /// Refuses flags that contradict each other or have no effect.
    pub(super) fn check_flags(&self) -> Result<(), Failure> {
        let of_time = [
            ("--since", self.since.is_some()),
            ("--from", self.from.is_some()),
            ("--to", self.to.is_some()),
            ("--step", self.step.is_some()),
            ("--save", self.save.is_some()),
            ("--prometheus-url", self.prometheus_url.is_some()),
        ];
        let no_effect = |source: &str, flags: &[(&str, bool)]| {
            let flag = flags.iter().find(|(_, is_set)| *is_set).map(|(flag, _)| *flag);
            flag.map_or(Ok(()), |flag| {
                Err(Failure::Input(format!("{flag} has no effect with {source}; leave one of them out")))
            })
        };
        if self.load.is_some() {
            no_effect("--load", &[("--history", self.history.is_some())])?;
            no_effect("--load", &of_time)?;
            let names_cluster = self.model.is_some() && self.files.is_empty();
            no_effect("--load", &[("NAMESPACE/NAME without -f", names_cluster)])?;
        }
        if self.history.is_some() {
            no_effect("--history", &of_time)?;
        }
        if self.since.is_some() && self.from.is_some() {
            return Err(Failure::Input(
                "--since and --from both set the start; leave one of them out".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        ClientConfig {
            bearer_token_file: self.prometheus_bearer_token_file.clone(),
            ca_file: self.prometheus_ca_file.clone(),
        }
    }
}
