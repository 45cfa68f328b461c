//! Windows of five minutes, from which everything is measured.

use crate::foresight::{
    backtest::Source,
    history::{Grid, History, Series, SeriesName},
    workload::Workload,
};

/// Length of a window, in seconds.
const LENGTH: u32 = 300;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days from which values of one day stay together in a resample; below it those of four hours do.
const DAYS_AS_BLOCKS: i64 = 5;

/// Means and tails of five minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// Day, or part of it, to which the window belongs.
    block: i64,
    /// Mean requests in flight.
    pub(super) in_flight: f64,
    /// Requests in flight at the end.
    end: f64,
    /// ServingGroups that were ready, if that number is known and did not change in this window and in the one before.
    pub(super) ready: Option<f64>,
    /// Requests that arrived.
    pub(super) requests: f64,
    /// Mean duration of the requests that ended, in seconds.
    pub(super) duration: Option<f64>,
    /// Tail of the durations or of the times to the first token, in seconds.
    pub(super) tail: Option<f64>,
}

impl Window {
    /// Requests in flight for each ServingGroup.
    pub(super) fn per_group(&self) -> Option<f64> {
        self.ready.filter(|ready| *ready >= 1.0).map(|ready| self.in_flight / ready)
    }

    /// Requests that ended since the end of the window before.
    pub(super) fn completed(&self, before: &Self) -> f64 {
        (self.requests - (self.end - before.end)).max(0.0)
    }

    /// Mean duration: recorded, or by Little's law.
    pub(super) fn service_time(&self, seconds: f64) -> Option<f64> {
        let by_law = (self.requests > 0.0).then(|| self.in_flight * seconds / self.requests);
        self.duration.filter(|duration| *duration > 0.0).or(by_law)
    }
}

/// All windows of a record.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    pub(super) all: Vec<Window>,
    /// Length of each, in seconds.
    pub(super) seconds: f64,
    /// Length of the record, in days.
    pub(super) days: f64,
}

/// Steps of one window.
pub fn steps_per_window(grid: Grid) -> usize {
    usize::try_from(LENGTH.div_ceil(grid.step())).unwrap_or(1).max(1)
}

impl Windows {
    /// Windows of a record, with the tails of this series.
    pub(super) fn of(source: Source<'_>, tail: Option<&SeriesName>) -> Self {
        let grid = match source {
            Source::History(history) => history.grid(),
            Source::Load(workload) => workload.grid(),
        };
        let length = steps_per_window(grid);
        let span = grid.end() - grid.start();
        let block = if span >= DAYS_AS_BLOCKS * DAY { DAY } else { 4 * 3600 };
        let steps: Vec<usize> = (0..grid.steps()).collect();
        let of_window = |steps: &[usize]| {
            let first = i64::try_from(*steps.first()?).ok()?;
            let block = (grid.start() + first * i64::from(grid.step())) / block;
            match source {
                Source::History(history) => of_history(history, tail, block, steps, length),
                Source::Load(workload) => of_load(workload, block, steps),
            }
        };
        #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
        Self {
            all: steps.chunks_exact(length).filter_map(of_window).collect(),
            seconds: f64::from(grid.step()) * length as f64,
            days: span as f64 / DAY as f64,
        }
    }

    /// Values of the windows, by blocks that are resampled together.
    pub(super) fn blocks<T>(&self, value: impl Fn(&Window) -> Option<T>) -> Vec<Vec<T>> {
        let blocks = self.all.chunk_by(|a, b| a.block == b.block);
        let blocks = blocks.map(|block| block.iter().filter_map(&value).collect::<Vec<T>>());
        blocks.filter(|block| !block.is_empty()).collect()
    }
}

fn of_history(
    history: &History,
    tail: Option<&SeriesName>,
    block: i64,
    steps: &[usize],
    length: usize,
) -> Option<Window> {
    let mean = |name| mean_of(history.series(&name)?, steps);
    let last = |name: &SeriesName| {
        let series = history.series(name)?;
        steps.iter().rev().find_map(|step| series.get(*step))
    };
    let rate = mean(SeriesName::Arrivals)?;
    Some(Window {
        block,
        in_flight: mean(SeriesName::InFlight)?,
        end: last(&SeriesName::InFlight)?,
        ready: history.series(&SeriesName::Ready).and_then(|ready| constant(ready, steps, length)),
        requests: rate * f64::from(history.grid().step()) * count(steps.len()),
        duration: last(&SeriesName::MeanDuration),
        tail: tail.and_then(last),
    })
}

fn of_load(workload: &Workload, block: i64, steps: &[usize]) -> Option<Window> {
    let inflows = || steps.iter().filter_map(|step| workload.inflow(*step));
    let known = inflows().count();
    if known == 0 {
        return None;
    }
    let rate = inflows().map(|inflow| inflow.rate).sum::<f64>() / count(known);
    let in_flight = inflows().map(|inflow| inflow.rate * inflow.service_time).sum::<f64>() / count(known);
    let requests = rate * f64::from(workload.grid().step()) * count(steps.len());
    Some(Window { block, in_flight, end: in_flight, ready: None, requests, duration: None, tail: None })
}

fn mean_of(series: &Series, steps: &[usize]) -> Option<f64> {
    let known: Vec<f64> = steps.iter().filter_map(|step| series.get(*step)).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / count(known.len()))
}

/// Value that did not change within the steps and in as many before them: groups that have just become ready have
/// fewer requests than the others.
fn constant(series: &Series, steps: &[usize], length: usize) -> Option<f64> {
    let (first, last) = (*steps.first()?, *steps.last()?);
    let mut values = (first.saturating_sub(length)..=last).filter_map(|step| series.get(step));
    let value = values.next()?;
    values.all(|other| (other - value).abs() < 1e-9).then_some(value)
}

#[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
const fn count(steps: usize) -> f64 {
    steps as f64
}
