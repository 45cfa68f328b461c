//! Model names: the value of the annotation `kthena.io/model-name`.

use std::{collections::HashSet, str::FromStr};

use super::ValueError;

/// Maximum length of a model name, in bytes.
pub const MODEL_NAME_MAX: usize = 256;
/// Maximum number of different model names of one ModelServing.
const MODEL_NAMES_MAX: usize = 16;
/// Maximum number of model names with repetitions; the chart's admission policy looks at as many.
const PARTS_MAX: usize = 64;

/// A name that clients send to kthena-router: 1 to 256 bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

impl FromStr for ModelName {
    type Err = ValueError;

    fn from_str(name: &str) -> Result<Self, ValueError> {
        if name.is_empty() {
            return Err(ValueError::expected(format!(
                "1 to {MODEL_NAMES_MAX} model names separated by commas, but a name is empty"
            )));
        }
        if name.len() > MODEL_NAME_MAX {
            return Err(ValueError::expected(format!("model names of at most {MODEL_NAME_MAX} bytes")));
        }
        if name.chars().any(char::is_control) {
            return Err(ValueError::expected("no control characters"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl ModelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 1 to 16 different model names, in the order of the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelNames(Vec<ModelName>);

impl FromStr for ModelNames {
    type Err = ValueError;

    /// Splits at commas, trims spaces around each name and drops repetitions.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut names = Vec::new();
        for (i, part) in text.split(',').enumerate() {
            if i == PARTS_MAX {
                return Err(too_many());
            }
            let name: ModelName = part.trim_matches(' ').parse()?;
            if names.contains(&name) {
                continue;
            }
            if names.len() == MODEL_NAMES_MAX {
                return Err(too_many());
            }
            names.push(name);
        }
        Ok(Self(names))
    }
}

fn too_many() -> ValueError {
    ValueError::expected(format!("at most {MODEL_NAMES_MAX} model names"))
}

/// The first 16 different names of the annotation that have 1 to 256 bytes, valid or not: those by which other
/// objects are related to a ModelServing.
pub(crate) fn distinct_names(text: &str) -> Vec<&str> {
    let parts = text.split(',').take(PARTS_MAX).map(|part| part.trim_matches(' '));
    let mut names = Vec::new();
    for name in parts.filter(|name| (1..=MODEL_NAME_MAX).contains(&name.len())) {
        if names.len() < MODEL_NAMES_MAX && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl ModelNames {
    /// The names as text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(ModelName::as_str)
    }

    /// The valid ones of these names, in order and without repetitions; the maximum of 16 does not apply.
    /// `None` if there is none.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut valid: Vec<ModelName> = Vec::new();
        let mut known: HashSet<ModelName> = HashSet::new();
        for name in names.into_iter().filter_map(|name| name.parse::<ModelName>().ok()) {
            if known.insert(name.clone()) {
                valid.push(name);
            }
        }
        (!valid.is_empty()).then_some(Self(valid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("llama", &["llama"])]
    #[case("llama, sql-adapter ,llama", &["llama", "sql-adapter"])]
    #[case("org/Model 7B", &["org/Model 7B"])]
    fn reads_model_names(#[case] text: &str, #[case] names: &[&str]) {
        assert_eq!(text.parse::<ModelNames>().unwrap().iter().collect::<Vec<_>>(), names);
    }

    #[rstest]
    #[case("", "a name is empty")]
    #[case("a,,b", "a name is empty")]
    #[case("a\nb", "no control characters")]
    #[case(&"x".repeat(257), "at most 256 bytes")]
    #[case("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "at most 16 model names")]
    #[case(&"a,".repeat(64), "at most 16 model names")]
    #[case(&format!("{}{}", "a,".repeat(64), (0..63_500).map(|i| i.to_string()).collect::<Vec<_>>().join(",")), "at most 16 model names")]
    fn rejects_model_names(#[case] text: &str, #[case] expected: &str) {
        let error = text.parse::<ModelNames>().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn keeps_a_bounded_number_of_names_of_a_huge_annotation() {
        let many = (0..63_500).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(distinct_names(&many).len(), MODEL_NAMES_MAX);
        assert_eq!(distinct_names(&format!("{}{many}", "a,".repeat(64))), ["a"]);
        assert_eq!(distinct_names(&format!("a,,a, b ,{}", "x".repeat(257))), ["a", "b"]);
    }
}
