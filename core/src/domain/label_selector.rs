//! Label selectors, in kubectl's syntax.

use std::{fmt, str::FromStr};

use super::{Label, ValueError};

/// A label selector that the API server accepts and that has at least one requirement, as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector(String);

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabelSelector {
    type Err = ValueError;

    /// Follows the grammar of Kubernetes' `apimachinery/pkg/labels/selector.go`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match requirements(text).into_iter().find(|requirement| !is_requirement(requirement.trim())) {
            None => Ok(Self(text.to_owned())),
            Some(invalid) => Err(ValueError::expected(format!(
                "a label selector such as shard=a or 'team in (a, b),!beta', but {:?} is no requirement",
                invalid.trim()
            ))),
        }
    }
}

/// The parts between the commas outside of parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .collect()
}

fn is_requirement(text: &str) -> bool {
    if let Some(key) = text.strip_prefix('!') {
        return is_label(key, "");
    }
    if let Some((key, values)) = text.strip_suffix(')').and_then(|set| set.split_once('(')) {
        let key = key.trim();
        let key = key.strip_suffix(" notin").or_else(|| key.strip_suffix(" in"));
        return key.is_some_and(|key| values.split(',').all(|value| is_label(key, value)));
    }
    match text.split_once('=') {
        Some((key, value)) => {
            is_label(key.strip_suffix('!').unwrap_or(key), value.strip_prefix('=').unwrap_or(value))
        }
        None => is_label(text, ""),
    }
}

fn is_label(key: &str, value: &str) -> bool {
    Label::new(key.trim(), value.trim()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    fn accepts_kubectl_syntax(
        #[values(
            "shard=a",
            "shard==a",
            "shard!=a",
            "shard = a , team",
            "!beta",
            "example.com/team in (a, b),x notin (c)",
            "shard="
        )]
        text: &str,
    ) {
        assert_eq!(text.parse::<LabelSelector>().map(|selector| selector.to_string()), Ok(text.to_owned()));
    }

    #[rstest]
    fn rejects_invalid_selectors(
        #[values(
            "",
            ",",
            "shard=a,",
            "shard=a b",
            "a b",
            "team of (a)",
            "team in (a",
            "shard>a",
            "=a",
            "é=a"
        )]
        text: &str,
    ) {
        let error = text.parse::<LabelSelector>().unwrap_err().to_string();
        assert!(error.contains("a label selector such as"), "{error}");
    }
}
