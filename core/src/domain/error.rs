//! Errors of values: the accepted values, and the annotation or field that holds another one.

use super::foreign_text::{quoted, shortened_to};

/// Longest key or path in a message, in characters.
const KEY_MAX: usize = 128;

/// The values that a type accepts. The caller names the invalid value and its place, as clap and
/// [`InvalidValue`] do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ValueError(String);

impl ValueError {
    /// An error that reads `expected <values>`.
    pub(crate) fn expected(values: impl Into<String>) -> Self {
        Self(values.into())
    }

    /// The same for a part of a longer value.
    pub(crate) fn within(self, part: &str) -> Self {
        Self(format!("{} in {}", self.0, quoted(part)))
    }

    /// An error that lists the accepted values, such as `expected vllm or sglang`.
    pub(crate) fn one_of(values: &[&str]) -> Self {
        match values {
            [values @ .., last] if !values.is_empty() => Self(format!("{} or {last}", values.join(", "))),
            values => Self(values.concat()),
        }
    }
}

/// An invalid value, the key of its annotation or the path of its field, and the values that are accepted
/// there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {quoted} for {key}: {expected}")]
pub struct InvalidValue {
    key: String,
    quoted: String,
    expected: ValueError,
}

impl InvalidValue {
    /// Quotes the value and cuts it to 64 characters.
    pub(crate) fn new(key: impl Into<String>, value: &str, expected: ValueError) -> Self {
        Self { key: shortened_to(KEY_MAX, &key.into()), quoted: quoted(value), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&["a"], "expected a")]
    #[case(&["a", "b"], "expected a or b")]
    #[case(&["a", "b", "c"], "expected a, b or c")]
    fn lists_accepted_values(#[case] values: &[&str], #[case] text: &str) {
        assert_eq!(ValueError::one_of(values).to_string(), text);
    }

    #[test]
    fn quotes_and_cuts_the_value() {
        let error = |value: &str| InvalidValue::new("a/b", value, ValueError::expected("c")).to_string();
        assert_eq!(error("x\n"), r#"invalid value "x\n" for a/b: expected c"#);
        assert_eq!(
            error(&"é".repeat(64)),
            format!("invalid value \"{}\" for a/b: expected c", "é".repeat(64))
        );
        assert_eq!(
            error(&"é".repeat(65)),
            format!("invalid value \"{}...\" for a/b: expected c", "é".repeat(64))
        );
    }
}
