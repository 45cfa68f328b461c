//! Newtypes: a value of one of these is valid, so that whoever builds objects from them cannot fail.

use std::{fmt, str::FromStr};

/// What is wrong with a value, in words that say what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The longest model name, in bytes.
const MODEL_NAME_MAX: usize = 256;
/// The most model names on one ModelServing.
const MODEL_NAMES_MAX: usize = 16;

/// A name that clients send to kthena-router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

impl FromStr for ModelName {
    type Err = ValueError;

    fn from_str(name: &str) -> Result<Self, ValueError> {
        if name.is_empty() {
            return Err(ValueError::new(
                "a model name is empty; write one name, or several separated by commas",
            ));
        }
        if name.len() > MODEL_NAME_MAX {
            return Err(ValueError::new(format!(
                "a model name has {} bytes; at most {MODEL_NAME_MAX} are accepted",
                name.len()
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(ValueError::new(format!(
                "the model name {name:?} has a control character; remove it"
            )));
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

/// One or more different model names, in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelNames(Vec<ModelName>);

impl FromStr for ModelNames {
    type Err = ValueError;

    /// Reads names separated by commas; blanks around a name are dropped, and so are repetitions.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut names = Vec::new();
        for part in text.split(',') {
            let name: ModelName = part.trim_matches(' ').parse()?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.len() > MODEL_NAMES_MAX {
            return Err(ValueError::new(format!(
                "{} model names; at most {MODEL_NAMES_MAX} are accepted",
                names.len()
            )));
        }
        Ok(Self(names))
    }
}

impl ModelNames {
    /// The names as text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(ModelName::as_str)
    }

    /// These names and further ones; those that are no model names are left out.
    #[must_use]
    pub fn with<'a>(&self, more: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = self.0.clone();
        for name in more.into_iter().filter_map(|name| name.parse::<ModelName>().ok()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Self(names)
    }
}

/// How much of a signal one ServingGroup is expected to carry, in thousandths.
///
/// KEDA and the HPA carry thresholds as milli-quantities: anything finer would be rounded on the way, and 0 is refused by the HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(u64);

impl Target {
    const MAX: u64 = 1_000_000_000;

    /// A whole target.
    pub(crate) const fn of(whole: u32) -> Self {
        Self(whole as u64 * 1000)
    }

    /// A target that is no whole number.
    pub(crate) const fn thousandths(thousandths: u32) -> Self {
        Self(thousandths as u64)
    }

    /// Twice as much.
    #[must_use]
    pub(crate) const fn doubled(self) -> Self {
        Self(self.0 * 2)
    }
}

impl FromStr for Target {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match thousandths(text) {
            Some(milli) if milli > 0 && milli <= Self::MAX * 1000 => Ok(Self(milli)),
            _ => Err(ValueError::new(format!(
                "{text:?} is no target; write a number from 0.001 to {}, with at most three decimals",
                Self::MAX
            ))),
        }
    }
}

/// Reads a decimal number with at most three decimals and no sign.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(thousandths)
}

fn write_thousandths(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    let (whole, thousandths) = (number / 1000, number % 1000);
    if thousandths == 0 {
        return write!(f, "{whole}");
    }
    let fraction = format!("{thousandths:03}");
    write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

/// How much demand wakes a model that sleeps: anything above this, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activation(u64);

impl FromStr for Activation {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match thousandths(text) {
            Some(milli) if milli < Target::MAX * 1000 => Ok(Self(milli)),
            _ => Err(ValueError::new(format!(
                "{text:?} is no activation; write a number from 0 to below {}, with at most three decimals",
                Target::MAX
            ))),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_thousandths(f, self.0)
    }
}

/// How many ServingGroups there may be: `min` ≤ `max`, and `max` at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaBounds {
    min: i32,
    max: i32,
}

impl ReplicaBounds {
    /// The built-in bounds: never to zero unasked, never more than ten groups of GPUs unasked.
    pub(crate) const DEFAULT: Self = Self { min: 1, max: 10 };

    /// `ProbeCache` the two against each other.
    ///
    /// # Errors
    /// When no number of ServingGroups would satisfy both.
    pub fn new(min: i32, max: i32) -> Result<Self, ValueError> {
        if min < 0 || max < 1 {
            return Err(ValueError::new(format!(
                "replicas {min} to {max}; min must be at least 0 and max at least 1"
            )));
        }
        if min > max {
            return Err(ValueError::new(format!(
                "min-replicas {min} is greater than max-replicas {max}; raise max or lower min"
            )));
        }
        Ok(Self { min, max })
    }

    /// The fewest ServingGroups.
    pub const fn min(self) -> i32 {
        self.min
    }

    /// The most ServingGroups.
    pub const fn max(self) -> i32 {
        self.max
    }
}

/// The base address of the Prometheus that KEDA asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrometheusUrl(String);

impl FromStr for PrometheusUrl {
    type Err = ValueError;

    fn from_str(url: &str) -> Result<Self, ValueError> {
        let refuse = |why: &str| {
            Err(ValueError::new(format!(
                "{url:?} is no Prometheus address: {why}; write one such as http://prometheus-operated.monitoring.svc:9090"
            )))
        };
        let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
            return refuse("it must start with http:// or https://");
        };
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() || authority.starts_with(':') {
            return refuse("the host is missing");
        }
        if authority.contains('@') {
            return refuse("it must not carry credentials");
        }
        if url.ends_with('/') {
            return refuse("KEDA appends the path itself, so it must not end in a slash");
        }
        if url.contains(['?', '#']) || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("it must have no query, fragment or blank");
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Display for PrometheusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Durations as people write them.
pub(crate) struct Seconds;

impl Seconds {
    /// Reads whole seconds, minutes or hours, such as `15s`, `10m` or `1h`; answers seconds.
    pub(crate) fn read(text: &str, least: i32, most: i32) -> Result<i32, ValueError> {
        let units = [('s', 1), ('m', 60), ('h', 3600)];
        let split = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
        let seconds = split.and_then(|(number, seconds)| {
            let number = number.parse::<u16>().ok().filter(|_| !number.starts_with('+'))?;
            i32::from(number).checked_mul(seconds)
        });
        match seconds {
            Some(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
            Some(_) => Err(ValueError::new(format!("{text:?} is out of range; write {least}s to {most}s"))),
            None => Err(ValueError::new(format!(
                "{text:?} is no duration; write a number with its unit, such as 15s, 10m or 1h"
            ))),
        }
    }
}

/// How often Prometheus scrapes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeInterval(i32);

impl ScrapeInterval {
    pub(crate) const DEFAULT: Self = Self(15);
    /// Rates look back two minutes: with fewer than four scrapes in that, one that is lost would leave a gap.
    const MAX: i32 = 30;
}

impl FromStr for ScrapeInterval {
    type Err = ValueError;

    /// Reads a duration such as `15s`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Seconds::read(text, 1, Self::MAX).map(Self)
    }
}

impl fmt::Display for ScrapeInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// What autoscaling must not do for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// `LenientVisitor` at all.
    All,
    /// Fewer ServingGroups.
    ScaleIn,
    /// More ServingGroups.
    ScaleOut,
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
    #[case("", "empty")]
    #[case("a,,b", "empty")]
    #[case("a\nb", "control character")]
    #[case(&"x".repeat(257), "257 bytes")]
    #[case("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "17 model names")]
    fn refuses_model_names(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<ModelNames>().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[rstest]
    #[case("12", "12")]
    #[case("0.8", "0.8")]
    #[case("0.001", "0.001")]
    #[case("1000000000", "1000000000")]
    #[case("007.50", "7.5")]
    fn reads_targets(#[case] text: &str, #[case] canonical: &str) {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), canonical);
    }

    #[rstest]
    fn refuses_targets(
        #[values(
            "",
            "0",
            "0.000",
            "-1",
            "+1",
            "1e3",
            "NaN",
            "inf",
            "0.0001",
            "1000000001",
            ".5",
            "5.",
            "99999999999999999999"
        )]
        text: &str,
    ) {
        assert!(text.parse::<Target>().is_err());
    }

    #[rstest]
    #[case("http://prometheus:9090", true)]
    #[case("https://mimir.example/prometheus", true)]
    #[case("prometheus:9090", false)]
    #[case("http://", false)]
    #[case("http://:9090", false)]
    #[case("http://prometheus:9090/", false)]
    #[case("http://prometheus:9090/?x=1", false)]
    #[case("http://user:secret@prometheus:9090", false)]
    #[case("http://prome theus", false)]
    fn checks_prometheus_urls(#[case] url: &str, #[case] good: bool) {
        assert_eq!(url.parse::<PrometheusUrl>().is_ok(), good);
    }

    #[rstest]
    #[case("15s", Some("15s"))]
    #[case("30s", Some("30s"))]
    #[case("0s", None)]
    #[case("1m", None)]
    #[case("15", None)]
    #[case("-5s", None)]
    #[case("99999999999s", None)]
    fn reads_scrape_intervals(#[case] text: &str, #[case] read: Option<&str>) {
        assert_eq!(text.parse::<ScrapeInterval>().ok().map(|interval| interval.to_string()).as_deref(), read);
    }

    #[rstest]
    #[case(0, 1, true)]
    #[case(3, 3, true)]
    #[case(4, 3, false)]
    #[case(0, 0, false)]
    #[case(-1, 3, false)]
    fn checks_bounds(#[case] min: i32, #[case] max: i32, #[case] good: bool) {
        assert_eq!(ReplicaBounds::new(min, max).is_ok(), good);
    }
}
