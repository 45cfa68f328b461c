//! Delay between writes that another client undoes again and again.

use std::time::Duration;

use tokio::time::Instant;

/// Delay before the third equal write within [`RESET_AFTER`]; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Longest delay between equal writes.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Time without an equal write after which the next one is the first again.
const RESET_AFTER: Duration = Duration::from_mins(2);

/// Equal writes in a row. A client that undoes each of them is answered more and more slowly.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    times: u32,
}

impl Throttle {
    /// Time of the last write.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Records a write. Returns the number of writes in a row.
    pub fn record(&mut self) -> u32 {
        let is_in_a_row = self.last.is_some_and(|last| last.elapsed() < RESET_AFTER);
        self.times = if is_in_a_row { self.times.saturating_add(1) } else { 1 };
        self.last = Some(Instant::now());
        self.times
    }

    /// Time until the next equal write may start.
    pub fn remaining_delay(&self) -> Option<Duration> {
        let doublings = self.times.checked_sub(2)?.min(20);
        let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY);
        delay.checked_sub(self.last?.elapsed()).filter(|delay| !delay.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slows_down_against_a_client_that_undoes_each_write() {
        let mut throttle = Throttle::default();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = throttle.remaining_delay().unwrap_or_default();
            tokio::time::advance(delay).await;
            delays.push(delay.as_millis());
            throttle.record();
        }
        assert_eq!(delays, [0, 0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        tokio::time::advance(RESET_AFTER).await;
        throttle.record();
        assert_eq!(throttle.remaining_delay(), None);
    }
}
