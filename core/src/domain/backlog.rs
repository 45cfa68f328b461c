//! Settings that bound how much of a backlog counts as demand.

use std::{fmt, str::FromStr};

use super::{
    ValueError,
    duration::{rounded_up_millis, seconds, with_unit},
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

    /// A measured time in seconds, rounded up to two digits, so that it does not change with each measurement; `None` if it is out of
    /// range.
    pub fn from_measured(seconds: f64) -> Option<Self> {
        let is_in_range = seconds * 1000.0 >= f64::from(*SERVICE_TIME.start())
            && seconds * 1000.0 <= f64::from(*SERVICE_TIME.end());
        is_in_range.then(|| rounded_up_millis(seconds))?.and_then(Self::from_millis)
    }

    /// `true` if it differs from another time by more than this part of the other, in percent.
    pub fn differs_by_more_than(self, percent: u32, other: Self) -> bool {
        u64::from(self.0.abs_diff(other.0)) * 100 > u64::from(other.0) * u64::from(percent)
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
            .ok_or_else(|| ValueError::expected("off, auto, or a duration from 100ms to 1h"))
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

/// Setting of the service time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServiceTimeSetting {
    /// Every request in flight counts.
    #[default]
    Off,
    /// The operator measures it.
    Auto,
    /// A time that the user knows.
    Fixed(ServiceTime),
}

impl FromStr for ServiceTimeSetting {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            time => time.parse().map(Self::Fixed),
        }
    }
}

impl fmt::Display for ServiceTimeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Fixed(time) => write!(f, "{time}"),
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
    /// Time for one request.
    pub service_time: ServiceTimeSetting,
    /// Capacity beyond the arriving requests.
    pub headroom: Headroom,
    /// Time within which the backlog is worked off.
    pub drain_time: DrainTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("off", Some("off"))]
    #[case("auto", Some("auto"))]
    #[case("100ms", Some("100ms"))]
    #[case("5s", Some("5s"))]
    #[case("2500ms", Some("2500ms"))]
    #[case("2000ms", Some("2s"))]
    #[case("1h", Some("3600s"))]
    #[case("99ms", None)]
    #[case("3601s", None)]
    #[case("99999h", None)]
    #[case("5", None)]
    #[case("1.5s", None)]
    #[case("-5s", None)]
    #[case("+5s", None)]
    #[case("000005s", None)]
    #[case("s", None)]
    #[case("", None)]
    #[case("Off", None)]
    fn reads_service_times(#[case] text: &str, #[case] expected: Option<&str>) {
        let read = text.parse::<ServiceTimeSetting>().ok().map(|setting| setting.to_string());
        assert_eq!(read.as_deref(), expected);
    }

    #[rstest]
    #[case(4.9, Some("4900ms"))]
    #[case(4.900_000_1, Some("4900ms"))]
    #[case(4.91, Some("5s"))]
    #[case(0.1, Some("100ms"))]
    #[case(0.123, Some("130ms"))]
    #[case(99.2, Some("100s"))]
    #[case(3599.0, Some("3600s"))]
    #[case(0.0999, None)]
    #[case(3600.1, None)]
    #[case(0.0, None)]
    #[case(-5.0, None)]
    #[case(f64::NAN, None)]
    #[case(f64::INFINITY, None)]
    fn rounds_measured_times(#[case] seconds: f64, #[case] expected: Option<&str>) {
        let time = ServiceTime::from_measured(seconds).map(|time| time.to_string());
        assert_eq!(time.as_deref(), expected);
    }

    #[rstest]
    #[case("6s", "5s", false)]
    #[case("6001ms", "5s", true)]
    #[case("4s", "5s", false)]
    #[case("3999ms", "5s", true)]
    fn compares_times(#[case] time: ServiceTime, #[case] other: ServiceTime, #[case] differs: bool) {
        assert_eq!(time.differs_by_more_than(20, other), differs);
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
