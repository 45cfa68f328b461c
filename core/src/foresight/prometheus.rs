//! Samples of the series that the demand signals query.

use std::collections::VecDeque;

use super::time::Time;

/// Time after which an instant query no longer returns a sample, in seconds.
const LOOKBACK: i32 = 300;
/// Time that samples are kept, in seconds: the longest window of a demand signal, and a lookback.
const RETENTION: i32 = 3_900;

/// Samples of one scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Time of the scrape.
    pub at: Time,
    /// Requests in flight: `kthena_router_active_downstream_requests`.
    pub in_flight: f64,
    /// Requests that have ended, without those that were refused at once: `kthena_router_requests_total`.
    pub ended: f64,
    /// Requests that the router refused at once, from the same counter.
    pub refused: f64,
    /// Requests that run in the engines: `vllm:num_requests_running`.
    pub running: f64,
    /// Requests that wait in the router or in the engines.
    pub waiting: f64,
    /// Tokens that were generated: `kthena_router_tokens_total`.
    pub tokens: f64,
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

    /// Newest sample of the last five minutes before a time.
    pub fn at(&self, at: Time) -> Option<&Sample> {
        let sample = self.0.iter().rev().find(|sample| sample.at <= at)?;
        sample.at.is_within(LOOKBACK, at).then_some(sample)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(9, None)]
    #[case(10, Some(1.0))]
    #[case(24, Some(1.0))]
    #[case(25, Some(2.0))]
    #[case(324, Some(2.0))]
    #[case(325, None)]
    fn a_sample_lasts_until_the_next_one_or_for_five_minutes(
        #[case] seconds: u64,
        #[case] expected: Option<f64>,
    ) {
        let mut samples = Samples::default();
        for (at, in_flight) in [(10, 1.0), (25, 2.0)] {
            samples.push(Sample { at: Time::from_seconds(at), in_flight, ..Sample::default() });
        }
        let found = samples.at(Time::from_seconds(seconds)).map(|sample| sample.in_flight);
        assert_eq!(found, expected);
    }
}
