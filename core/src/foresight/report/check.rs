//! Checks of a report for CI: `waiting>1%`.

use std::{fmt, str::FromStr};

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::{Report, RunReport, rounded};
use crate::domain::ValueError;

/// Figure of a run that a check compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "camelCase")]
pub enum Figure {
    /// Share of the requests that waited for longer than the objective's time.
    Waiting,
    /// Median of the waiting time, in seconds.
    P50,
    /// 95th percentile of the waiting time, in seconds.
    P95,
    /// 99th percentile of the waiting time, in seconds.
    P99,
    /// Sum of the ServingGroups over time.
    GroupHours,
    /// The same in GPUs.
    GpuHours,
    /// Price of the GPUs.
    Cost,
    /// Highest number of ServingGroups.
    Peak,
    /// Changes of the number of ServingGroups.
    Changes,
    /// Share of the time in which requests wait.
    Saturated,
    /// Share of the steps in which the replay equals the record.
    Equal,
}

impl Figure {
    /// Text for users about a report without it.
    fn absence(self) -> &'static str {
        match self {
            Self::GpuHours | Self::Cost => "the report has no costs; pass --gpu-cost and --gpus-per-group",
            Self::Equal => {
                "no numbers of ServingGroups were recorded, with which the replay could be compared"
            }
            _ => "the report does not have this figure",
        }
    }
}

/// Condition under which a report fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    figure: Figure,
    fails_above: bool,
    includes_limit: bool,
    limit: f64,
    is_percent: bool,
}

impl FromStr for Check {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parse = || {
            let at = text.find(['<', '>'])?;
            let (figure, rest) = text.split_at_checked(at)?;
            let fails_above = rest.starts_with('>');
            let rest = rest.get(1..)?;
            let (includes_limit, rest) = rest.strip_prefix('=').map_or((false, rest), |rest| (true, rest));
            let rest = rest.trim();
            let (number, is_percent) = rest.strip_suffix('%').map_or((rest, false), |number| (number, true));
            let number = number.strip_suffix('s').unwrap_or(number);
            let limit = number.parse::<f64>().ok().filter(|limit| limit.is_finite())?;
            let limit = if is_percent { limit / 100.0 } else { limit };
            let figure = figure.trim().parse().ok()?;
            Some(Self { figure, fails_above, includes_limit, limit, is_percent })
        };
        parse().ok_or_else(|| {
            let names: Vec<&str> = Figure::VARIANTS.iter().map(Into::into).collect();
            ValueError::expected(format!(
                "a comparison such as waiting>1% or p95>=5s with one of {}",
                names.join(", ")
            ))
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.fails_above { ">" } else { "<" };
        let equal = if self.includes_limit { "=" } else { "" };
        let figure: &str = self.figure.into();
        write!(f, "{figure}{sign}{equal}{}", self.shown(self.limit))
    }
}

impl Check {
    fn shown(&self, value: f64) -> String {
        if self.is_percent { format!("{}%", rounded(value * 100.0, 4)) } else { value.to_string() }
    }

    /// Failure of the last run that is not a fixed number of ServingGroups: a text for users, or nothing.
    ///
    /// # Errors
    /// If the report does not have the figure.
    pub fn failure(&self, report: &Report) -> Result<Option<String>, String> {
        let is_checked = |run: &&RunReport| run.settings.is_some();
        let run = report.runs.iter().rfind(is_checked);
        let name = run.map_or("the replay", |run| run.name.as_str());
        let value = match (self.figure, run) {
            (Figure::Equal, _) => report.fidelity.as_ref().map(|fidelity| fidelity.equal),
            (_, None) => None,
            (Figure::Waiting, Some(run)) => Some(run.waiting.over),
            (Figure::P50, Some(run)) => Some(run.waiting.p50),
            (Figure::P95, Some(run)) => Some(run.waiting.p95),
            (Figure::P99, Some(run)) => Some(run.waiting.p99),
            (Figure::GroupHours, Some(run)) => Some(run.group_hours),
            (Figure::GpuHours, Some(run)) => run.gpu_hours,
            (Figure::Cost, Some(run)) => run.cost,
            (Figure::Peak, Some(run)) => Some(run.peak.into()),
            (Figure::Changes, Some(run)) => Some(run.changes.into()),
            (Figure::Saturated, Some(run)) => Some(run.saturated),
        };
        let value = value.ok_or_else(|| format!("--fail-if {self}: {}", self.figure.absence()))?;
        let is_equal = (value - self.limit).abs() < 1e-12;
        let is_beyond = if self.fails_above { value > self.limit } else { value < self.limit };
        let fails = if is_equal { self.includes_limit } else { is_beyond };
        Ok(fails.then(|| format!("--fail-if {self}: it is {} for {name}", self.shown(value))))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("waiting>1%", "waiting>1%")]
    #[case("p95 >= 5s", "p95>=5")]
    #[case("gpuHours>2000", "gpuHours>2000")]
    #[case("equal<99%", "equal<99%")]
    fn reads_comparisons(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(text.parse::<Check>().unwrap().to_string(), shown);
    }

    #[rstest]
    fn refuses_other_text(
        #[values("", "waiting", "waiting=1", "slow>1%", "waiting>NaN", "waiting>", ">1")] text: &str,
    ) {
        assert!(text.parse::<Check>().unwrap_err().to_string().contains("such as waiting>1%"));
    }
}
