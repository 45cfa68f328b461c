//! Distribution of waiting times in bounded memory.

use std::ops::Range;

/// Width of a bucket: waits are known to 2 %.
const RATIO: f64 = 1.02;
/// Shortest wait that differs from none, in seconds.
const SHORTEST: f64 = 0.01;
/// Number of buckets: up to 115 days.
const BUCKETS: usize = 1050;

/// Waiting times of many requests. Numbers of requests may be fractions.
#[derive(Clone, Debug)]
pub struct Waits {
    /// Waits above this many seconds are counted exactly.
    limit: f64,
    over: f64,
    none: f64,
    buckets: Vec<f64>,
    /// Bucket of the latest wait, and the waits that belong to it: they change little from one to the next.
    latest: (usize, Range<f64>),
    total: f64,
    seconds: f64,
}

impl Waits {
    /// No requests yet; `limit` is the time above which requests count as waiting for long, in seconds.
    pub fn new(limit: f64) -> Self {
        let (over, none, total, seconds) = (0.0, 0.0, 0.0, 0.0);
        Self { limit, over, none, buckets: Vec::new(), latest: (0, 0.0..0.0), total, seconds }
    }

    /// Adds requests that waited for this many seconds.
    pub fn add(&mut self, seconds: f64, requests: f64) {
        self.total += requests;
        if seconds < SHORTEST {
            self.none += requests;
            return;
        }
        self.seconds += seconds * requests;
        if seconds > self.limit {
            self.over += requests;
        }
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, 0.0);
        }
        if !self.latest.1.contains(&seconds) {
            let index = bucket(seconds);
            self.latest = (index, least(index)..least(index + 1));
        }
        if let Some(bucket) = self.buckets.get_mut(self.latest.0) {
            *bucket += requests;
        }
    }

    /// Wait in seconds that a share of the requests does not exceed; 0 without requests.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut left = share.mul_add(self.total, -self.none);
        if left <= 1e-9 * self.total {
            return 0.0;
        }
        for (index, requests) in self.buckets.iter().enumerate() {
            left -= requests;
            if left <= 1e-9 * self.total {
                return middle(index);
            }
        }
        0.0
    }

    /// Mean in seconds; 0 without requests.
    pub fn mean(&self) -> f64 {
        if self.total > 0.0 { self.seconds / self.total } else { 0.0 }
    }

    /// Share of the requests that waited for longer than the limit, 0 to 1.
    pub fn share_over(&self) -> f64 {
        if self.total > 0.0 { self.over / self.total } else { 0.0 }
    }

    /// Number of requests.
    pub const fn total(&self) -> f64 {
        self.total
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and bounded")]
fn bucket(seconds: f64) -> usize {
    (((seconds / SHORTEST).ln() / RATIO.ln()) as usize).min(BUCKETS - 1)
}

/// Shortest wait of a bucket, in seconds.
#[allow(clippy::cast_precision_loss, reason = "a thousand buckets")]
fn least(index: usize) -> f64 {
    SHORTEST * RATIO.powf(index as f64)
}

fn middle(index: usize) -> f64 {
    least(index) * RATIO.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_known_to_two_percent() {
        let mut waits = Waits::new(10.0);
        waits.add(0.0, 50.0);
        for second in 1..=50 {
            waits.add(f64::from(second), 1.0);
        }
        let near =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
        assert!(waits.quantile(0.5).abs() < 1e-9);
        near(waits.quantile(0.75), 25.0);
        near(waits.quantile(0.95), 45.0);
        near(waits.mean(), 12.75);
        assert!((waits.share_over() - 0.4).abs() < 1e-9);
    }

    #[test]
    fn no_requests_wait_for_no_time() {
        let waits = Waits::new(1.0);
        assert_eq!((waits.quantile(0.95), waits.mean(), waits.share_over()).0.to_bits(), 0.0_f64.to_bits());
        assert!(waits.total() < 1e-9);
    }
}
