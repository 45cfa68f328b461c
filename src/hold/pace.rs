//! The pace of the hand-over: an engine that has just loaded does not get all requests at once.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that go without a pause.
const BURST: u32 = 8;
/// Time between two requests to an engine after a burst.
const INTERVAL: Duration = Duration::from_millis(20);

/// Times of the next hand-overs, as a bucket of [`BURST`] tokens that gets one in each interval.
#[derive(Debug)]
pub struct Pace {
    /// Time at which the bucket is full.
    full_at: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Time at which the next request may go to one of `engines` engines, and counts it.
    pub fn next(&mut self, now: Instant, engines: usize) -> Instant {
        let engines = u32::try_from(engines).unwrap_or(u32::MAX).max(1);
        let interval = INTERVAL / engines;
        let burst = interval * (BURST - 1);
        self.full_at = self.full_at.max(now);
        let at = self.full_at.checked_sub(burst).map_or(now, |at| at.max(now));
        self.full_at += interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(engines: usize, requests: usize) -> Vec<u128> {
        let start = Instant::now() + Duration::from_secs(10);
        let (mut pace, mut now) = (Pace::new(start), start);
        let mut offset = || {
            now = pace.next(now, engines);
            (now - start).as_millis()
        };
        (0..requests).map(|_| offset()).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_intervals() {
        assert_eq!(offsets(1, 11), [0, 0, 0, 0, 0, 0, 0, 0, 20, 40, 60]);
        assert_eq!(offsets(2, 11)[7..], [0, 10, 20, 30]);
    }

    #[test]
    fn fifty_requests_take_less_than_a_second_for_one_engine() {
        assert_eq!(offsets(1, 50)[49], 840);
    }

    #[test]
    fn after_a_pause_there_is_a_burst_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..50 {
            pace.next(start, 1);
        }
        let later = start + Duration::from_mins(1);
        assert_eq!((0..8).map(|_| pace.next(later, 1)).max(), Some(later));
        assert!(pace.next(later, 1) > later);
    }
}
