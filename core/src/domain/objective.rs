//! Objectives of the latency signals.

use std::{fmt, ops::RangeInclusive, str::FromStr as _};

use super::{Latency, Target, ValueError, duration::with_unit};

/// Units of an objective, in milliseconds; a suffix of another comes last.
const UNITS: [(&str, i32); 3] = [("ms", 1), ("m", 60_000), ("s", 1000)];

/// A latency that nine of ten requests are not to exceed, in milliseconds.
///
/// Engines count latencies in buckets, and a quantile within the first bucket is anything up to its bound: 10 ms between
/// tokens with vLLM, 1 ms to the first token. The range begins where half of the objective is above that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Objective {
    latency: Latency,
    millis: u32,
}

impl Objective {
    /// Target of every latency signal: its total is half the number of ServingGroups where the latency is half of its
    /// objective.
    pub(crate) const TARGET: Target = Target::thousandths(500);

    /// Parses a duration such as `2s` or `50ms`.
    ///
    /// # Errors
    /// If the text is no duration, or out of the range of the latency.
    pub fn parse(latency: Latency, text: &str) -> Result<Self, ValueError> {
        with_unit(text, &UNITS)
            .map(i32::unsigned_abs)
            .filter(|millis| range(latency).contains(millis))
            .map(|millis| Self { latency, millis })
            .ok_or_else(|| ValueError::expected(expected(latency)))
    }

    /// The latency that has this objective.
    pub const fn latency(self) -> Latency {
        self.latency
    }

    /// The objective in milliseconds.
    pub const fn millis(self) -> u32 {
        self.millis
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.millis % 1000 {
            0 => write!(f, "{}s", self.millis / 1000),
            _ => write!(f, "{}ms", self.millis),
        }
    }
}

/// Range of the objectives of a latency, in milliseconds.
const fn range(latency: Latency) -> RangeInclusive<u32> {
    match latency {
        Latency::FirstToken => 10..=600_000,
        Latency::InterToken => 20..=10_000,
    }
}

const fn expected(latency: Latency) -> &'static str {
    match latency {
        Latency::FirstToken => "a duration such as 2s, from 10ms to 10m",
        Latency::InterToken => "a duration such as 50ms, from 20ms to 10s",
    }
}

/// Parses the target of a signal that is no latency.
///
/// # Errors
/// If the text is no target.
pub(crate) fn number(text: &str) -> Result<Target, ValueError> {
    Target::from_str(text).map_err(|error| match with_unit(text, &UNITS) {
        Some(_) => ValueError::expected("a number, because only ttft-p90 and itl-p90 have a duration"),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Latency::FirstToken, "2s", Some("2s"))]
    #[case(Latency::FirstToken, "10ms", Some("10ms"))]
    #[case(Latency::FirstToken, "10m", Some("600s"))]
    #[case(Latency::FirstToken, "1500ms", Some("1500ms"))]
    #[case(Latency::FirstToken, "9ms", None)]
    #[case(Latency::FirstToken, "601s", None)]
    #[case(Latency::FirstToken, "1h", None)]
    #[case(Latency::FirstToken, "2", None)]
    #[case(Latency::FirstToken, "1.5s", None)]
    #[case(Latency::FirstToken, "-2s", None)]
    #[case(Latency::FirstToken, "s", None)]
    #[case(Latency::InterToken, "20ms", Some("20ms"))]
    #[case(Latency::InterToken, "10s", Some("10s"))]
    #[case(Latency::InterToken, "19ms", None)]
    #[case(Latency::InterToken, "11s", None)]
    fn reads_objectives(#[case] latency: Latency, #[case] text: &str, #[case] expected: Option<&str>) {
        let read = Objective::parse(latency, text).ok().map(|objective| objective.to_string());
        assert_eq!(read.as_deref(), expected);
    }

    #[rstest]
    #[case("5", Ok("5"))]
    #[case("5s", Err("expected a number, because only ttft-p90 and itl-p90 have a duration"))]
    #[case("five", Err("expected a target from 0.001 to 1000000000 with at most three decimals"))]
    fn reads_numbers(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        let read = number(text).map(|target| target.to_string()).map_err(|error| error.to_string());
        assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned));
    }
}
