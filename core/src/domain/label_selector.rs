//! Label selectors as kubectl takes them.

use std::{fmt, str::FromStr};

use super::{Label, ValueError};

/// A selector that the API server accepts and that selects not everything, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector(String);

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabelSelector {
    type Err = ValueError;

    /// Its grammar is that of Kubernetes' `apimachinery/pkg/labels/selector.go`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        requirements(text).into_iter().try_for_each(check).map_err(|error| {
            ValueError::new(format!("{error}; write a label selector as kubectl takes it, such as shard=a or 'team in (a, b),!beta'"))
        })?;
        Ok(Self(text.to_owned()))
    }
}

/// The parts between the commas that stand outside of parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .collect()
}

fn check(requirement: &str) -> Result<(), ValueError> {
    let requirement = requirement.trim();
    if let Some(key) = requirement.strip_prefix('!') {
        return label(key, "");
    }
    if let Some((key, values)) = requirement.strip_suffix(')').and_then(|set| set.split_once('(')) {
        let key = key.trim();
        let Some(key) = key.strip_suffix(" notin").or_else(|| key.strip_suffix(" in")) else {
            return Err(ValueError::new(format!("{requirement:?} needs in or notin before its parenthesis")));
        };
        return values.split(',').try_for_each(|value| label(key, value));
    }
    match requirement.split_once('=') {
        Some((key, value)) => {
            label(key.strip_suffix('!').unwrap_or(key), value.strip_prefix('=').unwrap_or(value))
        }
        None => label(requirement, ""),
    }
}

fn label(key: &str, value: &str) -> Result<(), ValueError> {
    Label::new(key.trim(), value.trim()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    fn what_kubectl_takes_is_accepted(
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
    fn what_the_api_server_would_refuse_is_said(
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
        assert!(error.contains("write a label selector"), "{error}");
    }
}
