//! Samples of the router's series, and the functions of PromQL that the demand signal uses.

use std::collections::VecDeque;

use super::time::Time;

/// Time after which an instant query no longer returns a sample, in seconds.
const LOOKBACK: i32 = 300;
/// Time that samples are kept, in seconds; the longest window of a demand signal.
const RETENTION: i32 = 3_600;

/// Samples of one scrape.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Time of the scrape.
    pub at: Time,
    /// Requests in flight: `kthena_router_active_downstream_requests`.
    pub in_flight: f64,
    /// Requests that have ended, without those that were refused at once: `kthena_router_requests_total`. `None`
    /// before the first one, as the series does not exist then.
    pub ended: Option<f64>,
    /// Requests that the router refused at once, from the same counter.
    pub refused: f64,
    /// Requests that run in the engines: `vllm:num_requests_running`.
    pub running: f64,
}

/// Samples that Prometheus has of one model, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Samples(VecDeque<Sample>);

impl Samples {
    /// Adds the newest sample.
    pub fn push(&mut self, sample: Sample) {
        while self.0.front().is_some_and(|oldest| oldest.at.is_before(RETENTION, sample.at)) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Requests in flight at a time: the newest sample of the last five minutes.
    pub fn in_flight(&self, at: Time) -> Option<f64> {
        self.newest(at).map(|sample| sample.in_flight)
    }

    /// Requests that run in the engines at a time.
    pub fn running(&self, at: Time) -> Option<f64> {
        self.newest(at).map(|sample| sample.running)
    }

    fn newest(&self, at: Time) -> Option<&Sample> {
        let sample = self.0.iter().rev().find(|sample| sample.at <= at)?;
        sample.at.is_within(LOOKBACK, at).then_some(sample)
    }

    /// `true` if a request has ended within the retention, so that the counter exists.
    pub fn has_counter(&self) -> bool {
        self.0.back().is_some_and(|sample| sample.ended.is_some())
    }

    /// `rate(requests_total[window])` per second, `window` in seconds, with or without refusals; `None` with fewer
    /// than two samples.
    ///
    /// Extrapolates to the ends of the window as Prometheus does (`promql/functions.go`, `extrapolatedRate`). The
    /// counter never resets in a simulation.
    pub fn rate(&self, now: Time, window: i32, with_refusals: bool) -> Option<f64> {
        let of =
            |sample: &Sample, ended| (sample.at, if with_refusals { ended + sample.refused } else { ended });
        let in_window = || self.0.iter().rev().skip_while(|sample| sample.at > now);
        let counts = in_window()
            .take_while(|sample| sample.at.is_within(window, now))
            .map_while(|sample| sample.ended.map(|ended| of(sample, ended)));
        let (mut count, mut first, mut last) = (0.0, None, None);
        for sample in counts {
            last = last.or(Some(sample));
            first = Some(sample);
            count += 1.0;
        }
        let ((first_at, first_count), (last_at, last_count)) = (first?, last?);
        let sampled = last_at.since(first_at).seconds();
        if sampled <= 0.0 {
            return None;
        }
        let (increase, window) = (last_count - first_count, f64::from(window));
        let distance = sampled / (count - 1.0);
        let mut to_start = window - now.since(first_at).seconds();
        let mut to_end = now.since(last_at).seconds();
        if to_start >= distance * 1.1 {
            to_start = distance / 2.0;
        }
        if increase > 0.0 {
            to_start = to_start.min(sampled * (first_count / increase));
        }
        if to_end >= distance * 1.1 {
            to_end = distance / 2.0;
        }
        Some(increase * (sampled + to_start + to_end) / sampled / window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(ended: impl IntoIterator<Item = Option<f64>>) -> Samples {
        let mut samples = Samples::default();
        for (seconds, ended) in (0..).step_by(15).zip(ended) {
            samples.push(Sample {
                at: Time::from_seconds(seconds),
                in_flight: 1.0,
                ended,
                refused: 7.0,
                running: 1.0,
            });
        }
        samples
    }

    #[test]
    fn the_rate_is_extrapolated() {
        let steady = samples((0_u32..20).map(|count| Some(f64::from(count) * 30.0 + 300.0)));
        let rate = steady.rate(Time::from_seconds(290), 60, false).unwrap();
        assert!((rate - 2.0).abs() < 1e-9, "{rate}");
        // Samples at 240 to 285 s, and 10 s and 5 s to the ends of the window.
        let born = samples([None, None, Some(5.0), Some(35.0)]);
        let rate = born.rate(Time::from_seconds(50), 60, false).unwrap();
        assert!((rate - 30.0 * (15.0 + 2.5 + 5.0) / 15.0 / 60.0).abs() < 1e-9, "{rate}");
        assert_eq!(born.rate(Time::from_seconds(44), 60, true), None);
    }

    #[test]
    fn samples_are_lost_after_five_minutes() {
        let samples = samples([Some(0.0)]);
        assert_eq!(samples.in_flight(Time::from_seconds(299)), Some(1.0));
        assert_eq!(samples.in_flight(Time::from_seconds(300)), None);
    }
}
