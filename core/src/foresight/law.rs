//! Demand signals: the number of requests for which a model needs ServingGroups.

use super::{prometheus::Samples, time::Time};

/// Rule by which the requests of the router become the value of the trigger `active-requests`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Requests in flight, those that wait included.
    InFlight,
    /// Requests that are served, and a part of those that wait.
    BoundedBacklog(BoundedBacklog),
}

/// Demand in which the backlog counts only as far as it has to be worked off in time.
///
/// ```text
/// λ     = greatest over the windows of: ended requests per second + change of the requests in flight per second
/// base  = min(A, headroom · λ · service time)            A = requests in flight
/// total = base + (A − base) · min(1, service time / drain time)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundedBacklog {
    /// Time that a request takes without waiting, in seconds.
    service_time: f64,
    /// Factor on the arrival rate, 1 or more.
    headroom: f64,
    /// Time in which a backlog is to be worked off, in seconds.
    drain_time: f64,
    /// Windows of the arrival rate, in seconds.
    windows: [i32; 2],
    /// `true` if refused requests count as arrivals.
    counts_refusals: bool,
    /// `true` if the requests that run in the engines count in any case.
    counts_running: bool,
}

impl BoundedBacklog {
    /// Shortest window, in seconds: four scrapes of 15 s.
    const WINDOW: i32 = 60;
    /// Longest window, in seconds.
    const WINDOW_MAX: f64 = 3_600.0;

    /// Windows of one minute, and of the service time if it is longer; `None` unless all values are finite,
    /// the times above 0 and the headroom at least 1.
    #[allow(clippy::cast_possible_truncation, reason = "bounded before the cast")]
    pub fn new(service_time: f64, headroom: f64, drain_time: f64) -> Option<Self> {
        let is_valid = service_time > 0.0 && headroom >= 1.0 && drain_time > 0.0;
        let is_finite = service_time.is_finite() && headroom.is_finite() && drain_time.is_finite();
        let long = service_time.min(Self::WINDOW_MAX).ceil() as i32;
        let windows = [Self::WINDOW, long.max(Self::WINDOW)];
        (is_valid && is_finite).then_some(Self {
            service_time,
            headroom,
            drain_time,
            windows,
            counts_refusals: true,
            counts_running: false,
        })
    }

    /// The same with other windows, in seconds.
    #[must_use]
    pub const fn with_windows(self, windows: [i32; 2]) -> Self {
        Self { windows, ..self }
    }

    /// The same without the requests that the router refuses at once.
    #[must_use]
    pub const fn without_refusals(self) -> Self {
        Self { counts_refusals: false, ..self }
    }

    /// The same with the requests that run in the engines as the least of the base; requires that Prometheus
    /// scrapes the engines.
    #[must_use]
    pub const fn with_running(self) -> Self {
        Self { counts_running: true, ..self }
    }

    /// Demand at `now`, at most the requests in flight; those as they are if the arrival rate is unknown.
    fn total(&self, samples: &Samples, now: Time, in_flight: f64) -> f64 {
        let Some(rate) = self.arrival_rate(samples, now, in_flight) else { return in_flight };
        let running = if self.counts_running { samples.running(now).unwrap_or(0.0) } else { 0.0 };
        let base = in_flight.min((self.headroom * rate * self.service_time).max(running));
        (in_flight - base).mul_add((self.service_time / self.drain_time).min(1.0), base).min(in_flight)
    }

    /// Requests per second; `None` if the history is shorter than a window or lacks samples.
    fn arrival_rate(&self, samples: &Samples, now: Time, in_flight: f64) -> Option<f64> {
        let mut greatest: f64 = 0.0;
        for window in self.windows {
            let before = Time::from_millis(now.millis().checked_sub(u64::try_from(window).ok()? * 1000)?);
            let change = in_flight - samples.in_flight(before)?;
            let ended =
                if samples.has_counter() { samples.rate(now, window, self.counts_refusals)? } else { 0.0 };
            greatest = greatest.max(ended + change / f64::from(window));
        }
        Some(greatest)
    }
}

impl Law {
    /// Value of the trigger at `now`; `None` if there is no sample of the last five minutes.
    pub fn value(&self, samples: &Samples, now: Time) -> Option<f64> {
        let in_flight = samples.in_flight(now)?;
        match self {
            Self::InFlight => Some(in_flight),
            Self::BoundedBacklog(bounded) => Some(bounded.total(samples, now, in_flight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::foresight::prometheus::Sample;

    fn samples(of: impl IntoIterator<Item = (u64, f64, Option<f64>)>) -> Samples {
        let mut samples = Samples::default();
        for (seconds, in_flight, ended) in of {
            samples.push(Sample {
                at: Time::from_seconds(seconds),
                in_flight,
                ended,
                refused: 0.0,
                running: 0.0,
            });
        }
        samples
    }

    /// Samples every 15 s for ten minutes.
    fn steady(in_flight: f64, per_second: f64) -> Samples {
        samples((0_u32..40).map(|n| (u64::from(n) * 15, in_flight, Some(f64::from(n) * 15.0 * per_second))))
    }

    fn bounded(service_time: f64) -> Law {
        Law::BoundedBacklog(BoundedBacklog::new(service_time, 1.2, 600.0).unwrap())
    }

    #[rstest]
    #[case::nothing_waits(10.0, 2.0, 5.0, 10.0)]
    #[case::backlog(610.0, 2.0, 5.0, 12.0 + 598.0 * 5.0 / 600.0)]
    #[case::long_requests_with_a_backlog(610.0, 1.0, 300.0, 360.0 + 250.0 * 0.5)]
    #[case::service_beyond_the_drain_time(2000.0, 1.0, 900.0, 2000.0)]
    #[case::nothing_ends(100.0, 0.0, 5.0, 100.0 * 5.0 / 600.0)]
    fn counts_a_part_of_the_backlog(
        #[case] in_flight: f64,
        #[case] per_second: f64,
        #[case] service_time: f64,
        #[case] expected: f64,
    ) {
        let samples = steady(in_flight, per_second);
        let value = bounded(service_time).value(&samples, Time::from_seconds(590)).unwrap();
        assert!((value - expected).abs() < 1e-6, "{value}");
    }

    /// A router that is younger than the window, and a counter with one sample: the requests in flight.
    #[rstest]
    #[case::young_router(samples([(0, 3.0, Some(0.0)), (15, 50.0, Some(2.0))]), 20, Some(50.0))]
    #[case::one_sample_of_the_counter(samples([(0, 0.0, None), (60, 9.0, None), (75, 50.0, Some(2.0))]), 80, Some(50.0))]
    #[case::no_sample(samples([(0, 3.0, None)]), 400, None)]
    #[case::before_the_first_end(samples([(0, 0.0, None), (60, 60.0, None)]), 60, Some(7.0 / 600.0 * 53.0 + 7.0))]
    fn missing_is_not_zero(#[case] samples: Samples, #[case] now: u64, #[case] expected: Option<f64>) {
        let law = Law::BoundedBacklog(BoundedBacklog::new(7.0, 1.0, 600.0).unwrap());
        let value = law.value(&samples, Time::from_seconds(now));
        assert!(
            value
                .zip(expected)
                .map_or(value == expected, |(value, expected)| (value - expected).abs() < 1e-6),
            "{value:?}"
        );
    }

    proptest! {
        #[test]
        fn never_exceeds_the_requests_in_flight(
            gauge in prop::collection::vec((1_u64..60, 0.0..1e6_f64, 0.0..1e5_f64), 0..60),
            service_time in 1e-3..1e5_f64,
            headroom in 1.0..3.0_f64,
            drain_time in 1.0..1e5_f64,
            later in 0_u64..400,
        ) {
            let (mut samples, mut at, mut ended) = (Samples::default(), 0, 0.0);
            for (distance, in_flight, more) in gauge {
                at += distance;
                ended += more;
                samples.push(Sample { at: Time::from_seconds(at), in_flight, ended: (ended > 0.0).then_some(ended), refused: 0.0, running: 0.0 });
            }
            let now = Time::from_seconds(at + later);
            let law = Law::BoundedBacklog(BoundedBacklog::new(service_time, headroom, drain_time).unwrap());
            let (value, in_flight) = (law.value(&samples, now), Law::InFlight.value(&samples, now));
            prop_assert_eq!(value.is_some(), in_flight.is_some());
            if let Some((value, in_flight)) = value.zip(in_flight) {
                prop_assert!((0.0..=in_flight).contains(&value), "{} of {}", value, in_flight);
            }
        }
    }
}
