//! Delays between retries: exponential, with jitter, so that many objects never retry at the same moment.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::runtime::utils::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::delays::{RETRY_BASE, RETRY_WATCH_MAX, WATCH_HEALTHY_AFTER};

/// Delay before the next try after `failures` in a row: between half of the exponential delay and all of it,
/// at most `longest`.
pub fn delay(failures: u32, longest: Duration) -> Duration {
    let ceiling = RETRY_BASE.saturating_mul(1 << failures.min(20)).min(longest);
    // Half of it is certain, so that nothing is retried at once.
    ceiling / 2 + ceiling.mul_f64(fastrand::f64() / 2.0)
}

/// A random duration within 20 % of the period.
pub fn jitter(period: Duration) -> Duration {
    period.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Delays between the tries of a watch, which grow for as long as it fails again and again.
///
/// kube's own backoff resets with every event, and a watch emits an event before it requests a list, so lists
/// that fail would be retried every second forever (kube-runtime `utils/stream_backoff.rs`, `watcher.rs`).
#[derive(Debug, Default)]
pub(super) struct WatchBackoff {
    failures: u32,
    last_try: Option<Instant>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last_try.is_some_and(|tried| now > tried + WATCH_HEALTHY_AFTER) {
            self.failures = 0;
        }
        self.failures += 1;
        let delay = delay(self.failures + 1, RETRY_WATCH_MAX);
        self.last_try = Some(now + delay);
        Some(delay)
    }
}

impl Backoff for WatchBackoff {
    /// Does nothing: an event is no sign of health, only time is.
    fn reset(&mut self) {}
}

/// Pause during which nothing is sent to an overloaded API server, for any reason.
#[derive(Debug, Default)]
pub struct OverloadPause(Mutex<Option<Instant>>);

impl OverloadPause {
    /// Extends the pause to `pause` from now; it never ends earlier than before.
    pub fn extend(&self, pause: Duration) {
        let mut end = self.0.lock();
        *end = (*end).max(Some(Instant::now() + pause));
    }

    /// Rest of the pause; `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        let end = (*self.0.lock())?;
        Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct FailureCounts(Mutex<HashMap<String, u32>>);

impl FailureCounts {
    /// Counts one more failure and returns how many there are in a row.
    pub fn count(&self, object: &str) -> u32 {
        let mut failures = self.0.lock();
        let count = failures.entry(object.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Forgets an object that succeeded or was deleted.
    pub fn forget(&self, object: &str) {
        self.0.lock().remove(object);
    }

    /// Forgets every object that is not in `existing`.
    pub fn retain(&self, existing: &HashSet<String>) {
        self.0.lock().retain(|object, _| existing.contains(object));
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
            assert!(delay >= RETRY_BASE / 2 && delay <= longest, "{failures}: {delay:?}");
        }
        assert!(delay(200, longest) >= longest / 2);
        assert_ne!(jitter(longest), jitter(longest));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let period = Duration::from_secs(100);
        for _ in 0..1000 {
            let jittered = jitter(period).as_secs_f64();
            assert!((80.0..=120.0).contains(&jittered), "{jittered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_keeps_failing_is_retried_less_and_less_often() {
        let mut backoff = WatchBackoff::default();
        let first = backoff.next().unwrap();
        assert!(first >= RETRY_BASE * 2, "{first:?}");
        assert!(first <= RETRY_BASE * 4, "{first:?}");
        let mut last = first;
        for _ in 0..20 {
            tokio::time::advance(last + WATCH_HEALTHY_AFTER / 2).await;
            // kube resets the backoff after an event, such as the one that begins a list.
            backoff.reset();
            last = backoff.next().unwrap();
        }
        assert!(last >= RETRY_WATCH_MAX / 2, "{last:?}");
        tokio::time::advance(RETRY_WATCH_MAX + WATCH_HEALTHY_AFTER * 2).await;
        assert!(backoff.next().unwrap() <= RETRY_BASE * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overload_pause_lasts_as_long_as_the_longest_requested() {
        let pause = OverloadPause::default();
        assert_eq!(pause.left(), None);
        pause.extend(Duration::from_secs(5));
        pause.extend(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(pause.left(), Some(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pause.left(), None);
    }

    #[test]
    fn failures_are_counted_per_object() {
        let failures = FailureCounts::default();
        assert_eq!((failures.count("a"), failures.count("a"), failures.count("b")), (1, 2, 1));
        failures.forget("a");
        assert_eq!(failures.count("a"), 1);
    }
}
