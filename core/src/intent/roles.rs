//! Roles that are scaled instead of ServingGroups, each by its own signals.

use super::profile::SignalTarget;
use crate::domain::{ReplicaBounds, RoleRatio, Signal, ValueError, nearest, quoted};

/// Roles of a ServingGroup, as in Kthena's CRD.
const ROLES_MAX: usize = 4;
/// Longest name of a role, in bytes, as in Kthena's CRD.
const NAME_MAX: usize = 12;
/// Signals of one role.
const SIGNALS_MAX: usize = 8;

/// Name in place of a role, with the bounds of the ratio of both roles.
pub(super) const RATIO: &str = "ratio";

/// Roles that are scaled, at least one, each under its own name.
#[derive(Clone, Debug, PartialEq)]
pub struct Roles {
    roles: Vec<RoleTarget>,
    /// Bounds of the number of the first role per instance of the second; only with two roles.
    ratio: Option<RoleRatio>,
}

/// Settings of one role.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleTarget {
    /// Name of the role in the ModelServing.
    pub name: String,
    /// Built-in signals, each with the amount that one instance carries; at least one.
    pub signals: Vec<SignalTarget>,
    /// Bounds of the number of instances in each ServingGroup; the minimum is at least 1.
    pub bounds: ReplicaBounds,
}

impl Roles {
    /// The roles, if their names differ and the ratio is of two roles.
    ///
    /// # Errors
    /// If one is repeated, there are none or too many, or the ratio is of another number of roles.
    pub(super) fn new(roles: Vec<RoleTarget>, ratio: Option<RoleRatio>) -> Result<Self, ValueError> {
        if !(1..=ROLES_MAX).contains(&roles.len()) {
            return Err(ValueError::expected(format!("1 to {ROLES_MAX} roles")));
        }
        for (i, role) in roles.iter().enumerate() {
            if roles.iter().take(i).any(|before| before.name == role.name) {
                let name = quoted(&role.name);
                return Err(ValueError::expected(format!("each role once, but {name} is repeated")));
            }
        }
        if ratio.is_some() && roles.len() != 2 {
            return Err(ValueError::expected("two roles beside a ratio"));
        }
        Ok(Self { roles, ratio })
    }

    /// Parses the value of the annotation, such as `prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 min=1 max=16`.
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let (mut roles, mut ratio) = (Vec::new(), None);
        for (i, entry) in text.split(';').enumerate() {
            if i > ROLES_MAX {
                return Err(ValueError::expected(format!("1 to {ROLES_MAX} roles")));
            }
            let Some((name, settings)) = entry.split_once(':') else { return Err(entry_expected(entry)) };
            let name = name.trim();
            let settings = read_settings(settings).map_err(|error| error.within(entry.trim()))?;
            if name == RATIO {
                if ratio.is_some() {
                    return Err(ValueError::expected("at most one ratio"));
                }
                ratio = Some(settings.ratio().map_err(|error| error.within(entry.trim()))?);
                continue;
            }
            check_name(name)?;
            roles.push(settings.role(name).map_err(|error| error.within(entry.trim()))?);
        }
        Self::new(roles, ratio)
    }

    /// Each role, in the order in which the user wrote them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &RoleTarget> {
        self.roles.iter()
    }

    /// The settings of a role.
    pub fn get(&self, name: &str) -> Option<&RoleTarget> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The numbers of all roles in their order, within their bounds and the ratio.
    pub fn within_bounds(&self, wanted: &[i32]) -> Vec<i32> {
        let clamped = self.roles.iter().zip(wanted);
        let clamped: Vec<i32> =
            clamped.map(|(role, wanted)| (*wanted).clamp(role.bounds.min(), role.bounds.max())).collect();
        match (self.ratio, self.roles.as_slice(), clamped.as_slice()) {
            (Some(ratio), [a, b], [first, second]) => {
                let bounds = [a, b].map(|role| (role.bounds.min(), role.bounds.max()));
                let (first, second) = ratio.within((*first, *second), bounds);
                vec![first, second]
            }
            _ => clamped,
        }
    }
}

/// Checks the name of a role.
///
/// # Errors
/// If Kthena would reject it, or it is reserved.
pub(super) fn check_name(name: &str) -> Result<(), ValueError> {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_name = name.len() <= NAME_MAX
        && name.starts_with(is_edge)
        && name.ends_with(is_edge)
        && name.chars().all(|c| is_edge(c) || c == '-');
    if !is_name || name == RATIO {
        return Err(ValueError::expected(format!(
            "the name of a role of at most {NAME_MAX} letters, digits and '-', other than {RATIO}, but found {}",
            quoted(name)
        )));
    }
    Ok(())
}

/// The target of a built-in signal by its name.
///
/// # Errors
/// If the signal is unknown or a custom one, whose query is not of one role; or its target is invalid.
pub(super) fn signal(name: &str, target: &str) -> Result<SignalTarget, ValueError> {
    let Some(signal) = Signal::from_name(name) else {
        let names: Vec<&str> = Signal::all().map(Signal::name).collect();
        let remedy = match nearest(name, names.iter().copied()) {
            Some(similar) => format!("the most similar one is {similar}"),
            None => format!("the signals are {}", names.join(", ")),
        };
        return Err(ValueError::expected(format!(
            "built-in signals, because others are not of one role, but found {}; {remedy}",
            quoted(name)
        )));
    };
    SignalTarget::built_in(signal, target)
}

/// The bounds of a role.
///
/// # Errors
/// If the minimum is below 1 or above the maximum.
pub(super) fn bounds(min: i32, max: i32) -> Result<ReplicaBounds, ValueError> {
    let error = || ValueError::expected("min and max with 1 <= min <= max; a role cannot scale to 0");
    ReplicaBounds::new(min, max).filter(|bounds| bounds.min() >= 1).ok_or_else(error)
}

/// The signals of a role.
///
/// # Errors
/// If there are none or too many, or one is repeated.
pub(super) fn signals(signals: Vec<SignalTarget>) -> Result<Vec<SignalTarget>, ValueError> {
    if !(1..=SIGNALS_MAX).contains(&signals.len()) {
        return Err(ValueError::expected(format!("1 to {SIGNALS_MAX} signals, such as kv-cache=0.8")));
    }
    for (i, signal) in signals.iter().enumerate() {
        if signals.iter().take(i).any(|before| before.source.name() == signal.source.name()) {
            return Err(ValueError::expected("each signal once"));
        }
    }
    Ok(signals)
}

fn entry_expected(entry: &str) -> ValueError {
    ValueError::expected(r#"roles such as "prefill: ttft-p90=2s min=1 max=8", separated by semicolons"#)
        .within(entry.trim())
}

/// The words of one entry.
#[derive(Default)]
struct Settings<'a> {
    min: Option<&'a str>,
    max: Option<&'a str>,
    signals: Vec<(&'a str, &'a str)>,
}

fn read_settings(text: &str) -> Result<Settings<'_>, ValueError> {
    let mut settings = Settings::default();
    for word in text.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else {
            return Err(ValueError::expected("name=value pairs separated by spaces"));
        };
        let repeated = match key {
            "min" => settings.min.replace(value).is_some(),
            "max" => settings.max.replace(value).is_some(),
            _ => {
                settings.signals.push((key, value));
                settings.signals.len() > SIGNALS_MAX
            }
        };
        if repeated {
            let message = format!("min and max once, and at most {SIGNALS_MAX} signals");
            return Err(ValueError::expected(message));
        }
    }
    Ok(settings)
}

impl Settings<'_> {
    fn ratio(self) -> Result<RoleRatio, ValueError> {
        if !self.signals.is_empty() || (self.min.is_none() && self.max.is_none()) {
            return Err(ValueError::expected("min and max of the ratio, such as ratio: min=0.25 max=1"));
        }
        RoleRatio::new(self.min, self.max)
    }

    fn role(self, name: &str) -> Result<RoleTarget, ValueError> {
        let number = |text: &str| {
            let number = text.parse::<i32>().ok().filter(|number| *number >= 0 && !text.starts_with('+'));
            number.ok_or_else(|| ValueError::expected("an integer as min and as max"))
        };
        let min = self.min.map_or(Ok(1), number)?;
        let max = self.max.ok_or_else(|| ValueError::expected("a maximum such as max=8")).and_then(number)?;
        let read: Result<Vec<SignalTarget>, ValueError> =
            self.signals.into_iter().map(|(name, target)| signal(name, target)).collect();
        Ok(RoleTarget { name: name.to_owned(), signals: signals(read?)?, bounds: bounds(min, max)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const BOTH: &str =
        "prefill: ttft-p90=2s min=1 max=8; decode: kv-cache=0.8 engine-queue=5 max=16; ratio: min=0.25 max=1";

    #[test]
    fn reads_roles_their_bounds_and_the_ratio() {
        let roles = Roles::parse(BOTH).unwrap();
        let read: Vec<_> =
            roles.iter().map(|role| (role.name.as_str(), role.signals.len(), role.bounds)).collect();
        let bounds = |min, max| ReplicaBounds::new(min, max).unwrap();
        assert_eq!(read, [("prefill", 1, bounds(1, 8)), ("decode", 2, bounds(1, 16))]);
        assert_eq!(roles.within_bounds(&[0, 40]), [4, 16]);
    }

    #[rstest]
    #[case("", "expected roles such as")]
    #[case("prefill", "expected roles such as")]
    #[case("prefill: ttft-p90=2s max=8;", "expected roles such as")]
    #[case("prefill: ttft-p90=2s", r#"expected a maximum such as max=8 in "prefill: ttft-p90=2s""#)]
    #[case("prefill: max=8", "expected 1 to 8 signals")]
    #[case("prefill: kv-cache=0.8 min=0 max=8", "a role cannot scale to 0")]
    #[case("prefill: kv-cache=0.8 min=9 max=8", "1 <= min <= max")]
    #[case("prefill: kv-cache=0.8 max=+8", "expected an integer")]
    #[case("prefill: kv-cache=0.8 max=8 max=9", "expected min and max once")]
    #[case("prefill: kv-cache=0.8 kv-cache=0.7 max=9", "expected each signal once")]
    #[case("prefill: kv-cash=0.8 max=9", "the most similar one is kv-cache")]
    #[case("prefill: kv-cache max=9", "expected name=value pairs")]
    #[case("prefill: ttft-p90=2 max=9", "expected a duration such as 2s")]
    #[case("pre fill: kv-cache=1 max=9", r#"but found "pre fill""#)]
    #[case("thirteen-long: kv-cache=1 max=9", "at most 12 letters")]
    #[case("a: kv-cache=1 max=9; a: kv-cache=1 max=9", r#"but "a" is repeated"#)]
    #[case("a: kv-cache=1 max=9; ratio: min=1", "expected two roles beside a ratio")]
    #[case("a: kv-cache=1 max=9; b: kv-cache=1 max=9; ratio: min=2 max=1", "not above the greatest")]
    #[case("a: kv-cache=1 max=9; b: kv-cache=1 max=9; ratio:", "expected min and max of the ratio")]
    #[case("a: kv-cache=1 max=9; b: kv-cache=1 max=9; ratio: min=1; ratio: min=1", "at most one ratio")]
    fn rejects_roles(#[case] text: &str, #[case] error: &str) {
        let found = Roles::parse(text).unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }

    #[test]
    fn stops_at_the_limit_of_roles() {
        let many = "a: kv-cache=1 max=9;".repeat(500);
        assert_eq!(Roles::parse(&many).unwrap_err().to_string(), "expected 1 to 4 roles");
    }
}
