//! Suggestions for mistyped names.

/// The candidate with the smallest edit distance, if it is similar enough: at most half of its bytes have to
/// change.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(typed, candidate), candidate))
        .min()
        .filter(|(edits, candidate)| *edits <= candidate.len().max(3) / 2)
        .map(|(_, candidate)| candidate)
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
}
