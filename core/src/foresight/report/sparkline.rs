//! A course in one line of characters.

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The greatest value of each of `width` parts, relative to the greatest of all; a blank where nothing is known.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between 0 and 7"
)]
pub fn sparkline(values: &[Option<f64>], width: usize) -> String {
    if values.is_empty() || width == 0 {
        return String::new();
    }
    let width = width.min(values.len());
    let part = |index: usize| {
        let range = index * values.len() / width..(index + 1) * values.len() / width;
        values.get(range)?.iter().flatten().copied().reduce(f64::max)
    };
    let parts: Vec<Option<f64>> = (0..width).map(part).collect();
    let greatest = parts.iter().flatten().copied().fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let level = |value: f64| LEVELS.get((value / greatest * 7.0).round() as usize).copied().unwrap_or('█');
    parts.into_iter().map(|value| value.map_or(' ', level)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[], 4, "")]
    #[case(&[Some(0.0), Some(7.0), None, Some(3.5)], 4, "▁█ ▅")]
    #[case(&[Some(0.0), Some(7.0), None, Some(3.5)], 2, "█▅")]
    #[case(&[Some(0.0), Some(0.0)], 9, "▁▁")]
    #[case(&[None], 3, " ")]
    fn draws_the_greatest_of_each_part(
        #[case] values: &[Option<f64>],
        #[case] width: usize,
        #[case] line: &str,
    ) {
        assert_eq!(sparkline(values, width), line);
    }
}
