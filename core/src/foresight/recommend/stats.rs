//! Quantiles, a monotone fit, and intervals by resampling blocks of time.

use crate::foresight::random::Random;

/// Resamples of an interval.
const RESAMPLES: usize = 200;
/// Seed of the resamples, so that a report can be repeated.
const SEED: u64 = 20_260_101;

/// Value that a share of the values does not exceed; `None` without any. The order of the values changes.
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    values.get(rank(values.len(), share)).copied()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bounded by the number of values"
)]
fn rank(count: usize, share: f64) -> usize {
    ((count as f64 * share.clamp(0.0, 1.0)) as usize).min(count.saturating_sub(1))
}

/// Least squares fit of weighted values that never falls from one to the next (pool adjacent violators).
pub(super) fn isotonic(values: &[(f64, f64)]) -> Vec<f64> {
    // Mean, weight and number of values of each level.
    let mut levels: Vec<(f64, f64, usize)> = Vec::with_capacity(values.len());
    for (value, weight) in values {
        let mut level = (*value, *weight, 1);
        while let Some((mean, weight, count)) = levels.pop_if(|(mean, ..)| *mean >= level.0) {
            let sum = weight + level.1;
            level =
                (mean.mul_add(weight, level.0 * level.1) / sum.max(f64::MIN_POSITIVE), sum, count + level.2);
        }
        levels.push(level);
    }
    levels.into_iter().flat_map(|(mean, _, count)| std::iter::repeat_n(mean, count)).collect()
}

/// Figures of resamples: each draws as many blocks as there are, with repetition. A figure that a resample does not have is
/// left out. Blocks keep the values of a day together, which are not independent of each other.
pub(super) fn resampled<T: Copy>(blocks: &[Vec<T>], figure: impl Fn(&mut Vec<T>) -> Option<f64>) -> Vec<f64> {
    let mut random = Random::new(SEED);
    let mut drawn = Vec::new();
    let draw = |_| {
        drawn.clear();
        for _ in blocks {
            drawn.extend(blocks.get(rank(blocks.len(), random.uniform())).into_iter().flatten().copied());
        }
        figure(&mut drawn)
    };
    (0..RESAMPLES).filter_map(draw).collect()
}

/// Ends of the interval in which nine of ten figures are.
pub(super) fn interval(figures: &mut [f64]) -> Option<(f64, f64)> {
    Some((quantile(figures, 0.05)?, quantile(figures, 0.95)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fit_pools_what_falls() {
        let fit = isotonic(&[(1.0, 1.0), (4.0, 1.0), (2.0, 3.0), (5.0, 1.0)]);
        assert_eq!(fit, [1.0, 2.5, 2.5, 5.0]);
    }

    #[test]
    fn an_interval_is_as_wide_as_the_blocks_differ() {
        let width = |spread: f64| {
            let blocks: Vec<Vec<f64>> =
                (0..14).map(|day| vec![10.0 + spread * f64::from(day % 2); 20]).collect();
            let mean = |values: &mut Vec<f64>| {
                Some(values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap()))
            };
            let (low, high) = interval(&mut resampled(&blocks, mean)).unwrap();
            assert!(low >= 10.0 && high <= 10.0 + spread);
            high - low
        };
        assert!(width(0.0) < 1e-9);
        assert!((0.2..0.7).contains(&width(1.0)), "{}", width(1.0));
    }

    proptest! {
        #[test]
        fn a_fit_never_falls(values in prop::collection::vec((-1e6..1e6_f64, 0.0..10.0_f64), 0..40)) {
            let fit = isotonic(&values);
            prop_assert_eq!(fit.len(), values.len());
            prop_assert!(fit.is_sorted_by(|a, b| a <= b || (a - b).abs() < 1e-6), "{:?}", fit);
        }
    }
}
