//! Suggestions for mistyped names.

/// The candidate that takes the fewest edits to reach, if it is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(typed, candidate), candidate))
        .min()
        .filter(|(edits, candidate)| *edits <= candidate.len().max(3) / 2)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, &above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
            diagonal = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
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
    fn finds_what_was_meant(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(typed, ["min-replicas", "max-replicas", "signals", "paused"]), expected);
    }

    #[rstest]
    #[case("", "abc", 3)]
    #[case("kitten", "sitting", 3)]
    #[case("abc", "abc", 0)]
    fn counts_edits(#[case] a: &str, #[case] b: &str, #[case] edits: usize) {
        assert_eq!(distance(a, b), edits);
    }
}
