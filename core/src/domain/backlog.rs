//! Settings that bound how much of a backlog counts as demand.

use std::{fmt, str::FromStr};

use super::{
    ValueError,
    duration::{seconds, with_unit},
    quantity::{thousandths, write_thousandths},
};

/// Range of service times, in milliseconds.
const SERVICE_TIME: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// Units of a service time, in milliseconds; a suffix of another comes last.
const UNITS: [(&str, i32); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// Time that a ServingGroup takes for one request which does not wait, in milliseconds: 100 ms to 1 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceTime(u32);

impl ServiceTime {
    /// A service time; `None` if it is out of range.
    pub fn from_millis(millis: u32) -> Option<Self> {
        SERVICE_TIME.contains(&millis).then_some(Self(millis))
    }

    /// The time in milliseconds.
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl FromStr for ServiceTime {
    type Err = ValueError;

    /// Parses a duration such as `800ms`, `5s` or `2m`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        with_unit(text, &UNITS)
            .and_then(|millis| Self::from_millis(millis.unsigned_abs()))
            .ok_or_else(|| ValueError::expected("off, or a duration from 100ms to 1h"))
    }
}

impl fmt::Display for ServiceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}s", self.0 / 1000),
            _ => write!(f, "{}ms", self.0),
        }
    }
}

/// Capacity to provide beyond the arriving requests, as a factor in thousandths: 1 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Headroom(u32);

impl Headroom {
    const RANGE: std::ops::RangeInclusive<u32> = 1000..=3000;

    /// The factor in thousandths.
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl Default for Headroom {
    /// 1.2: with 1 a model has no capacity to work off what waits.
    fn default() -> Self {
        Self(1200)
    }
}

impl FromStr for Headroom {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        thousandths(text)
            .and_then(|milli| u32::try_from(milli).ok())
            .filter(|milli| Self::RANGE.contains(milli))
            .map(Self)
            .ok_or_else(|| ValueError::expected("a number from 1 to 3 with at most three decimals"))
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0.into())
    }
}

/// Time within which a backlog is worked off, in seconds: 1 minute to 1 hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DrainTime(u32);

impl DrainTime {
    /// The time in seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl Default for DrainTime {
    /// Twice the five minutes that a large model takes to load.
    fn default() -> Self {
        Self(600)
    }
}

impl FromStr for DrainTime {
    type Err = ValueError;

    /// Parses a duration such as `10m`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        seconds(text, 60..=3600).map(|seconds| Self(seconds.unsigned_abs()))
    }
}

/// Bound on the requests in flight that count as demand: a backlog counts by the time in which it is to be worked off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backlog {
    /// Time for one request; `None` counts every request in flight.
    pub service_time: Option<ServiceTime>,
    /// Capacity beyond the arriving requests.
    pub headroom: Headroom,
    /// Time within which the backlog is worked off.
    pub drain_time: DrainTime,
}

/// Parses a service time, or `off`.
///
/// # Errors
/// If the text is neither.
pub(crate) fn service_time(text: &str) -> Result<Option<ServiceTime>, ValueError> {
    if text == "off" { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("off", Ok(None))]
    #[case("100ms", Ok(Some("100ms")))]
    #[case("5s", Ok(Some("5s")))]
    #[case("2500ms", Ok(Some("2500ms")))]
    #[case("2000ms", Ok(Some("2s")))]
    #[case("1h", Ok(Some("3600s")))]
    #[case("99ms", Err(()))]
    #[case("3601s", Err(()))]
    #[case("99999h", Err(()))]
    #[case("5", Err(()))]
    #[case("1.5s", Err(()))]
    #[case("-5s", Err(()))]
    #[case("+5s", Err(()))]
    #[case("000005s", Err(()))]
    #[case("s", Err(()))]
    #[case("", Err(()))]
    #[case("Off", Err(()))]
    fn reads_service_times(#[case] text: &str, #[case] expected: Result<Option<&str>, ()>) {
        let read = service_time(text).map(|time| time.map(|time| time.to_string())).map_err(|_| ());
        assert_eq!(read, expected.map(|time| time.map(str::to_owned)));
    }

    #[rstest]
    #[case("1", Some("1"))]
    #[case("1.2", Some("1.2"))]
    #[case("3", Some("3"))]
    #[case("3.001", None)]
    #[case("0.999", None)]
    #[case("1.2345", None)]
    #[case("99999999999", None)]
    fn reads_headrooms(#[case] text: &str, #[case] expected: Option<&str>) {
        let read = text.parse::<Headroom>().ok().map(|headroom| headroom.to_string());
        assert_eq!(read.as_deref(), expected);
    }

    #[rstest]
    #[case("1m", Some(60))]
    #[case("10m", Some(600))]
    #[case("1h", Some(3600))]
    #[case("59s", None)]
    #[case("2h", None)]
    fn reads_drain_times(#[case] text: &str, #[case] expected: Option<u32>) {
        assert_eq!(text.parse::<DrainTime>().ok().map(DrainTime::seconds), expected);
    }
}
