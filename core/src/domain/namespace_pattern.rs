//! Patterns of namespaces, such as `team-a` or `team-b-*`.

use std::str::FromStr;

use super::ValueError;

/// Longest name of a namespace, in bytes.
const NAMESPACE_MAX: usize = 63;

/// A name of a namespace in which each `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacePattern(String);

impl FromStr for NamespacePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '*';
        if (1..=NAMESPACE_MAX).contains(&text.len())
            && text.starts_with(is_edge)
            && text.ends_with(is_edge)
            && text.chars().all(|c| is_edge(c) || c == '-')
        {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::expected("the name of a namespace, in which * stands for any characters"))
    }
}

impl NamespacePattern {
    /// `true` if the pattern stands for this namespace.
    pub fn matches(&self, namespace: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return self.0 == namespace };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = namespace.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        inner.is_some_and(|inner| holds_in_order(inner, middle))
    }
}

/// `true` if the text holds the parts between the `*` one after another.
fn holds_in_order(text: &str, parts: &str) -> bool {
    let rest = parts.split('*').try_fold(text, |text, part| text.split_once(part).map(|(_, rest)| rest));
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("team-a", "team-a", true)]
    #[case("team-a", "team-a-x", false)]
    #[case("team-b-*", "team-b-prod", true)]
    #[case("team-b-*", "team-b-", true)]
    #[case("team-b-*", "team-b", false)]
    #[case("team-b-*", "x-team-b-prod", false)]
    #[case("*-prod", "team-a-prod", true)]
    #[case("*-prod", "prod", false)]
    #[case("a*b*c", "axbyc", true)]
    #[case("a*b*c", "abc", true)]
    #[case("a*b*c", "acb", false)]
    #[case("a*a", "a", false)]
    #[case("a**b", "ab", true)]
    #[case("*", "anything", true)]
    fn matches_namespaces(#[case] pattern: &str, #[case] namespace: &str, #[case] matches: bool) {
        assert_eq!(pattern.parse::<NamespacePattern>().unwrap().matches(namespace), matches);
    }

    #[rstest]
    fn rejects_what_matches_no_namespace(
        #[values("", "Team", "a.b", "-a", "a-", "a b", "[ab]", "a?", &"a".repeat(64))] text: &str,
    ) {
        assert!(text.parse::<NamespacePattern>().is_err());
    }
}
