//! Delays between tries: exponential, with full jitter, so that many objects never knock together.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

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

/// Counts failures in a row, by object.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// Counts one more and answers how many there are.
    pub fn count(&self, object: &str) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Forgets an object that succeeded or went.
    pub fn forget(&self, object: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
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

    #[test]
    fn failures_are_counted_apart() {
        let failures = Failures::default();
        assert_eq!((failures.count("a"), failures.count("a"), failures.count("b")), (1, 2, 1));
        failures.forget("a");
        assert_eq!(failures.count("a"), 1);
    }
}
