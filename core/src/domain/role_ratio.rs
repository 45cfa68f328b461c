//! Bounds of the ratio of two roles.

use super::{Target, ValueError};

/// Bounds of the number of the first role per instance of the second, such as prefill per decode: from 0.001 to
/// 1000, with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleRatio {
    /// Least ratio, in thousandths.
    min: u64,
    /// Greatest ratio, in thousandths.
    max: u64,
}

impl RoleRatio {
    const MAX: u64 = 1_000_000;

    /// Bounds; a missing one bounds nothing.
    ///
    /// # Errors
    /// If a bound is out of range, or the minimum is above the maximum.
    pub fn new(min: Option<&str>, max: Option<&str>) -> Result<Self, ValueError> {
        let bound = |text: &str| {
            let ratio = text.parse::<Target>().map(Target::in_thousandths).ok();
            ratio
                .filter(|ratio| *ratio <= Self::MAX)
                .ok_or_else(|| ValueError::expected("a ratio from 0.001 to 1000 with at most three decimals"))
        };
        let (min, max) = (min.map(bound).transpose()?, max.map(bound).transpose()?);
        let (min, max) = (min.unwrap_or(1), max.unwrap_or(Self::MAX));
        if min > max {
            return Err(ValueError::expected("a least ratio that is not above the greatest one"));
        }
        Ok(Self { min, max })
    }

    /// The numbers of both roles within the ratio.
    ///
    /// The role that is too small for the other one is raised up to its maximum. If that is not enough, the other one is
    /// lowered down to its minimum. `bounds` are the minimum and maximum of each role.
    pub fn within(self, (first, second): (i32, i32), bounds: [(i32, i32); 2]) -> (i32, i32) {
        let [first_bounds, second_bounds] = bounds;
        let (first, second) = raise(first, second, first_bounds.1, second_bounds.0, self.min, 1000);
        // The ratio is at most max if the inverse is at least 1 / max.
        let (second, first) = raise(second, first, second_bounds.1, first_bounds.0, 1000, self.max);
        (first, second)
    }
}

/// Raises `small` until `small / large >= numerator / denominator`, up to its maximum, and then lowers `large`, down to its
/// minimum.
fn raise(
    small: i32,
    large: i32,
    small_max: i32,
    large_min: i32,
    numerator: u64,
    denominator: u64,
) -> (i32, i32) {
    let needed = (u128::from(large.unsigned_abs()) * u128::from(numerator)).div_ceil(denominator.into());
    let needed = i32::try_from(needed).unwrap_or(i32::MAX);
    if small >= needed {
        return (small, large);
    }
    let small = needed.min(small_max).max(small);
    let allowed = u128::from(small.unsigned_abs()) * u128::from(denominator) / u128::from(numerator.max(1));
    let allowed = i32::try_from(allowed).unwrap_or(i32::MAX);
    (small, large.min(allowed.max(large_min)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::within((2, 4), (2, 4))]
    #[case::first_too_small((1, 8), (2, 8))]
    #[case::first_at_its_maximum((1, 20), (4, 16))]
    #[case::second_too_small((4, 2), (4, 4))]
    #[case::second_at_its_maximum((30, 1), (16, 16))]
    fn keeps_the_ratio_by_adding_first(#[case] wanted: (i32, i32), #[case] expected: (i32, i32)) {
        let ratio = RoleRatio::new(Some("0.25"), Some("1")).unwrap();
        assert_eq!(ratio.within(wanted, [(1, 4.max(expected.0)), (1, 16)]), expected);
    }

    #[test]
    fn never_leaves_the_bounds_of_a_role() {
        let ratio = RoleRatio::new(Some("1"), None).unwrap();
        assert_eq!(ratio.within((1, 9), [(1, 2), (5, 9)]), (2, 5));
    }

    #[rstest]
    #[case(Some("0"), None, "from 0.001 to 1000")]
    #[case(Some("1001"), None, "from 0.001 to 1000")]
    #[case(Some("2"), Some("1"), "not above the greatest")]
    fn rejects_ratios(#[case] min: Option<&str>, #[case] max: Option<&str>, #[case] error: &str) {
        assert!(RoleRatio::new(min, max).unwrap_err().to_string().contains(error));
    }
}
