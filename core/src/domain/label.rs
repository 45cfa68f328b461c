//! Labels and names as Kubernetes accepts them.

use std::str::FromStr;

use super::ValueError;

/// A key and a value that the API server accepts as a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// `ProbeCache` both.
    ///
    /// # Errors
    /// When the API server would refuse one of them; names it and says what is accepted.
    pub fn new(key: &str, value: &str) -> Result<Self, ValueError> {
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        if !is_part(name, "-_.") || !prefix.is_none_or(is_dns) {
            return Err(ValueError::new(format!(
                "{key:?} cannot be the key of a label; write one such as release or example.com/team"
            )));
        }
        if !value.is_empty() && !is_part(value, "-_.") {
            return Err(ValueError::new(format!(
                "{value:?} cannot be the value of a label; up to 63 letters, digits, '-', '_' and '.' are accepted"
            )));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }

    /// The two, as maps of labels hold them.
    pub fn into_pair(self) -> (String, String) {
        (self.key, self.value)
    }
}

impl FromStr for Label {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| ValueError::new(format!("{text:?} is no label; write key=value")))?;
        Self::new(key, value)
    }
}

/// The name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if is_dns_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!(
            "{text:?} cannot be the name of a namespace; write one such as kthena-system"
        )))
    }
}

impl Namespace {
    /// The name as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// The name of an object, as most kinds accept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName(String);

impl FromStr for ObjectName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if is_dns(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!(
            "{text:?} cannot be the name of an object; write a lower-case DNS name such as kthena-keda"
        )))
    }
}

impl ObjectName {
    /// The name as text.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn is_dns(prefix: &str) -> bool {
    prefix.len() <= 253 && prefix.split('.').all(is_dns_label)
}

fn is_dns_label(text: &str) -> bool {
    is_part(text, "-") && text == text.to_lowercase()
}

/// Letters and digits, with `inner` allowed between them.
fn is_part(text: &str, inner: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || inner.contains(c))
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
    fn reads_namespaces(#[case] text: &str, #[case] good: bool) {
        assert_eq!(text.parse::<Namespace>().is_ok(), good);
    }

    #[rstest]
    #[case("release=kube-prometheus-stack", None)]
    #[case("example.com/team=a", None)]
    #[case("team=", None)]
    #[case("release", Some("no label"))]
    #[case("=x", Some("key"))]
    #[case("Example.com/team=a", Some("key"))]
    #[case("team=a b", Some("value"))]
    fn reads_labels(#[case] text: &str, #[case] error: Option<&str>) {
        match (text.parse::<Label>(), error) {
            (Ok(_), None) => {}
            (Err(found), Some(why)) => assert!(found.to_string().contains(why), "{found}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }
}
