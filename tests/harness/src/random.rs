//! Deterministic random numbers: the same seed gives the same sequence.

use std::{env, process, time::Duration};

/// Seed of this run: the environment variable `FAULT_SEED`, or the process ID.
pub fn seed() -> u64 {
    env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(process::id()))
}

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Generator with this seed.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Next number of the sequence.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Number below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// Duration from `shortest` to below `longest`, both in milliseconds.
    pub const fn millis(&mut self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(shortest + self.below(longest - shortest))
    }

    /// Independent generator, seeded by the next number.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
