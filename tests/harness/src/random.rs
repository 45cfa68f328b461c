//! Numbers that a seed decides: the same seed draws the same numbers, in the order in which they are asked for.

use std::{env, process, time::Duration};

/// The seed of this run: `FAULT_SEED`, or else the process's number.
pub fn seed() -> u64 {
    env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(process::id()))
}

/// A stream of numbers by splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of this seed.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// A time from `shortest` to `longest`, in milliseconds.
    pub const fn millis(&mut self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(shortest + self.below(longest - shortest))
    }

    /// A stream for somebody else.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
