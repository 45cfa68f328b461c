//! Label matchers that select the series of one cluster in a store of several.

use std::collections::BTreeMap;

use super::ValueError;

/// Labels that the queries match themselves; a second matcher of one of them would select nothing.
const MATCHED: [&str; 10] = [
    "namespace",
    "pod",
    "service",
    "job",
    "instance",
    "model",
    "model_server",
    "token_type",
    "modelserving_volcano_sh_name",
    "modelserving_volcano_sh_group_name",
];

/// Labels and the values that every selected series has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeriesMatchers(BTreeMap<String, String>);

impl SeriesMatchers {
    /// Most matchers.
    pub const MAX: usize = 8;
    /// Most characters of a value.
    pub const VALUE_MAX: usize = 256;

    /// Checks a label name of Prometheus' data model.
    ///
    /// # Errors
    /// For other names, for names that begin with `__`, and for labels that the queries match themselves.
    pub fn check_name(name: &str) -> Result<(), ValueError> {
        let mut chars = name.chars();
        let is_name = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && chars.all(|next| next.is_ascii_alphanumeric() || next == '_')
            && name.len() <= Self::VALUE_MAX;
        if !is_name || name.starts_with("__") {
            return Err(ValueError::expected(
                "a label name such as cluster, of letters, digits and '_', without a leading \"__\"",
            ));
        }
        if MATCHED.contains(&name) {
            return Err(ValueError::expected("a label that the queries do not match themselves"));
        }
        Ok(())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// If it is empty, longer than [`Self::VALUE_MAX`] or has control characters.
    pub fn check_value(value: &str) -> Result<(), ValueError> {
        let length = value.chars().count();
        if length == 0 || length > Self::VALUE_MAX || value.chars().any(char::is_control) {
            return Err(ValueError::expected(format!(
                "a value of 1 to {} characters without control characters",
                Self::VALUE_MAX
            )));
        }
        Ok(())
    }

    /// The labels that [`Self::check_name`] rejects although they are label names.
    pub const fn matched_labels() -> &'static [&'static str] {
        &MATCHED
    }

    /// Label names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for SeriesMatchers {
    /// Collects checked names and values.
    fn from_iter<T: IntoIterator<Item = (String, String)>>(matchers: T) -> Self {
        Self(matchers.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("cluster", true)]
    #[case("_c1", true)]
    #[case("", false)]
    #[case("1c", false)]
    #[case("k8s.cluster", false)]
    #[case("__name__", false)]
    #[case("__tenant", false)]
    #[case("namespace", false)]
    #[case("model", false)]
    fn checks_names(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(SeriesMatchers::check_name(name).is_ok(), valid);
    }

    #[rstest]
    #[case("eu-1", true)]
    #[case(r#"a"b\c"#, true)]
    #[case("", false)]
    #[case("a\nb", false)]
    fn checks_values(#[case] value: &str, #[case] valid: bool) {
        assert_eq!(SeriesMatchers::check_value(value).is_ok(), valid);
        assert!(SeriesMatchers::check_value(&"x".repeat(SeriesMatchers::VALUE_MAX + 1)).is_err());
    }
}
