//! Results of a backtest: JSON here, and as a table, CSV, a picture or a page.

mod check;
mod csv;
mod escape;
mod explained;
mod page;
mod picture;
mod sparkline;
mod table;

pub use check::{Check, Figure};
pub use explained::Explained;
pub use sparkline::sparkline;
pub(super) use table::aligned;

use std::{fmt, str::FromStr};

use k8s_openapi::jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{
    backtest::{Fidelity, Outcome, StepState},
    history::{Grid, HISTORY_API_VERSION},
    settings::Settings,
    spec::Rules,
    waits::Waits,
};
use crate::{
    domain::ValueError,
    intent::{Policy, PolicyKind},
};

/// Longest duration of an objective, in seconds.
const SLO_MAX: f64 = 86_400.0;
/// Earliest start that is a date; earlier ones are times since the start of a file.
const DATES: i64 = 100_000_000;

/// Objective for the waiting time: a share of the requests waits for at most some seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// Share of the requests, 0 to 1.
    pub share: f64,
    /// Waiting time in seconds.
    pub seconds: f64,
}

impl Default for Slo {
    fn default() -> Self {
        Self { share: 0.95, seconds: 10.0 }
    }
}

impl Slo {
    /// `true` if the waiting times meet the objective.
    pub fn is_met(&self, waits: &Waits) -> bool {
        waits.share_over() <= 1.0 - self.share + 1e-9
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:.0}={}s", self.share * 100.0, self.seconds)
    }
}

impl FromStr for Slo {
    type Err = ValueError;

    /// Parses an objective such as `p95=10s`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parse = || {
            let (share, time) = text.strip_prefix('p')?.split_once('=')?;
            let share = share.parse::<u8>().ok().filter(|share| (1..100).contains(share))?;
            let (number, unit) =
                match (time.strip_suffix("ms"), time.strip_suffix('s'), time.strip_suffix('m')) {
                    (Some(number), ..) => (number, 0.001),
                    (None, Some(number), _) => (number, 1.0),
                    (None, None, Some(number)) => (number, 60.0),
                    (None, None, None) => return None,
                };
            let seconds = number.parse::<f64>().ok()? * unit;
            (seconds > 0.0 && seconds <= SLO_MAX).then_some(Self { share: f64::from(share) / 100.0, seconds })
        };
        parse().ok_or_else(|| {
            ValueError::expected("a share of requests and the time that they may wait, such as p95=10s")
        })
    }
}

impl Serialize for Slo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Prices of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// GPUs of one ServingGroup.
    pub gpus_per_group: Option<u32>,
    /// Price of a GPU for an hour.
    pub gpu_hour: Option<f64>,
}

/// Results of a backtest.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    api_version: &'static str,
    kind: &'static str,
    /// Model.
    pub model: String,
    /// Time.
    pub window: Window,
    /// Extent of the data.
    pub data: Data,
    /// Assumptions on the fleet.
    pub assumptions: Assumptions,
    /// Objective for the waiting time.
    pub slo: Slo,
    /// Agreement of the replay with the recorded replicas.
    pub fidelity: Option<Fidelity>,
    /// Runs.
    pub runs: Vec<RunReport>,
    /// Remarks on the data and on what is not simulated.
    pub findings: Vec<Finding>,
    /// The sync that is explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
    /// ServingGroups that each step needs.
    #[serde(skip)]
    pub need: Vec<Option<f64>>,
    /// Times of the steps.
    #[serde(skip)]
    pub grid: Grid,
}

/// Time of a backtest.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// Start; `None` if the times of a load are not dates.
    pub from: Option<String>,
    /// End.
    pub to: Option<String>,
    /// Length of a step, in seconds.
    pub step: u32,
    /// Length, in seconds.
    pub seconds: i64,
}

/// Extent of the data.
#[derive(Clone, Debug, Serialize)]
pub struct Data {
    /// Number of steps.
    pub steps: usize,
    /// Share of the steps without data, 0 to 1.
    pub missing: f64,
    /// Phases of the HPA's syncs that were tried, in seconds.
    pub phases: Vec<f64>,
}

/// Assumptions on the fleet.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assumptions {
    /// Requests that one ServingGroup serves at once.
    pub requests_per_group: f64,
    /// Service time in seconds.
    pub service_time: Option<f64>,
    /// Time until a new ServingGroup is ready, in seconds.
    pub cold_start: f64,
}

/// Remark on the data or on what is not simulated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name.
    pub reason: &'static str,
    /// Text for users.
    pub message: String,
}

impl Finding {
    /// A remark with a name and a text for users.
    pub const fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Results of one run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// Name.
    pub name: String,
    /// Settings; `None` for recorded and fixed numbers of ServingGroups.
    pub settings: Option<RunSettings>,
    /// Sum of the ServingGroups over time.
    pub group_hours: f64,
    /// The same in GPUs.
    pub gpu_hours: Option<f64>,
    /// Price of the GPUs.
    pub cost: Option<f64>,
    /// Mean number of ServingGroups.
    pub mean: f64,
    /// Highest number of ServingGroups.
    pub peak: u32,
    /// Changes of the number of ServingGroups.
    pub changes: u32,
    /// Waiting times.
    pub waiting: Waiting,
    /// Share of the time in which requests wait, 0 to 1.
    pub saturated: f64,
    /// Requests whose streams ended with the removal of their ServingGroup.
    pub cut: f64,
    /// Share of the steps in which values of triggers are modelled instead of recorded, 0 to 1.
    pub modelled: f64,
    /// State at each step.
    #[serde(skip)]
    pub steps: Vec<StepState>,
}

/// Waiting times in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Waiting {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Share of the requests that waited for longer than the objective's time, 0 to 1.
    pub over: f64,
}

/// Settings of a run, as its ScaledObject has them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSettings {
    /// Minimum number of ServingGroups.
    pub min: i32,
    /// Maximum number of ServingGroups.
    pub max: i32,
    /// Target of each trigger.
    pub targets: Vec<Target>,
    /// Adding ServingGroups.
    pub scale_up: Speed,
    /// Removing ServingGroups.
    pub scale_down: Speed,
}

/// Target of a trigger.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Name of the trigger.
    pub trigger: String,
    /// Amount that one ServingGroup carries.
    pub target: f64,
}

/// Speed in one direction.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// Stabilization window, in seconds.
    pub window: i32,
    /// Choice among the policies.
    pub select: &'static str,
    /// Policies, such as `8/60s`.
    pub policies: Vec<String>,
}

impl Report {
    /// A report without runs.
    pub(super) fn new(model: &str, grid: Grid, data: Data, assumptions: Assumptions, slo: Slo) -> Self {
        let shown = |seconds: i64| {
            let is_date = grid.start() >= DATES;
            is_date.then(|| Timestamp::from_second(seconds).ok().map(|time| time.to_string())).flatten()
        };
        Self {
            api_version: HISTORY_API_VERSION,
            kind: "Backtest",
            model: model.to_owned(),
            window: Window {
                from: shown(grid.start()),
                to: shown(grid.end()),
                step: grid.step(),
                seconds: grid.end() - grid.start(),
            },
            data: Data { missing: rounded(data.missing, 4), ..data },
            assumptions: Assumptions {
                service_time: assumptions.service_time.map(|time| rounded(time, 3)),
                ..assumptions
            },
            slo,
            fidelity: None,
            runs: Vec::new(),
            findings: Vec::new(),
            explained: None,
            need: Vec::new(),
            grid,
        }
    }

    pub(super) fn with_runs(
        self,
        fidelity: Option<Fidelity>,
        runs: Vec<RunReport>,
        findings: Vec<Finding>,
        need: Vec<Option<f64>>,
    ) -> Self {
        Self { fidelity, runs, findings, need, ..self }
    }

    pub(super) fn with_explanation(self, explained: Option<Explained>) -> Self {
        Self { explained, ..self }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// If it cannot be serialized.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl RunReport {
    #[allow(clippy::cast_precision_loss, reason = "bounded")]
    pub(super) fn new(name: &str, settings: Option<RunSettings>, outcome: Outcome, costs: Costs) -> Self {
        let Outcome { steps, totals, waits, changes, modelled, pass: _ } = outcome;
        let group_hours = totals.group_seconds / 3600.0;
        let gpu_hours = costs.gpus_per_group.map(|gpus| group_hours * f64::from(gpus));
        let groups = || steps.iter().map(|step| step.groups);
        let mean = groups().map(f64::from).sum::<f64>() / (steps.len() as f64).max(1.0);
        // The time of a run is that of its groups, unless there were none.
        let seconds = if mean > 0.0 { totals.group_seconds / mean } else { f64::INFINITY };
        Self {
            name: name.to_owned(),
            settings,
            group_hours: rounded(group_hours, 2),
            gpu_hours: gpu_hours.map(|hours| rounded(hours, 2)),
            cost: gpu_hours.zip(costs.gpu_hour).map(|(hours, price)| rounded(hours * price, 2)),
            mean: rounded(mean, 3),
            peak: groups().max().unwrap_or(0),
            changes,
            waiting: Waiting {
                mean: rounded(waits.mean(), 3),
                p50: rounded(waits.quantile(0.5), 2),
                p95: rounded(waits.quantile(0.95), 2),
                p99: rounded(waits.quantile(0.99), 2),
                over: rounded(waits.share_over(), 6),
            },
            saturated: rounded((totals.saturated / seconds).min(1.0), 4),
            cut: rounded(totals.cut, 1),
            modelled: rounded(modelled, 4),
            steps,
        }
    }
}

impl RunSettings {
    #[allow(clippy::cast_precision_loss, reason = "targets are below 2^53")]
    pub(super) fn of(settings: &Settings) -> Self {
        let targets = settings.triggers.iter().zip(settings.hpa.metrics());
        Self {
            min: settings.min(),
            max: settings.hpa.max(),
            targets: targets
                .map(|(trigger, metric)| Target {
                    trigger: trigger.name.clone(),
                    target: metric.target as f64 / 1000.0,
                })
                .collect(),
            scale_up: Speed::of(&settings.hpa.scale_up),
            scale_down: Speed::of(&settings.hpa.scale_down),
        }
    }
}

impl Speed {
    fn of(rules: &Rules) -> Self {
        let policy = |policy: &Policy| match policy.kind {
            PolicyKind::Pods => format!("{}/{}s", policy.value, policy.period),
            PolicyKind::Percent => format!("{}%/{}s", policy.value, policy.period),
        };
        let policies = rules.policies.iter().map(policy).collect();
        Self { window: rules.window, select: rules.select.into(), policies }
    }
}

/// Rounds to a number of decimals, so that reports do not differ by the last bits of a machine.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let factor = 10_f64.powi(decimals);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("p95=10s", Some((0.95, 10.0)))]
    #[case("p50=500ms", Some((0.5, 0.5)))]
    #[case("p99=2m", Some((0.99, 120.0)))]
    #[case("ttft=2s", None)]
    #[case("p100=1s", None)]
    #[case("p95=0s", None)]
    #[case("p95=NaNs", None)]
    #[case("p95", None)]
    fn reads_objectives(#[case] text: &str, #[case] expected: Option<(f64, f64)>) {
        assert_eq!(text.parse::<Slo>().ok().map(|slo| (slo.share, slo.seconds)), expected);
    }
}
