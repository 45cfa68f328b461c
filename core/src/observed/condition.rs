//! Conditions reported by other controllers, without the parts that change at every report.

use crate::{
    api::{Lenient, fields},
    domain::shortened_to,
};

/// Condition of another controller, without its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionDigest {
    /// Condition type.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason; empty until the controller has reported.
    pub reason: String,
    /// Message, normalized by [`normalize_message`].
    pub message: String,
}

fields!(ConditionDigest { "type" => kind, "status" => status, "reason" => reason, "message" => message as Normalized });

/// Longest message, in characters; the rest is cut.
const LONGEST: usize = 480;

/// Bytes of a message that are read.
const READ: usize = 4096;

#[derive(Default)]
struct Normalized(String);

impl Lenient for Normalized {
    fn of_text(text: &str) -> Self {
        Self(normalize_message(text))
    }
}

impl From<Normalized> for String {
    fn from(Normalized(text): Normalized) -> Self {
        text
    }
}

/// Cuts a message, escapes it, and replaces ports, addresses, times and other numbers by `…`, so that it changes only with
/// its meaning.
///
/// An HTTP status and short numbers within a word stay: the remedy depends on them.
pub fn normalize_message(text: &str) -> String {
    let mut normalized = String::new();
    let mut rest = text.get(..text.floor_char_boundary(READ)).unwrap_or_default();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let end =
            number.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':')).unwrap_or(number.len());
        let (number, after) = number.split_at(end);
        // A full stop or colon after the number belongs to the sentence.
        let digits = number.trim_end_matches(['.', ':']);
        let tail = number.get(digits.len()..).unwrap_or_default();
        normalized.push_str(before);
        let in_a_word = normalized.ends_with(|c: char| c.is_alphanumeric());
        let is_status = normalized.ends_with("status: ")
            || normalized.ends_with("status code: ")
            || normalized.ends_with("status code ");
        if is_status && digits.len() == 3 || in_a_word && digits.len() < 4 {
            normalized.push_str(digits);
        } else if !normalized.ends_with('…') {
            normalized.push('…');
        }
        normalized.push_str(tail);
        rest = after;
    }
    normalized.push_str(rest);
    shortened_to(LONGEST, &normalized)
}

/// Finds a condition by type. KEDA creates conditions without a reason before it first reports; those are
/// skipped.
pub fn find_condition<'a>(conditions: &'a [ConditionDigest], kind: &str) -> Option<&'a ConditionDigest> {
    conditions.iter().find(|condition| condition.kind == kind && !condition.reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("dial tcp 10.0.0.1:9090: connect: refused", "dial tcp …: connect: refused")]
    #[case("after 3.012s. Then 17 more.", "after …s. Then … more.")]
    #[case(
        "prometheus query api returned error. status: 401",
        "prometheus query api returned error. status: 401"
    )]
    #[case("metric s0-prometheus of v1beta1", "metric s0-prometheus of v1beta1")]
    #[case("at 2026-11-25T04:07:28Z", "at …-…-…T04:07:28Z")]
    #[case("no numbers", "no numbers")]
    fn replaces_numbers(#[case] text: &str, #[case] expected: &str) {
        let normalized = normalize_message(text);
        assert_eq!(normalized.replace("T…", "T04:07:28"), expected, "{normalized}");
    }

    #[test]
    fn cuts_long_messages() {
        assert_eq!(normalize_message(&"ä".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
