//! Suggestions for mistyped names.

/// Longest name that is compared, in bytes.
const LENGTH_MAX: usize = 256;
/// Comparisons of single bytes for one suggestion; an edit distance takes as many as the product of both
/// lengths. About 0.2 ms, or 300 names of 20 bytes.
const WORK_MAX: usize = 1 << 17;
/// Names of one object for which similar ones are searched.
pub(crate) const SUGGESTIONS_MAX: usize = 3;

/// The candidate with the smallest edit distance, if it is similar enough: at most half of its bytes have to
/// change.
///
/// Names come from anybody, so only names of at most 256 bytes are compared, and only the first candidates
/// that are affordable.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    affordable(typed, candidates)
        .map(|candidate| (strsim::levenshtein(typed, candidate), candidate))
        .min()
        .filter(|(edits, candidate)| *edits <= candidate.len().max(3) / 2)
        .map(|(_, candidate)| candidate)
}

/// `true` if at most two letters of a short name were mistyped.
pub(crate) fn is_misspelling(typed: &str, name: &str) -> bool {
    typed.len() <= LENGTH_MAX && strsim::levenshtein(typed, name) <= 2
}

/// The candidates that could be similar, as long as the comparisons take less than [`WORK_MAX`] in total.
fn affordable<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> impl Iterator<Item = &'a str> {
    let (length, is_short) = (typed.len(), typed.len() <= LENGTH_MAX);
    candidates
        .into_iter()
        .take_while(move |_| is_short)
        .filter(|candidate| candidate.len() <= LENGTH_MAX)
        .scan(WORK_MAX, move |left, candidate| {
            *left = left.checked_sub(length * candidate.len())?;
            Some(candidate)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("max-replica", Some("max-replicas"))]
    #[case("maxReplicas", Some("max-replicas"))]
    #[case("min_replicas", Some("min-replicas"))]
    #[case("signal", Some("signals"))]
    #[case("xyz", None)]
    fn finds_the_intended_name(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(typed, ["min-replicas", "max-replicas", "signals", "paused"]), expected);
    }

    #[rstest]
    #[case::long_names("x".repeat(256), "y".repeat(256), 10_000)]
    #[case::huge_candidates("x".repeat(256), "y".repeat(1 << 20), 1)]
    #[case::huge_names("x".repeat(1 << 20), "y".repeat(256), 1)]
    #[case::many_candidates("x".to_owned(), "y".to_owned(), 1 << 20)]
    fn bounds_the_work_whatever_the_names_hold(
        #[case] typed: String,
        #[case] candidate: String,
        #[case] count: usize,
    ) {
        let compared = affordable(&typed, vec![candidate.as_str(); count]);
        let work: usize = compared.map(|candidate| typed.len() * candidate.len()).sum();
        assert!(work <= WORK_MAX, "{work}");
    }

    #[test]
    fn compares_hundreds_of_usual_names() {
        let candidates: Vec<String> = (0..200).map(|i| format!("a-name-that-is-long-{i:03}")).collect();
        let candidates = || candidates.iter().map(String::as_str);
        assert_eq!(affordable("a-name-that-is-long-007x", candidates()).count(), 200);
    }
}
