//! Points in simulated time.

/// Time since the start of a simulation, in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Latest point in time.
    pub const MAX: Self = Self(u64::MAX);

    /// This many milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// This many seconds after the start.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Seconds since the start, rounded to milliseconds; negative and NaN become 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    pub fn from_seconds_f64(seconds: f64) -> Self {
        Self((seconds * 1000.0).round() as u64)
    }

    /// Milliseconds since the start.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Seconds since the start.
    #[allow(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time `later` after this one; saturates.
    #[must_use]
    pub const fn after(self, later: Self) -> Self {
        Self(self.0.saturating_add(later.0))
    }

    /// Time that passed since `earlier`; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `true` if `self` is less than `seconds` before `now`.
    pub(super) fn is_within(self, seconds: i32, now: Self) -> bool {
        now.since(self) < Self::length(seconds)
    }

    /// `true` if `self` is more than `seconds` before `now`.
    pub(super) fn is_before(self, seconds: i32, now: Self) -> bool {
        now.since(self) > Self::length(seconds)
    }

    /// Length of a window or period in seconds; 0 if it is negative.
    pub(super) fn length(seconds: i32) -> Self {
        Self::from_seconds(u64::try_from(seconds).unwrap_or(0))
    }
}
