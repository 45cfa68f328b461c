//! Recorded series of one model on a grid of equal steps.
//!
//! A step without a point is a gap: Prometheus had no answer, so the HPA keeps the number of replicas. A gap is never
//! 0 and never interpolated.

mod file;

use std::{collections::BTreeMap, fmt, str::FromStr};

pub use file::{HISTORY_API_VERSION, HistoryError, read, write};

use crate::{api::keda::ScaledObject, domain::Backlog};

/// Steps of one history: six weeks at 15 s.
pub const STEPS_MAX: usize = 250_000;
/// Values of one history in total, which bounds its memory to 64 MiB.
pub const VALUES_MAX: usize = 8_000_000;
/// Longest time of one history, in seconds: a year.
pub const SECONDS_MAX: u64 = 31_622_400;
/// Length of a step, in seconds.
pub const STEP: std::ops::RangeInclusive<u32> = 1..=3600;

/// Share of steps without an answer above which a report warns.
pub const MISSING_WARNING: f64 = 0.05;
/// Share of steps without an answer above which a history is unfit.
pub const MISSING_MAX: f64 = 0.30;

/// Times of the steps: `start`, `start + step`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    start: i64,
    step: u32,
    steps: usize,
}

impl Grid {
    /// A grid from a time in seconds since 1970; `None` without a step, with more than [`STEPS_MAX`] or [`SECONDS_MAX`], or with a
    /// length outside of [`STEP`].
    pub fn new(start: i64, step: u32, steps: usize) -> Option<Self> {
        let is_valid = STEP.contains(&step) && (1..=STEPS_MAX).contains(&steps);
        let is_valid = is_valid && steps as u64 * u64::from(step) <= SECONDS_MAX;
        // Dates of more than four digits have no RFC 3339 form.
        (is_valid && (0..=250_000_000_000).contains(&start)).then_some(Self { start, step, steps })
    }

    /// Time of the first step, in seconds since 1970.
    pub const fn start(self) -> i64 {
        self.start
    }

    /// Length of a step, in seconds.
    pub const fn step(self) -> u32 {
        self.step
    }

    /// Number of steps.
    pub const fn steps(self) -> usize {
        self.steps
    }

    /// End of the last step, in seconds since 1970.
    #[allow(clippy::cast_possible_wrap, reason = "bounded by the constructor")]
    pub const fn end(self) -> i64 {
        self.start + self.step as i64 * self.steps as i64
    }

    /// Step of a time in seconds since 1970; `None` outside of the grid, or more than half a second from a step.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "bounded"
    )]
    pub(super) fn index(self, at: f64) -> Option<usize> {
        let position = (at - self.start as f64) / f64::from(self.step);
        let index = position.round();
        let is_on_grid = (position - index).abs() * f64::from(self.step) <= 0.5;
        (is_on_grid && index >= 0.0 && index < self.steps as f64).then_some(index as usize)
    }
}

/// Values of one series, one per step.
#[derive(Clone, Debug, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    fn empty(steps: usize) -> Self {
        Self(vec![f64::NAN; steps])
    }

    /// Value of a step; `None` in a gap.
    pub fn get(&self, step: usize) -> Option<f64> {
        self.0.get(step).copied().filter(|value| !value.is_nan())
    }

    /// Values of all steps; `None` in a gap.
    pub fn iter(&self) -> impl Iterator<Item = Option<f64>> {
        self.0.iter().map(|value| (!value.is_nan()).then_some(*value))
    }

    /// `true` without any value.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|value| value.is_nan())
    }
}

impl FromIterator<Option<f64>> for Series {
    /// A value that is not a number counts as a gap.
    fn from_iter<I: IntoIterator<Item = Option<f64>>>(values: I) -> Self {
        Self(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}

/// Meaning of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeriesName {
    /// Result of the query of the trigger with this name.
    Trigger(String),
    /// Requests in flight.
    InFlight,
    /// Requests that arrive, per second.
    Arrivals,
    /// Tokens that are generated, per second.
    OutputTokens,
    /// `spec.replicas`.
    Spec,
    /// ServingGroups that exist.
    Total,
    /// ServingGroups that are ready.
    Ready,
    /// Mean duration of the requests with status 200 that ended within five minutes, in seconds.
    MeanDuration,
    /// Duration that this percentage of these requests does not exceed, in seconds.
    Duration(u8),
    /// Time to the first token that this percentage of the requests does not exceed, in seconds.
    FirstToken(u8),
    /// Number of ServingGroups that became ready within the history.
    Starts,
    /// Time from the creation of a ServingGroup until it is ready that this percentage does not exceed, in seconds.
    Start(u8),
}

impl fmt::Display for SeriesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trigger(name) => return write!(f, "trigger/{name}"),
            Self::InFlight => "in-flight",
            Self::Arrivals => "arrivals",
            Self::OutputTokens => "output-tokens",
            Self::Spec => "replicas/spec",
            Self::Total => "replicas/total",
            Self::Ready => "replicas/ready",
            Self::MeanDuration => "duration/mean",
            Self::Duration(percent) => return write!(f, "duration/p{percent}"),
            Self::FirstToken(percent) => return write!(f, "ttft/p{percent}"),
            Self::Starts => "start/count",
            Self::Start(percent) => return write!(f, "start/p{percent}"),
        })
    }
}

/// The text names no series of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSeries;

impl FromStr for SeriesName {
    type Err = UnknownSeries;

    fn from_str(text: &str) -> Result<Self, UnknownSeries> {
        Ok(match text {
            "in-flight" => Self::InFlight,
            "arrivals" => Self::Arrivals,
            "output-tokens" => Self::OutputTokens,
            "replicas/spec" => Self::Spec,
            "replicas/total" => Self::Total,
            "replicas/ready" => Self::Ready,
            "duration/mean" => Self::MeanDuration,
            "start/count" => Self::Starts,
            _ => match text.split_once('/') {
                Some(("trigger", name)) => Self::Trigger(name.to_owned()),
                Some(("duration", share)) => Self::Duration(percent(share)?),
                Some(("ttft", share)) => Self::FirstToken(percent(share)?),
                Some(("start", share)) => Self::Start(percent(share)?),
                _ => return Err(UnknownSeries),
            },
        })
    }
}

/// A percentage such as `p95`.
fn percent(text: &str) -> Result<u8, UnknownSeries> {
    let percent = text.strip_prefix('p').and_then(|percent| percent.parse().ok());
    percent.filter(|percent| (1..100).contains(percent)).ok_or(UnknownSeries)
}

/// Points that a history does not keep, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Values that are negative, infinite or not a number; each leaves a gap.
    pub invalid: usize,
    /// Points outside of the grid or between its steps.
    pub off_grid: usize,
    /// Points of a step that has another value already; the first one counts.
    pub conflicting: usize,
}

/// Recorded series of one model.
#[derive(Clone, Debug)]
pub struct History {
    /// Namespace of the ModelServing.
    pub namespace: String,
    /// Name of the ModelServing.
    pub name: String,
    /// Settings in force, without addresses and credentials.
    pub scaled_object: ScaledObject,
    /// Bound on the backlog of the trigger `active-requests`.
    pub backlog: Backlog,
    /// Metric that the numbers of replicas come from.
    pub replicas_from: Option<String>,
    /// Points that are not kept.
    pub rejected: Rejected,
    grid: Grid,
    series: BTreeMap<SeriesName, Series>,
}

impl History {
    /// A history without values. Only settings that a simulation reads are kept of the ScaledObject: no address, no
    /// credentials, no headers.
    pub fn new(
        grid: Grid,
        namespace: &str,
        name: &str,
        scaled_object: &ScaledObject,
        backlog: Backlog,
    ) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            scaled_object: file::without_secrets(scaled_object),
            backlog,
            replicas_from: None,
            rejected: Rejected::default(),
            grid,
            series: BTreeMap::new(),
        }
    }

    /// Times of the steps.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// Values of a series; `None` if no point of it was recorded.
    pub fn series(&self, name: &SeriesName) -> Option<&Series> {
        self.series.get(name)
    }

    /// Query whose values the series of a trigger has.
    pub fn query(&self, trigger: &str) -> Option<&String> {
        let triggers = &self.scaled_object.spec.triggers;
        let found = triggers.iter().find(|found| found.name.as_deref() == Some(trigger))?;
        found.metadata.get("query")
    }

    /// Time of the first value of a trigger, in seconds since 1970.
    pub fn first_value(&self) -> Option<i64> {
        let of_triggers = self.series.iter().filter(|(name, _)| matches!(name, SeriesName::Trigger(_)));
        let first =
            of_triggers.filter_map(|(_, series)| series.iter().position(|value| value.is_some())).min()?;
        Some(self.grid.start + i64::from(self.grid.step) * i64::try_from(first).ok()?)
    }

    /// Adds a point at a time in seconds since 1970, in any order. Points that are not kept are counted as
    /// [`Rejected`]; so are all points of a series beyond [`VALUES_MAX`].
    pub fn record(&mut self, name: &SeriesName, at: f64, value: f64) {
        let Some(index) = self.grid.index(at) else {
            self.rejected.off_grid += 1;
            return;
        };
        if !value.is_finite() || value < 0.0 {
            self.rejected.invalid += 1;
            return;
        }
        let has_room = (self.series.len() + 1).saturating_mul(self.grid.steps) <= VALUES_MAX;
        if !has_room && !self.series.contains_key(name) {
            self.rejected.off_grid += 1;
            return;
        }
        let series = self.series.entry(name.clone()).or_insert_with(|| Series::empty(self.grid.steps));
        match series.0.get_mut(index) {
            Some(slot) if slot.is_nan() => *slot = value,
            Some(slot) if (*slot - value).abs() > 1e-9 * slot.abs().max(1.0) => {
                self.rejected.conflicting += 1;
            }
            _ => {}
        }
    }

    /// Share of the steps in which a trigger has no answer, 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "bounded")]
    pub fn missing<'a>(&self, triggers: impl Iterator<Item = &'a str>) -> f64 {
        let series: Vec<Option<&Series>> =
            triggers.map(|name| self.series(&SeriesName::Trigger(name.to_owned()))).collect();
        let is_missing =
            |step: &usize| series.iter().any(|found| found.and_then(|it| it.get(*step)).is_none());
        (0..self.grid.steps).filter(is_missing).count() as f64 / self.grid.steps as f64
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::keda::ScaledObjectSpec;

    pub(super) fn history(steps: usize) -> History {
        let grid = Grid::new(1_000_000_020, 15, steps).unwrap();
        History::new(
            grid,
            "models",
            "chat",
            &ScaledObject::new("", ScaledObjectSpec::default()),
            Backlog::default(),
        )
    }

    #[rstest]
    #[case::no_step(0, 15, 0)]
    #[case::too_many(0, 15, STEPS_MAX + 1)]
    #[case::no_length(0, 0, 10)]
    #[case::too_long(0, 3600, 8785)]
    #[case::before_1970(-1, 15, 10)]
    #[case::far_future(i64::MAX, 15, 10)]
    fn refuses_grids(#[case] start: i64, #[case] step: u32, #[case] steps: usize) {
        assert_eq!(Grid::new(start, step, steps), None);
    }

    #[rstest]
    #[case::on_grid(35.0, 2.0, [None, Some(2.0), None, None], (0, 0, 0))]
    #[case::almost_on_grid(35.4, 2.0, [None, Some(2.0), None, None], (0, 0, 0))]
    #[case::between(28.0, 2.0, [None; 4], (0, 1, 0))]
    #[case::before(5.0, 2.0, [None; 4], (0, 1, 0))]
    #[case::future(80.0, 2.0, [None; 4], (0, 1, 0))]
    #[case::no_time(f64::NAN, 2.0, [None; 4], (0, 1, 0))]
    #[case::nan(35.0, f64::NAN, [None; 4], (1, 0, 0))]
    #[case::infinite(35.0, f64::INFINITY, [None; 4], (1, 0, 0))]
    #[case::negative(35.0, -1.0, [None; 4], (1, 0, 0))]
    fn keeps_valid_points(
        #[case] at: f64,
        #[case] value: f64,
        #[case] expected: [Option<f64>; 4],
        #[case] (invalid, off_grid, conflicting): (usize, usize, usize),
    ) {
        let mut history = history(4);
        history.record(&SeriesName::InFlight, 1_000_000_000.0 + at, value);
        let kept: Vec<Option<f64>> =
            history.series(&SeriesName::InFlight).map_or(vec![None; 4], |series| series.iter().collect());
        assert_eq!(kept, expected);
        assert_eq!(history.rejected, Rejected { invalid, off_grid, conflicting });
    }

    #[test]
    fn the_first_of_unordered_points_counts() {
        let mut history = history(3);
        for (at, value) in [(50.0, 5.0), (20.0, 1.0), (50.0, 6.0), (50.0, 5.0)] {
            history.record(&SeriesName::InFlight, 1_000_000_000.0 + at, value);
        }
        let series = history.series(&SeriesName::InFlight).unwrap();
        assert_eq!(series.iter().collect::<Vec<_>>(), [Some(1.0), None, Some(5.0)]);
        assert_eq!(history.rejected.conflicting, 1);
    }

    #[test]
    fn a_step_is_missing_if_one_trigger_has_no_answer() {
        let mut history = history(4);
        for (name, at) in [("a", 20.0), ("a", 35.0), ("a", 50.0), ("b", 20.0), ("b", 50.0)] {
            history.record(&SeriesName::Trigger(name.to_owned()), 1_000_000_000.0 + at, 1.0);
        }
        let missing = |names: &[&'static str]| history.missing(names.iter().copied());
        assert!((missing(&["a"]) - 0.25).abs() < 1e-9);
        assert!((missing(&["a", "b"]) - 0.5).abs() < 1e-9);
        assert!((missing(&["c"]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn bounds_the_number_of_values() {
        let mut history = history(STEPS_MAX);
        for number in 0..40 {
            history.record(&SeriesName::Trigger(number.to_string()), 1_000_000_020.0, 1.0);
        }
        assert_eq!((history.series.len(), history.rejected.off_grid), (VALUES_MAX / STEPS_MAX, 8));
    }
}
