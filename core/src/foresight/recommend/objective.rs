//! The objective of a recommendation.

use std::{fmt, str::FromStr};

use crate::{
    domain::ValueError,
    foresight::{history::SeriesName, report::Slo},
};

/// Multiple of the tail while calm that is the objective where none is set.
pub(super) const CALM_FACTOR: f64 = 1.5;
/// Share of the times to the first token that an objective is for, in percent.
const FIRST_TOKEN_PERCENT: u8 = 95;

/// Time that a share of the requests may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// From the arrival at the router to the last byte.
    Duration(Slo),
    /// To the first token, for 95 % of the requests; in seconds.
    FirstToken(f64),
}

impl Objective {
    /// The time, in seconds.
    pub const fn seconds(self) -> f64 {
        match self {
            Self::Duration(slo) => slo.seconds,
            Self::FirstToken(seconds) => seconds,
        }
    }

    /// Share of the requests, 0 to 1.
    pub(super) fn share(self) -> f64 {
        match self {
            Self::Duration(slo) => slo.share,
            Self::FirstToken(_) => f64::from(FIRST_TOKEN_PERCENT) / 100.0,
        }
    }

    /// Series with the tails to compare the time with.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is below 1")]
    pub fn series(self) -> SeriesName {
        match self {
            Self::Duration(slo) => SeriesName::Duration((slo.share * 100.0).round() as u8),
            Self::FirstToken(_) => SeriesName::FirstToken(FIRST_TOKEN_PERCENT),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duration(slo) => slo.fmt(f),
            Self::FirstToken(seconds) => write!(f, "ttft={seconds}s"),
        }
    }
}

impl FromStr for Objective {
    type Err = ValueError;

    /// Parses an objective such as `p95=30s` or `ttft=2s`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = |_| {
            ValueError::expected(
                "a share of requests and the time that they may take, such as p95=30s, or a time to the first token, such as ttft=2s",
            )
        };
        match text.strip_prefix("ttft=") {
            Some(time) => {
                format!("p95={time}").parse().map(|slo: Slo| Self::FirstToken(slo.seconds)).map_err(expected)
            }
            None => text.parse().map(Self::Duration).map_err(expected),
        }
    }
}
