//! Reads our annotations of a ModelServing.

use std::{collections::BTreeMap, fmt};

use super::profile::{CustomSignal, SignalSource, SignalTarget};
use crate::api::annotations::{MODEL_NAME, PREFIX};
use crate::{
    domain::{ModelNames, Pause, Target, ValueError, nearest},
    signals::{Engine, Signal},
};

/// Every key under [`PREFIX`].
pub const ANNOTATIONS: [&str; 7] =
    ["profile", "min-replicas", "max-replicas", "signals", "paused", "engine", "engine-port"];

/// What is said of a wish that no annotation can grant.
const ROLES: &str = "a single role cannot be scaled: Kthena's scale subresource counts whole ServingGroups and has none for roles; remove the annotation, and see docs/roles.md for what can be done";

/// One annotation that is wrong: which, what it says, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnnotationError {
    key: String,
    problem: String,
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl AnnotationError {
    fn new(key: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { key: key.into(), problem: problem.to_string() }
    }

    /// The same of an annotation of ours, by the part of its key that tells it from the others.
    pub(crate) fn of(name: &str, problem: impl fmt::Display) -> Self {
        Self::new(key(name), problem)
    }
}

/// What the annotations of an opted-in ModelServing say; `None` is what they leave to the profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotations {
    /// The names that clients send to the router.
    pub models: ModelNames,
    /// The profile to use.
    pub profile: Option<String>,
    /// The fewest ServingGroups.
    pub min_replicas: Option<i32>,
    /// The most ServingGroups.
    pub max_replicas: Option<i32>,
    /// What is measured instead of the profile's signals.
    pub signals: Option<Vec<SignalTarget>>,
    /// What is held back.
    pub pause: Option<Pause>,
    /// What the pods run.
    pub engine: Option<Engine>,
    /// The port that it listens on.
    pub engine_port: Option<u16>,
}

impl Annotations {
    /// Reads them all; `None` if the ModelServing is not opted in. Signals may be those of the catalogue and `custom` ones; where these
    /// are not known, names that are in neither are left out.
    ///
    /// # Errors
    /// Every annotation that is wrong, not just the first.
    pub fn read(
        annotations: &BTreeMap<String, String>,
        custom: Option<&[CustomSignal]>,
    ) -> Option<Result<Self, Vec<AnnotationError>>> {
        let models = annotations.get(MODEL_NAME)?;
        let mut reader = Reader { annotations, errors: Vec::new() };
        reader.refuse_unknown_keys();
        let models = reader.keep(MODEL_NAME, models.parse::<ModelNames>());
        let profile = reader.read("profile", profile_name);
        let min_replicas = reader.read("min-replicas", |text| replicas(text, 0));
        let max_replicas = reader.read("max-replicas", |text| replicas(text, 1));
        let signals = reader.read("signals", |text| signals(text, custom));
        let pause = reader.read("paused", pause).flatten();
        let engine = reader.read("engine", engine);
        let engine_port = reader.read("engine-port", port);
        if let (Some(min), Some(max)) = (min_replicas, max_replicas)
            && min > max
        {
            reader.errors.push(AnnotationError::new(
                key("min-replicas"),
                format!(
                    "{min} is greater than {}: {max}; raise the one or lower the other",
                    key("max-replicas")
                ),
            ));
        }
        Some(match models {
            Some(models) if reader.errors.is_empty() => {
                Ok(Self { models, profile, min_replicas, max_replicas, signals, pause, engine, engine_port })
            }
            _ => Err(reader.errors),
        })
    }
}

/// Says which annotation does not fit the profile's bound.
pub(super) fn bounds_error(min: Option<i32>, max: Option<i32>, error: &ValueError) -> AnnotationError {
    let name = match (min, max) {
        (None, Some(_)) => "max-replicas",
        _ => "min-replicas",
    };
    AnnotationError::new(
        key(name),
        format!("{error} (where no annotation gives a bound, the profile's counts)"),
    )
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        let key = key(name);
        let parsed = parse(self.annotations.get(&key)?);
        self.keep(&key, parsed)
    }

    fn keep<T>(&mut self, key: &str, parsed: Result<T, ValueError>) -> Option<T> {
        parsed.map_err(|error| self.errors.push(AnnotationError::new(key, error))).ok()
    }

    fn refuse_unknown_keys(&mut self) {
        for (full, name) in
            self.annotations.keys().filter_map(|full| Some((full, full.strip_prefix(PREFIX)?)))
        {
            if ANNOTATIONS.contains(&name) {
                continue;
            }
            let hint = match nearest(name, ANNOTATIONS) {
                _ if name.contains("role") => ROLES.to_owned(),
                Some(meant) => format!("unknown annotation; did you mean {}?", key(meant)),
                None => format!("unknown annotation; the keys under {PREFIX} are {}", ANNOTATIONS.join(", ")),
            };
            self.errors.push(AnnotationError::new(full, hint));
        }
    }
}

fn profile_name(text: &str) -> Result<String, ValueError> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() <= 253 && text.chars().all(valid) && edge(text.chars().next()) && edge(text.chars().last())
    {
        return Ok(text.to_owned());
    }
    Err(ValueError::new(format!(
        "{text:?} cannot be the name of an AutoscalingProfile; write a lower-case DNS name such as default"
    )))
}

fn replicas(text: &str, least: i32) -> Result<i32, ValueError> {
    text.parse::<i32>().ok().filter(|n| *n >= least && !text.starts_with('+')).ok_or_else(|| {
        ValueError::new(format!(
            "{text:?} is no number of ServingGroups; write an integer of at least {least}"
        ))
    })
}

fn signals(text: &str, custom: Option<&[CustomSignal]>) -> Result<Vec<SignalTarget>, ValueError> {
    let mut signals: Vec<SignalTarget> = Vec::new();
    let mut seen = Vec::new();
    for pair in text.split(',') {
        let Some((name, target)) = pair.split_once('=') else {
            let pair = pair.trim();
            return Err(ValueError::new(format!(
                "{pair:?} is no signal; write name=target pairs separated by commas, such as active-requests=12"
            )));
        };
        let name = name.trim();
        let target = read_target(name, target.trim())?;
        if seen.contains(&name) {
            return Err(ValueError::new(format!("{name} is given twice; keep one")));
        }
        seen.push(name);
        match (measure(name, custom.unwrap_or_default()), custom) {
            (Some(measure), _) => signals.push(SignalTarget { measure, target }),
            (None, Some(custom)) => return Err(unknown_signal(name, custom)),
            (None, None) => {}
        }
    }
    Ok(signals)
}

fn measure(name: &str, custom: &[CustomSignal]) -> Option<SignalSource> {
    let custom = || custom.iter().find(|custom| custom.name == name).cloned().map(SignalSource::Custom);
    Signal::from_name(name).map(SignalSource::BuiltIn).or_else(custom)
}

pub(super) fn read_target(name: &str, target: &str) -> Result<Target, ValueError> {
    target.parse().map_err(|error| ValueError::new(format!("{name}: {error}")))
}

pub(super) fn unknown_signal(name: &str, custom: &[CustomSignal]) -> ValueError {
    let names: Vec<&str> = Signal::ALL
        .iter()
        .map(|signal| signal.name())
        .chain(custom.iter().map(|custom| custom.name.as_str()))
        .collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("the signals are {}", names.join(", ")),
    };
    ValueError::new(format!("unknown signal {name:?}; {hint}"))
}

fn pause(text: &str) -> Result<Option<Pause>, ValueError> {
    match text {
        "true" => Ok(Some(Pause::All)),
        "false" => Ok(None),
        "scale-in" => Ok(Some(Pause::ScaleIn)),
        "scale-out" => Ok(Some(Pause::ScaleOut)),
        _ => Err(ValueError::new(format!(
            "{text:?} is not accepted; write true, false, scale-in or scale-out"
        ))),
    }
}

fn engine(text: &str) -> Result<Engine, ValueError> {
    let found = Engine::ALL.into_iter().find(|engine| engine.name() == text);
    found.ok_or_else(|| ValueError::new(format!("{text:?} is no engine; write vllm or sglang")))
}

fn port(text: &str) -> Result<u16, ValueError> {
    text.parse::<u16>()
        .ok()
        .filter(|port| *port > 0 && !text.starts_with('+'))
        .ok_or_else(|| ValueError::new(format!("{text:?} is no port; write an integer from 1 to 65535")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(pairs: &[(&str, &str)]) -> Option<Result<Annotations, Vec<AnnotationError>>> {
        Annotations::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), Some(&[]))
    }

    fn errors(pairs: &[(&str, &str)]) -> Vec<String> {
        read(pairs).unwrap().unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_model_name_nothing_is_asked_for() {
        assert_eq!(read(&[("autoscaling.kthena.io/min-replicas", "x")]), None);
    }

    #[test]
    fn one_annotation_is_enough() {
        let read = read(&[(MODEL_NAME, "llama")]).unwrap().unwrap();
        assert_eq!(
            (read.min_replicas, read.max_replicas, read.signals, read.pause),
            (None, None, None, None)
        );
    }

    #[test]
    fn every_error_is_named_at_once() {
        let errors = errors(&[
            (MODEL_NAME, "a,,b"),
            ("autoscaling.kthena.io/engine", "tgi"),
            ("autoscaling.kthena.io/engine-port", "0"),
            ("autoscaling.kthena.io/max-replicas", "0"),
            ("autoscaling.kthena.io/max-replica", "4"),
            ("autoscaling.kthena.io/min-replicas", "-1"),
            ("autoscaling.kthena.io/paused", "yes"),
            ("autoscaling.kthena.io/profile", "Gold!"),
            ("autoscaling.kthena.io/signals", "active-request=3"),
        ]);
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[rstest]
    #[case("active-requests=12, output-tokens=0.5", None)]
    #[case("", Some("no signal"))]
    #[case("active-requests", Some("no signal"))]
    #[case("active-requests=", Some("no target"))]
    #[case("active-requests=1,active-requests=2", Some("twice"))]
    #[case("latency=1", Some("the signals are"))]
    #[case("requests-rate=1", Some("did you mean request-rate?"))]
    fn reads_signals(#[case] text: &str, #[case] error: Option<&str>) {
        let read = signals(text, Some(&[]));
        match error {
            None => assert_eq!(read.unwrap().len(), 2),
            Some(why) => assert!(read.clone().unwrap_err().to_string().contains(why), "{read:?}"),
        }
    }

    #[test]
    fn bounds_of_both_annotations_are_compared() {
        let errors = errors(&[
            (MODEL_NAME, "m"),
            ("autoscaling.kthena.io/min-replicas", "5"),
            ("autoscaling.kthena.io/max-replicas", "3"),
        ]);
        assert_eq!(errors.len(), 1);
        assert!(
            errors.concat().contains("5 is greater than autoscaling.kthena.io/max-replicas: 3"),
            "{errors:?}"
        );
    }
}
