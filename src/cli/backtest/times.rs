//! Times and durations of the flags.

use k8s_openapi::jiff::Timestamp;

/// Units of a duration, in seconds.
const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
/// Longest duration, in seconds: a year.
const SECONDS_MAX: f64 = 31_622_400.0;

/// Parses a duration such as `15s`, `1.5h` or `7d`, into seconds above 0.
pub(in crate::cli) fn duration(text: &str) -> Result<f64, String> {
    let unit = UNITS.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let number = unit.filter(|(number, _)| number.starts_with(|c: char| c.is_ascii_digit()));
    let seconds = number.and_then(|(number, size)| Some(number.parse::<f64>().ok()? * size));
    seconds
        .filter(|seconds| *seconds > 0.0 && *seconds <= SECONDS_MAX)
        .ok_or_else(|| "expected a duration such as 90s, 10m, 12h or 7d".to_owned())
}

/// Parses a duration of whole seconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the parser")]
pub(in crate::cli) fn whole_seconds(text: &str) -> Result<u32, String> {
    let seconds = duration(text)?;
    let is_whole = seconds.fract() == 0.0 && (1.0..=3600.0).contains(&seconds);
    if is_whole { Ok(seconds as u32) } else { Err("expected whole seconds from 1s to 1h".to_owned()) }
}

/// Parses a time: RFC 3339, or seconds since 1970.
pub(in crate::cli) fn time(text: &str) -> Result<i64, String> {
    let seconds = text.parse::<i64>().ok().filter(|seconds| (0..=250_000_000_000).contains(seconds));
    let seconds = seconds.or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::as_second));
    seconds.ok_or_else(|| "expected a time such as 2026-11-26T05:00:00Z, or seconds since 1970".to_owned())
}

/// Parses a finite number above 0.
pub(in crate::cli) fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("7d", Some(604_800.0))]
    #[case("1.5h", Some(5400.0))]
    #[case("90s", Some(90.0))]
    #[case("500ms", Some(0.5))]
    #[case("0s", None)]
    #[case("-1s", None)]
    #[case("infs", None)]
    #[case("7", None)]
    #[case("9999d", None)]
    fn reads_durations(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(duration(text).ok(), expected);
    }

    #[rstest]
    #[case("2026-11-26T05:00:00Z", Some(1_795_669_200))]
    #[case("2026-11-26T06:00:00+01:00", Some(1_795_669_200))]
    #[case("1795669200", Some(1_795_669_200))]
    #[case("-5", None)]
    #[case("yesterday", None)]
    fn reads_times(#[case] text: &str, #[case] expected: Option<i64>) {
        assert_eq!(time(text).ok(), expected);
    }
}
