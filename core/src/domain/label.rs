//! Labels and names in the forms that Kubernetes accepts.

use std::str::FromStr;

use super::ValueError;

/// A key and a value that the API server accepts as a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// Checks the key and the value.
    ///
    /// # Errors
    /// If the API server would reject one of them.
    pub fn new(key: &str, value: &str) -> Result<Self, ValueError> {
        Self::check_key(key)?;
        Self::check_value(value)?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }

    pub(crate) fn check_key(key: &str) -> Result<(), ValueError> {
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if is_part(name, "-_.") && prefix.is_none_or(is_dns) {
            return Ok(());
        }
        Err(ValueError::expected("a label key such as release or example.com/team"))
    }

    pub(crate) fn check_value(value: &str) -> Result<(), ValueError> {
        if value.is_empty() || is_part(value, "-_.") {
            return Ok(());
        }
        Err(ValueError::expected("a label value of at most 63 letters, digits, '-', '_' and '.'"))
    }

    /// Key and value, as an entry of a map of labels.
    pub fn into_pair(self) -> (String, String) {
        (self.key, self.value)
    }
}

impl FromStr for Label {
    type Err = ValueError;

    /// Parses `key=value`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text.split_once('=').ok_or_else(|| ValueError::expected("a label KEY=VALUE"))?;
        Self::new(key, value)
    }
}

/// Name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if is_dns_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::expected("the name of a namespace, such as kthena-system"))
    }
}

impl Namespace {
    /// The name as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Name of an object, in the form that most kinds accept: a DNS subdomain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName(String);

impl FromStr for ObjectName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if is_dns(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::expected("the name of an object, a lower-case DNS name such as kthena-keda"))
    }
}

impl ObjectName {
    /// The name as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn is_dns(prefix: &str) -> bool {
    prefix.len() <= 253
        && prefix.split('.').all(|part| is_word(part, "-") && !part.contains(char::is_uppercase))
}

fn is_dns_label(text: &str) -> bool {
    is_part(text, "-") && text == text.to_lowercase()
}

/// Letters and digits, with `inner` allowed between them; at most 63.
fn is_part(text: &str, inner: &str) -> bool {
    text.len() <= 63 && is_word(text, inner)
}

fn is_word(text: &str, inner: &str) -> bool {
    text.starts_with(is_edge)
        && text.ends_with(is_edge)
        && text.chars().all(|c| is_edge(c) || inner.contains(c))
}

const fn is_edge(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("kthena-system", true)]
    #[case("Kthena", false)]
    #[case("a.b", false)]
    #[case("", false)]
    fn reads_namespaces(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<Namespace>().is_ok(), valid);
    }

    #[rstest]
    #[case("release=kube-prometheus-stack", None)]
    #[case("example.com/team=a", None)]
    #[case("team=", None)]
    #[case("release", Some("KEY=VALUE"))]
    #[case("=x", Some("label key"))]
    #[case("Example.com/team=a", Some("label key"))]
    #[case("team=a b", Some("label value"))]
    fn reads_labels(#[case] text: &str, #[case] error: Option<&str>) {
        match (text.parse::<Label>(), error) {
            (Ok(_), None) => {}
            (Err(found), Some(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }
}
