//! Requests of a model, step by step.

use super::{
    fluid::Inflow,
    history::{Grid, History, Series, SeriesName},
};

/// Range of service times that follow from a record, in seconds: beyond it a step has too few requests.
const SERVICE_TIME: std::ops::RangeInclusive<f64> = 0.01..=3600.0;
/// Length of the windows by which a service time is measured, in seconds.
const WINDOW: u32 = 300;
/// Requests of a window that are enough to measure a service time.
const WINDOW_REQUESTS: f64 = 20.0;

/// Requests of a model, step by step.
#[derive(Clone, Debug)]
pub struct Workload {
    grid: Grid,
    /// `None` where the requests are not known.
    inflows: Vec<Option<Inflow>>,
    /// Steps in which the recorded fleet had more requests than it serves at once.
    saturated: Vec<bool>,
    /// Mean service time without waiting, in seconds.
    pub service_time: f64,
}

/// Cause for which requests do not follow from a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// There is no series of arrivals or of requests in flight.
    #[error(
        "the arrivals of requests are not known: Kthena's router counts requests from 1.0 on, and each router has to be scraped; only the recorded settings can be replayed"
    )]
    NoArrivals,
    /// No service time is set, and there are too few requests to measure one.
    #[error(
        "the service time is not known: too few requests were recorded without waiting; pass --service-time with the seconds that one request takes without waiting"
    )]
    NoServiceTime,
}

impl Workload {
    /// Requests that are given for each step.
    pub fn new(grid: Grid, inflows: Vec<Option<Inflow>>) -> Self {
        let busy = |inflow: &Inflow| (inflow.rate, inflow.rate * inflow.service_time);
        let sums =
            inflows.iter().flatten().map(busy).fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let service_time = if sums.0 > 0.0 { sums.1 / sums.0 } else { 1.0 };
        let saturated = vec![false; inflows.len()];
        Self { grid, inflows, saturated, service_time }
    }

    /// Requests of a history. `slots` is the number that one ServingGroup serves at once, and `service_time` the time
    /// that they take there, in seconds.
    ///
    /// # Errors
    /// If the arrivals or the service time are not known.
    pub fn of_history(
        history: &History,
        slots: f64,
        service_time: Option<f64>,
    ) -> Result<Self, WorkloadError> {
        let series = |name| history.series(&name).filter(|series| !series.is_empty());
        let (Some(arrivals), Some(in_flight)) = (series(SeriesName::Arrivals), series(SeriesName::InFlight))
        else {
            return Err(WorkloadError::NoArrivals);
        };
        let saturated = saturated(history, in_flight, slots);
        let service_time = service_time
            .or_else(|| measured_service_time(history.grid(), arrivals, in_flight, &saturated))
            .ok_or(WorkloadError::NoServiceTime)?;
        let tokens = series(SeriesName::OutputTokens);
        let inflow = |step: usize| {
            let rate = arrivals.get(step)?;
            let of_step = in_flight.get(step).map(|requests| requests / rate);
            let is_usable = |time: &f64| SERVICE_TIME.contains(time) && saturated.get(step) == Some(&false);
            let tokens = tokens.and_then(|tokens| tokens.get(step)).filter(|_| rate > 0.0).unwrap_or(0.0);
            Some(Inflow {
                rate,
                service_time: of_step.filter(is_usable).unwrap_or(service_time),
                tokens: if rate > 0.0 { tokens / rate } else { 0.0 },
            })
        };
        let inflows = (0..history.grid().steps()).map(inflow).collect();
        Ok(Self { grid: history.grid(), inflows, saturated, service_time })
    }

    /// Times of the steps.
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// Requests of a step; `None` where they are not known.
    pub fn inflow(&self, step: usize) -> Option<Inflow> {
        self.inflows.get(step).copied().flatten()
    }

    /// `true` in a step in which the recorded fleet had more requests than it serves at once.
    pub fn is_saturated(&self, step: usize) -> bool {
        self.saturated.get(step).copied().unwrap_or(false)
    }

    /// ServingGroups that each step needs, with this many requests each; `None` where the requests are not known.
    pub fn need(&self, requests_per_group: f64) -> impl Iterator<Item = Option<f64>> {
        self.inflows.iter().map(move |inflow| inflow.map(|it| it.rate * it.service_time / requests_per_group))
    }
}

/// Steps with more requests in flight than the ready groups serve at once.
fn saturated(history: &History, in_flight: &Series, slots: f64) -> Vec<bool> {
    let groups = [SeriesName::Ready, SeriesName::Total, SeriesName::Spec];
    let groups = groups.iter().find_map(|name| history.series(name));
    let is_saturated = |step: usize| {
        let groups = groups.and_then(|groups| groups.get(step));
        groups.zip(in_flight.get(step)).is_some_and(|(groups, requests)| requests > groups * slots)
    };
    (0..history.grid().steps()).map(is_saturated).collect()
}

/// Upper quartile of the means of five minutes, of those in which no request waits; `None` with too few of them.
fn measured_service_time(
    grid: Grid,
    arrivals: &Series,
    in_flight: &Series,
    saturated: &[bool],
) -> Option<f64> {
    let length = usize::try_from(WINDOW.div_ceil(grid.step())).ok()?.max(1);
    let steps: Vec<usize> = (0..grid.steps()).collect();
    let mean = |window: &[usize]| {
        let of_step = |step: &usize| Some((arrivals.get(*step)?, in_flight.get(*step)?));
        if window.iter().any(|step| saturated.get(*step) == Some(&true)) {
            return None;
        }
        let (rates, requests) =
            window.iter().filter_map(of_step).fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        (rates * f64::from(grid.step()) >= WINDOW_REQUESTS).then(|| requests / rates)
    };
    let mut means: Vec<f64> = steps.chunks(length).filter_map(mean).collect();
    means.sort_by(f64::total_cmp);
    means.get(means.len() * 3 / 4).copied().filter(|time| SERVICE_TIME.contains(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::keda::{ScaledObject, ScaledObjectSpec},
        domain::Backlog,
    };

    fn history(points: &[(SeriesName, [f64; 4])]) -> History {
        let grid = Grid::new(0, 300, 4).unwrap();
        let object = ScaledObject::new("", ScaledObjectSpec::default());
        let mut history = History::new(grid, "n", "m", &object, Backlog::default());
        for (name, values) in points {
            for (step, value) in [0.0, 300.0, 600.0, 900.0].iter().zip(values) {
                history.record(name, *step, *value);
            }
        }
        history
    }

    #[test]
    fn service_times_come_from_steps_without_waiting() {
        let history = history(&[
            (SeriesName::Arrivals, [1.0, 2.0, 2.0, f64::NAN]),
            (SeriesName::InFlight, [5.0, 12.0, 50.0, 5.0]),
            (SeriesName::Ready, [2.0, 2.0, 2.0, 2.0]),
            (SeriesName::OutputTokens, [100.0, 100.0, f64::NAN, 100.0]),
        ]);
        let workload = Workload::of_history(&history, 10.0, None).unwrap();
        assert!((workload.service_time - 6.0).abs() < 1e-9);
        assert_eq!([0, 1, 2, 3].map(|step| workload.is_saturated(step)), [false, false, true, false]);
        let inflow = |rate, service_time, tokens| Some(Inflow { rate, service_time, tokens });
        let expected = [inflow(1.0, 5.0, 100.0), inflow(2.0, 6.0, 50.0), inflow(2.0, 6.0, 0.0), None];
        assert_eq!([0, 1, 2, 3].map(|step| workload.inflow(step)), expected);
        let given = Workload::of_history(&history, 10.0, Some(4.0)).unwrap();
        assert_eq!(given.inflow(2), inflow(2.0, 4.0, 0.0));
    }

    #[test]
    fn says_which_requests_are_not_known() {
        let idle = history(&[(SeriesName::Arrivals, [0.0; 4]), (SeriesName::InFlight, [0.0; 4])]);
        assert_eq!(Workload::of_history(&idle, 10.0, None).unwrap_err(), WorkloadError::NoServiceTime);
        let gauge = history(&[(SeriesName::InFlight, [1.0; 4])]);
        assert_eq!(Workload::of_history(&gauge, 10.0, Some(1.0)).unwrap_err(), WorkloadError::NoArrivals);
    }
}
