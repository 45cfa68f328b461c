//! Requests that clients send.

use super::{random::Random, time::Time};

/// Coefficient of variation of the service times within one slice.
const VARIATION: f64 = 0.5;

/// Request rate over time, in slices one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load(Vec<Slice>);

/// Constant load over some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Length in seconds, above 0.
    pub seconds: f64,
    /// Requests per second, 0 or more; they arrive independently of each other.
    pub rate: f64,
    /// Mean service time without waiting, in seconds, 0 or more.
    pub service_time: f64,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: Time,
    /// Time in a slot of an engine.
    pub(super) service: Time,
}

impl Load {
    /// Slices, one after another. Those without a length are left out; negative values and NaN count as 0.
    pub fn new(slices: impl IntoIterator<Item = Slice>) -> Self {
        let valid = |slice: Slice| Slice {
            seconds: slice.seconds,
            rate: slice.rate.max(0.0),
            service_time: slice.service_time.max(0.0),
        };
        Self(slices.into_iter().filter(|slice| slice.seconds > 0.0).map(valid).collect())
    }

    /// The slices.
    pub fn slices(&self) -> &[Slice] {
        &self.0
    }

    /// Total length.
    pub fn length(&self) -> Time {
        Time::from_seconds_f64(self.0.iter().map(|slice| slice.seconds).sum())
    }

    /// Mean service time of all requests, in seconds; 0 without requests.
    pub fn mean_service_time(&self) -> f64 {
        mean_service_time(&self.0)
    }

    /// Upper quartile of the mean service times of 5-minute windows with requests, in seconds.
    ///
    /// It is the figure that the operator measures where no request waits.
    pub fn measured_service_time(&self) -> f64 {
        let mut windows: Vec<f64> =
            self.windows(300.0).into_iter().map(mean_service_time).filter(|mean| *mean > 0.0).collect();
        windows.sort_by(f64::total_cmp);
        windows.get(windows.len() * 3 / 4).copied().unwrap_or(0.0)
    }

    /// Consecutive slices that last at least `seconds` together, without the rest at the end.
    fn windows(&self, seconds: f64) -> Vec<&[Slice]> {
        let (mut windows, mut rest, mut count, mut length) = (Vec::new(), self.slices(), 0, 0.0);
        for slice in &self.0 {
            count += 1;
            length += slice.seconds;
            if length >= seconds
                && let Some((window, after)) = rest.split_at_checked(count)
            {
                windows.push(window);
                (rest, count, length) = (after, 0, 0.0);
            }
        }
        windows
    }

    pub(super) fn arrivals(&self, seed: u64) -> Arrivals<'_> {
        Arrivals { slices: &self.0, started: 0.0, at: 0.0, random: Random::new(seed) }
    }
}

fn mean_service_time(slices: &[Slice]) -> f64 {
    let requests: f64 = slices.iter().map(|slice| slice.rate * slice.seconds).sum();
    let busy: f64 = slices.iter().map(|slice| slice.rate * slice.seconds * slice.service_time).sum();
    if requests > 0.0 { busy / requests } else { 0.0 }
}

/// Requests of a load in the order of their arrival.
pub(super) struct Arrivals<'a> {
    slices: &'a [Slice],
    /// Start of the first slice that is left, in seconds.
    started: f64,
    at: f64,
    random: Random,
}

impl Iterator for Arrivals<'_> {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        // Requests that are due after the next one, in units of the mean distance of the current slice.
        let mut distance = self.random.exponential();
        loop {
            let (slice, rest) = self.slices.split_first()?;
            let end = self.started + slice.seconds;
            let due = self.at + distance / slice.rate;
            if due < end {
                self.at = due;
                let service = slice.service_time * self.random.log_normal(VARIATION);
                return Some(Arrival {
                    at: Time::from_seconds_f64(due),
                    service: Time::from_seconds_f64(service),
                });
            }
            distance -= (end - self.at) * slice.rate;
            (self.slices, self.started, self.at) = (rest, end, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_follow_the_rate() {
        let slice = |rate, service_time| Slice { seconds: 1000.0, rate, service_time };
        let load = Load::new([slice(0.0, 1.0), slice(10.0, 2.0), slice(0.001, 4.0), slice(1.0, 4.0)]);
        let arrivals: Vec<Arrival> = load.arrivals(3).collect();
        let within = |from, to| arrivals.iter().filter(|it| (from..to).contains(&it.at.seconds())).count();
        assert_eq!(within(0.0, 1000.0), 0);
        assert!((9_700..10_300).contains(&within(1000.0, 2000.0)));
        assert!((900..1100).contains(&within(3000.0, 4000.0)));
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        assert!((load.mean_service_time() - 2.18).abs() < 0.01);
        assert!((load.measured_service_time() - 4.0).abs() < 1e-9);
    }
}
