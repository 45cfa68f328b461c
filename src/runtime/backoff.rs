//! Delays between tries: exponential and half of it at random, so that many objects never knock together.

use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// The first try waits about this long.
const BASE: Duration = Duration::from_millis(250);

/// A delay before the try after `failures` in a row, at most `longest`.
pub fn delay(failures: u32, longest: Duration) -> Duration {
    let ceiling = BASE.saturating_mul(1 << failures.min(20)).min(longest);
    // Half of it is certain, so that nothing is retried at once.
    ceiling / 2 + ceiling.mul_f64(random() / 2.0)
}

/// A period, 20 % more or less.
pub fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.8 + 0.4 * random())
}

/// A number from 0 to 1 from the randomness that the standard library seeds its maps with.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0u8) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

/// The longest delay between two tries of a watch.
const LONGEST: Duration = Duration::from_secs(30);
/// A watch that fails no sooner than this after a try was well meanwhile; a single request fails within less.
const WELL: Duration = Duration::from_secs(30);

/// Delays between the tries of a watch, for as long as it fails again and again.
///
/// kube's own begin anew with whatever is told, and a watch tells that a list begins before it is asked for, so that lists that fail
/// would be asked for every second for ever (kube-runtime `utils/stream_backoff.rs`, `watcher.rs`).
#[derive(Debug, Default)]
pub(super) struct WatchBackoff {
    failures: u32,
    tried_again: Option<Instant>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.tried_again.is_some_and(|tried| now > tried + WELL) {
            self.failures = 0;
        }
        self.failures += 1;
        let delay = delay(self.failures + 1, LONGEST);
        self.tried_again = Some(now + delay);
        Some(delay)
    }
}

impl Backoff for WatchBackoff {
    /// What is told is no sign of health; time is.
    fn reset(&mut self) {}
}

/// A time in which nothing is tried, whatever happens.
#[derive(Debug, Default)]
pub struct OverloadPause(Mutex<Option<Instant>>);

impl OverloadPause {
    /// Lasts for this long from now, or for as long as it was to last anyway.
    pub fn extend(&self, rest: Duration) {
        let mut ends = self.0.lock();
        *ends = (*ends).max(Some(Instant::now() + rest));
    }

    /// How much of it is left.
    pub fn left(&self) -> Option<Duration> {
        let ends = (*self.0.lock())?;
        Some(ends.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

/// Counts failures in a row, by object.
#[derive(Debug, Default)]
pub struct FailureCounts(Mutex<HashMap<String, u32>>);

impl FailureCounts {
    /// Counts one more and answers how many there are.
    pub fn count(&self, object: &str) -> u32 {
        let mut failures = self.0.lock();
        let count = failures.entry(object.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Forgets an object that succeeded or went.
    pub fn forget(&self, object: &str) {
        self.0.lock().remove(object);
    }

    /// Forgets all that are not among these.
    pub fn retain(&self, there: &HashSet<String>) {
        self.0.lock().retain(|object, _| there.contains(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_within_bounds() {
        let longest = Duration::from_secs(30);
        for failures in 1..200 {
            let delay = delay(failures, longest);
            assert!(delay >= BASE / 2 && delay <= longest, "{failures}: {delay:?}");
        }
        assert!(delay(200, longest) >= longest / 2);
        assert_ne!(jitter(longest), jitter(longest));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_again_and_again_is_tried_ever_more_rarely() {
        let mut backoff = WatchBackoff::default();
        let first = backoff.next().unwrap();
        assert!(first >= BASE * 2, "{first:?}");
        assert!(first <= BASE * 4, "{first:?}");
        let mut last = first;
        for _ in 0..20 {
            tokio::time::advance(last + WELL / 2).await;
            // As after an event: a list begins.
            backoff.reset();
            last = backoff.next().unwrap();
        }
        assert!(last >= LONGEST / 2, "{last:?}");
        tokio::time::advance(LONGEST + WELL * 2).await;
        assert!(backoff.next().unwrap() <= BASE * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_truce_lasts_as_long_as_the_longest_that_was_asked_for() {
        let truce = OverloadPause::default();
        assert_eq!(truce.left(), None);
        truce.extend(Duration::from_secs(5));
        truce.extend(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(truce.left(), Some(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(truce.left(), None);
    }

    #[test]
    fn failures_are_counted_apart() {
        let failures = FailureCounts::default();
        assert_eq!((failures.count("a"), failures.count("a"), failures.count("b")), (1, 2, 1));
        failures.forget("a");
        assert_eq!(failures.count("a"), 1);
    }
}
