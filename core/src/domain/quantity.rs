//! Quantities of a signal, in thousandths: targets and activation thresholds.

use std::{fmt, str::FromStr};

use super::ValueError;

/// Amount of a signal that one ServingGroup carries, in thousandths.
///
/// KEDA and the HPA store thresholds as milli-quantities: they would round a finer value, and the HPA rejects
/// 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(u64);

impl Target {
    /// Maximum target, in whole units.
    const MAX: u64 = 1_000_000_000;

    /// A target in whole units.
    pub(crate) const fn of(whole: u32) -> Self {
        Self(whole as u64 * 1000)
    }

    /// A target in thousandths.
    pub(crate) const fn thousandths(thousandths: u32) -> Self {
        Self(thousandths as u64)
    }

    /// The target in thousandths.
    pub(crate) const fn in_thousandths(self) -> u64 {
        self.0
    }

    /// This target of each of several ServingGroups together.
    #[must_use]
    pub(crate) const fn times(self, groups: u32) -> Self {
        Self(self.0.saturating_mul(groups as u64))
    }

    /// Twice this target.
    #[must_use]
    pub(crate) const fn doubled(self) -> Self {
        Self(self.0 * 2)
    }
}

impl FromStr for Target {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        thousandths(text).filter(|milli| (1..=Self::MAX * 1000).contains(milli)).map(Self).ok_or_else(|| {
            ValueError::expected(format!("a target from 0.001 to {} with at most three decimals", Self::MAX))
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

/// Demand that a model at zero ServingGroups has to exceed before KEDA scales it up, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activation(u64);

impl FromStr for Activation {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        thousandths(text).filter(|milli| *milli < Target::MAX * 1000).map(Self).ok_or_else(|| {
            ValueError::expected(format!("a number >= 0 and < {} with at most three decimals", Target::MAX))
        })
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

/// Parses a decimal number with at most three decimals and no sign.
pub(super) fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(thousandths)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn write_thousandths(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    let (whole, thousandths) = (number / 1000, number % 1000);
    if thousandths == 0 {
        return write!(f, "{whole}");
    }
    let fraction = format!("{thousandths:03}");
    write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("12", "12")]
    #[case("0.8", "0.8")]
    #[case("0.001", "0.001")]
    #[case("1000000000", "1000000000")]
    #[case("007.50", "7.5")]
    fn reads_targets(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), canonical);
    }

    #[rstest]
    fn rejects_targets(
        #[values(
            "",
            "0",
            "0.000",
            "-1",
            "+1",
            "1e3",
            "NaN",
            "inf",
            "0.0001",
            "1000000001",
            ".5",
            "5.",
            "99999999999999999999"
        )]
        text: &str,
    ) {
        assert!(text.parse::<Target>().is_err());
    }

    #[rstest]
    #[case("0", true)]
    #[case("2.5", true)]
    #[case("999999999.999", true)]
    #[case("1000000000", false)]
    #[case("-1", false)]
    #[case("some", false)]
    fn reads_activations(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<Activation>().is_ok(), valid);
    }
}
