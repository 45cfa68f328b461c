//! Demand signals: the number of requests for which a model needs ServingGroups.
//!
//! They compute what the queries of `signals::backlog` return for one router that is scraped without gaps.

use super::{
    prometheus::{Sample, Samples},
    time::Time,
};
use crate::{
    domain::{Backlog, ServiceTimeSetting},
    signals::ARRIVALS_WINDOW,
};

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
/// λ     = greatest over the windows of: change of the requests ended and in flight, per second
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
    windows: [u64; 2],
    /// `true` if refused requests count as arrivals.
    counts_refusals: bool,
    /// `true` if the requests that run in the engines count in any case.
    counts_running: bool,
}

impl BoundedBacklog {
    /// Shorter window, in seconds: that of the query.
    const WINDOW: u64 = ARRIVALS_WINDOW as u64;
    /// Longest window, in seconds.
    const WINDOW_MAX: f64 = 3_600.0;

    /// Windows of half a minute, and of the service time if it is longer; `None` unless all values are finite,
    /// the times above 0 and the headroom at least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before the cast")]
    pub fn new(service_time: f64, headroom: f64, drain_time: f64) -> Option<Self> {
        let is_valid = service_time > 0.0 && headroom >= 1.0 && drain_time > 0.0;
        let is_finite = service_time.is_finite() && headroom.is_finite() && drain_time.is_finite();
        let long = service_time.min(Self::WINDOW_MAX).ceil() as u64;
        let windows = [Self::WINDOW, long.max(Self::WINDOW)];
        let (counts_refusals, counts_running) = (true, false);
        (is_valid && is_finite).then_some(Self {
            service_time,
            headroom,
            drain_time,
            windows,
            counts_refusals,
            counts_running,
        })
    }

    /// The same with another length of the shorter window, in seconds and at least 1.
    #[must_use]
    pub fn with_short_window(self, seconds: u64) -> Self {
        let [_, long] = self.windows;
        Self { windows: [seconds.max(1), long], ..self }
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

    /// Demand at `now`, at most the requests in flight; those as they are if the history is shorter than a window.
    fn total(&self, samples: &Samples, now: Time, newest: &Sample) -> f64 {
        let in_flight = newest.in_flight;
        let Some(rate) = self.arrival_rate(samples, now, newest) else { return in_flight };
        let running = if self.counts_running { newest.running } else { 0.0 };
        let base = in_flight.min((self.headroom * rate * self.service_time).max(running));
        (in_flight - base).mul_add((self.service_time / self.drain_time).min(1.0), base).min(in_flight)
    }

    /// Requests per second, 0 or more; `None` if the history is shorter than a window.
    #[allow(clippy::cast_precision_loss, reason = "windows are short")]
    fn arrival_rate(&self, samples: &Samples, now: Time, newest: &Sample) -> Option<f64> {
        let mut greatest: f64 = 0.0;
        for window in self.windows {
            let start = Time::from_millis(now.millis().checked_sub(window * 1000)?);
            let arrived = self.arrived(newest) - self.arrived(samples.at(start)?);
            greatest = greatest.max(arrived / window as f64);
        }
        Some(greatest)
    }

    /// Requests that have arrived since the router started.
    fn arrived(&self, sample: &Sample) -> f64 {
        let refused = if self.counts_refusals { sample.refused } else { 0.0 };
        sample.ended + sample.in_flight + refused
    }
}

impl Law {
    /// Demand signal of a profile or a model; with `auto`, the one until a service time was measured.
    pub fn from_backlog(backlog: Backlog) -> Self {
        let ServiceTimeSetting::Fixed(service_time) = backlog.service_time else { return Self::InFlight };
        let bounded = BoundedBacklog::new(
            f64::from(service_time.millis()) / 1000.0,
            f64::from(backlog.headroom.thousandths()) / 1000.0,
            f64::from(backlog.drain_time.seconds()),
        );
        bounded.map_or(Self::InFlight, Self::BoundedBacklog)
    }

    /// The same with the requests that run in the engines as the least of a bounded backlog's base.
    #[must_use]
    pub fn with_running(self) -> Self {
        match self {
            Self::InFlight => self,
            Self::BoundedBacklog(bounded) => Self::BoundedBacklog(bounded.with_running()),
        }
    }

    /// Value of the trigger at `now`; `None` if there is no sample of the last five minutes.
    pub fn value(&self, samples: &Samples, now: Time) -> Option<f64> {
        let newest = samples.at(now)?;
        Some(match self {
            Self::InFlight => newest.in_flight,
            Self::BoundedBacklog(bounded) => bounded.total(samples, now, newest),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Samples every 15 s for half an hour.
    fn steady(in_flight: f64, per_second: f64) -> Samples {
        let mut samples = Samples::default();
        for number in 0_u32..120 {
            let ended = f64::from(number) * 15.0 * per_second;
            let (at, refused) = (Time::from_seconds(u64::from(number) * 15), ended);
            samples.push(Sample { at, in_flight, ended, refused, running: 40.0, ..Sample::default() });
        }
        samples
    }

    fn bounded(service_time: f64) -> BoundedBacklog {
        BoundedBacklog::new(service_time, 1.2, 600.0).unwrap()
    }

    #[rstest]
    #[case::nothing_waits(bounded(5.0), 10.0, 2.0, 10.0)]
    #[case::backlog(bounded(5.0).without_refusals(), 610.0, 2.0, 12.0 + 598.0 * 5.0 / 600.0)]
    #[case::refusals_are_arrivals(bounded(5.0), 624.0, 2.0, 24.0 + 600.0 * 5.0 / 600.0)]
    #[case::running_requests_count(bounded(5.0).with_running(), 640.0, 2.0, 40.0 + 600.0 * 5.0 / 600.0)]
    #[case::long_requests_with_a_backlog(bounded(300.0).without_refusals(), 610.0, 1.0, 360.0 + 250.0 * 0.5)]
    #[case::service_beyond_the_drain_time(bounded(900.0), 2000.0, 1.0, 2000.0)]
    #[case::nothing_ends(bounded(5.0), 100.0, 0.0, 100.0 * 5.0 / 600.0)]
    fn counts_a_part_of_the_backlog(
        #[case] bounded: BoundedBacklog,
        #[case] in_flight: f64,
        #[case] per_second: f64,
        #[case] expected: f64,
    ) {
        let value =
            Law::BoundedBacklog(bounded).value(&steady(in_flight, per_second), Time::from_seconds(1790));
        assert!((value.unwrap() - expected).abs() < 1e-6, "{value:?}");
    }

    /// A router that is younger than the window, and one that is no longer scraped.
    #[rstest]
    #[case(29, Some(500.0))]
    #[case(30, Some(500.0 * 5.0 / 600.0))]
    #[case(2084, Some(500.0 * 5.0 / 600.0))]
    #[case(2085, None)]
    fn missing_is_not_zero(#[case] now: u64, #[case] expected: Option<f64>) {
        let value = Law::BoundedBacklog(bounded(5.0)).value(&steady(500.0, 0.0), Time::from_seconds(now));
        let pair = value.zip(expected);
        assert!(pair.map_or(value == expected, |(value, it)| (value - it).abs() < 1e-6), "{value:?}");
    }

    #[test]
    fn a_profile_sets_the_law() {
        assert_eq!(Law::from_backlog(Backlog::default()), Law::InFlight);
        let backlog = Backlog { service_time: "5s".parse().unwrap(), ..Backlog::default() };
        assert_eq!(Law::from_backlog(backlog), Law::BoundedBacklog(bounded(5.0)));
    }

    proptest! {
        #[test]
        fn never_exceeds_the_requests_in_flight(
            scrapes in prop::collection::vec((1_u64..60, 0.0..1e6_f64, any::<[u16; 3]>()), 0..60),
            service_time in 1e-3..1e5_f64,
            headroom in 1.0..3.0_f64,
            drain_time in 1.0..1e5_f64,
            (refusals, running) in any::<(bool, bool)>(),
            later in 0_u64..400,
        ) {
            let (mut samples, mut last) = (Samples::default(), Sample::default());
            for (distance, in_flight, [ended, refused, running]) in scrapes {
                last = Sample {
                    at: last.at.after(Time::from_seconds(distance)),
                    in_flight,
                    ended: last.ended + f64::from(ended),
                    refused: last.refused + f64::from(refused),
                    running: f64::from(running),
                    ..Sample::default()
                };
                samples.push(last);
            }
            let now = last.at.after(Time::from_seconds(later));
            let mut bounded = BoundedBacklog::new(service_time, headroom, drain_time).unwrap();
            if !refusals {
                bounded = bounded.without_refusals();
            }
            if running {
                bounded = bounded.with_running();
            }
            let value = Law::BoundedBacklog(bounded).value(&samples, now);
            let in_flight = Law::InFlight.value(&samples, now);
            prop_assert_eq!(value.is_some(), in_flight.is_some());
            if let Some((value, in_flight)) = value.zip(in_flight) {
                prop_assert!((0.0..=in_flight).contains(&value), "{} of {}", value, in_flight);
            }
        }
    }
}
