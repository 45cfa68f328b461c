//! Values, with the evidence for them.

use serde::Serialize;

/// Trust in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Confidence {
    /// Less than three days, a wide interval, or an assumption.
    Low,
    /// At least three days, and an interval of half the value at most.
    Medium,
    /// At least a week, and an interval of a fifth of the value at most.
    High,
}

impl Confidence {
    /// Trust by the length of the record in days, and the interval of the value.
    pub(super) fn of(days: f64, value: f64, interval: Option<(f64, f64)>) -> Self {
        let width = interval.map_or(f64::INFINITY, |(low, high)| (high - low) / value.max(f64::MIN_POSITIVE));
        if days >= 6.99 && width <= 0.2 {
            Self::High
        } else if days >= 2.99 && width <= 0.5 {
            Self::Medium
        } else {
            Self::Low
        }
    }

    /// Trust by the length of the record alone, in days.
    pub(super) fn of_days(days: f64) -> Self {
        Self::of(days, 1.0, Some((1.0, 1.0)))
    }
}

/// A setting: its value now, the one that the evidence speaks for, and the evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Value {
    /// Key of `--set`, or the name of a measurement.
    pub name: &'static str,
    /// Value now.
    pub now: Option<String>,
    /// Value that the evidence speaks for; `None` keeps it.
    pub evident: Option<String>,
    /// Interval in which the value is nine times of ten, for measurements.
    pub interval: Option<[f64; 2]>,
    /// Trust; `None` without a value.
    pub confidence: Option<Confidence>,
    /// Source of the value, or the reason for which there is none.
    pub evidence: String,
}

impl Value {
    /// A value that is kept, and the reason.
    pub(super) const fn kept(name: &'static str, now: Option<String>, reason: String) -> Self {
        Self { name, now, evident: None, interval: None, confidence: None, evidence: reason }
    }

    /// A value with evidence.
    pub(super) const fn evident(
        name: &'static str,
        now: Option<String>,
        value: String,
        confidence: Confidence,
        evidence: String,
    ) -> Self {
        Self { name, now, evident: Some(value), interval: None, confidence: Some(confidence), evidence }
    }

    pub(super) fn within(self, interval: Option<(f64, f64)>) -> Self {
        let interval = interval.map(|(low, high)| [short(low), short(high)]);
        Self { interval, ..self }
    }
}

/// Three significant digits.
pub(super) fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Seconds as a duration of a setting, rounded up: to whole seconds from 10 s on, else to three digits.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "durations of settings are bounded"
)]
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9);
    if seconds >= 10.0 {
        return format!("{}s", seconds.ceil() as u64);
    }
    let unit = if seconds >= 1.0 { 10.0 } else { 1.0 };
    let millis = (seconds * 1000.0 / unit - 1e-6).ceil() * unit;
    if millis % 1000.0 < 0.5 {
        format!("{}s", (millis / 1000.0) as u64)
    } else {
        format!("{}ms", millis as u64)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0.7334, "734ms")]
    #[case(5.0, "5s")]
    #[case(5.536, "5540ms")]
    #[case(25.2, "26s")]
    fn durations_are_rounded_up(#[case] seconds: f64, #[case] expected: &str) {
        assert_eq!(duration(seconds), expected);
    }

    #[rstest]
    #[case(14.0, Some((9.5, 10.5)), Confidence::High)]
    #[case(14.0, Some((8.0, 12.0)), Confidence::Medium)]
    #[case(5.0, Some((9.5, 10.5)), Confidence::Medium)]
    #[case(2.0, Some((10.0, 10.0)), Confidence::Low)]
    #[case(14.0, None, Confidence::Low)]
    fn trust_follows_from_days_and_interval(
        #[case] days: f64,
        #[case] interval: Option<(f64, f64)>,
        #[case] expected: Confidence,
    ) {
        assert_eq!(Confidence::of(days, 10.0, interval), expected);
    }
}
