//! Durations in whole seconds, written with a unit.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use super::ValueError;

/// Units of a duration, in seconds; the largest is first.
const UNITS: [(&str, i32); 3] = [("h", 3600), ("m", 60), ("s", 1)];

/// Maximum number of digits, as in the CRD.
const DIGITS_MAX: usize = 5;

/// Parses whole seconds, minutes or hours, such as `15s`, `10m` or `1h`, into seconds.
///
/// # Errors
/// If the text is no such duration, or it is out of `range` (in seconds).
pub fn seconds(text: &str, range: RangeInclusive<i32>) -> Result<i32, ValueError> {
    with_unit(text, &UNITS).filter(|seconds| range.contains(seconds)).ok_or_else(|| {
        ValueError::expected(format!(
            "a duration from {} to {}",
            Written(*range.start()),
            Written(*range.end())
        ))
    })
}

/// Parses a number and its unit, the first that the text ends with, of those given with their sizes.
pub(super) fn with_unit(text: &str, units: &[(&str, i32)]) -> Option<i32> {
    let (number, unit) = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)))?;
    if number.len() > DIGITS_MAX || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<i32>().ok()?.checked_mul(unit)
}

/// Seconds, written with the largest unit that divides them.
struct Written(i32);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.into_iter().find(|(_, seconds)| self.0 != 0 && self.0 % seconds == 0);
        let (unit, seconds) = unit.unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

/// Interval between two scrapes, in seconds: 1 to 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeInterval(i32);

impl ScrapeInterval {
    /// Rates have a window of two minutes: with fewer than four scrapes in it, one lost scrape would leave a
    /// gap.
    const MAX: i32 = 30;
    /// The longest interval.
    pub const LONGEST: Duration = Duration::from_secs(Self::MAX as u64);

    /// The interval in seconds.
    pub const fn seconds(self) -> u32 {
        self.0.unsigned_abs()
    }
}

impl Default for ScrapeInterval {
    fn default() -> Self {
        Self(15)
    }
}

impl FromStr for ScrapeInterval {
    type Err = ValueError;

    /// Parses a duration such as `15s`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        seconds(text, 1..=Self::MAX).map(Self)
    }
}

impl fmt::Display for ScrapeInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// A measured time in milliseconds, rounded up to two digits, so that it does not change with each measurement; `None` if it is negative, or
/// longer than a day.
pub fn rounded_up_millis(seconds: f64) -> Option<u32> {
    let millis = seconds * 1000.0;
    if !(0.0..=86_400_000.0).contains(&millis) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    let millis = millis.round() as u32;
    let step = 10_u32.pow(millis.checked_ilog10().unwrap_or_default().saturating_sub(1));
    Some(millis.div_ceil(step) * step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("15s", Some("15s"))]
    #[case("30s", Some("30s"))]
    #[case("0s", None)]
    #[case("1m", None)]
    #[case("15", None)]
    #[case("-5s", None)]
    #[case("99999999999s", None)]
    fn reads_scrape_intervals(#[case] text: &str, #[case] canonical: Option<&str>) {
        assert_eq!(
            text.parse::<ScrapeInterval>().ok().map(|interval| interval.to_string()).as_deref(),
            canonical
        );
    }

    #[rstest]
    #[case("90m", Ok(5400))]
    #[case("24h", Ok(86_400))]
    #[case("86400s", Ok(86_400))]
    #[case("00001s", Ok(1))]
    #[case("86401s", Err("expected a duration from 0s to 24h"))]
    #[case("000001s", Err("expected a duration from 0s to 24h"))]
    #[case("1d", Err("expected a duration from 0s to 24h"))]
    #[case("0s", Ok(0))]
    #[case("25h", Err("expected a duration from 0s to 24h"))]
    #[case("+1s", Err("expected a duration from 0s to 24h"))]
    #[case("soon", Err("expected a duration from 0s to 24h"))]
    #[case("", Err("expected a duration from 0s to 24h"))]
    fn reads_seconds(#[case] text: &str, #[case] expected: Result<i32, &str>) {
        let read = seconds(text, 0..=86_400).map_err(|error| error.to_string());
        assert_eq!(read, expected.map_err(str::to_owned));
    }
}
