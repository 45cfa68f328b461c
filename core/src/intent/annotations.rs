//! Parses the annotations of a ModelServing.

use std::{collections::BTreeMap, fmt};

use strum::VariantArray as _;

use super::{
    profile::{CustomSignal, SignalSource, SignalTarget, check_demand},
    roles::Roles,
};
use crate::{
    api::annotations::{AnnotationKey, MAX_BYTES, MODEL_NAME, PREFIX, ROLES, are_too_large},
    domain::{
        Engine, InvalidValue, ModelNames, Pause, ServiceTimeSetting, Signal, ValueError, nearest, number,
        quoted,
    },
};

/// Answer to another annotation that names a role.
const SCALE_ROLES: &str = "roles are scaled by autoscaling.kthena.io/roles; see docs/roles.md";

/// Maximum number of signals in the annotation.
const SIGNALS_MAX: usize = 32;
/// Unknown annotations that are reported one by one.
const UNKNOWN_LISTED: usize = 3;

/// A problem of one annotation: its key, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The value is invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// All annotations together are larger than [`MAX_BYTES`].
    #[error(
        "the annotations {MODEL_NAME} and {PREFIX}* hold more than {} KiB in total, so none of them is read; shorten them",
        MAX_BYTES / 1024
    )]
    TooLarge,
    /// More unknown annotations than a message lists.
    #[error("further annotations under {PREFIX} are unknown: remove them")]
    MoreUnknown,
    /// No annotation has this key.
    #[error("unknown annotation {}: {remedy}", quoted(key))]
    Unknown {
        /// The whole key.
        key: String,
        /// A similar key, or all keys.
        remedy: String,
    },
    /// The annotation does not fit other objects.
    #[error("{key}: {problem}")]
    Mismatch {
        /// The whole key.
        key: String,
        /// Cause and remedy.
        problem: String,
    },
}

impl AnnotationError {
    /// A mismatch with other objects, for the key `name` under [`PREFIX`].
    pub(crate) fn of(name: &str, problem: impl fmt::Display) -> Self {
        Self::Mismatch { key: format!("{PREFIX}{name}"), problem: problem.to_string() }
    }

    fn invalid(key: AnnotationKey, value: i32, expected: ValueError) -> Self {
        InvalidValue::new(key.to_string(), &value.to_string(), expected).into()
    }
}

/// Values of the annotations of an opted-in ModelServing; `None` leaves the setting to the profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotations {
    /// Names that clients send to the router.
    pub models: ModelNames,
    /// Name of the AutoscalingProfile.
    pub profile: Option<String>,
    /// Minimum number of ServingGroups.
    pub min_replicas: Option<i32>,
    /// Maximum number of ServingGroups.
    pub max_replicas: Option<i32>,
    /// Signals that replace those of the profile.
    pub signals: Option<Vec<SignalTarget>>,
    /// Directions in which autoscaling is paused.
    pub pause: Option<Pause>,
    /// Dry run: decide, and scale nothing.
    pub shadow: bool,
    /// Time for one request.
    pub service_time: Option<ServiceTimeSetting>,
    /// Roles that are scaled instead of ServingGroups.
    pub roles: Option<Roles>,
    /// Inference engine of the pods.
    pub engine: Option<Engine>,
    /// Port on which the engine listens.
    pub engine_port: Option<u16>,
}

impl Annotations {
    /// Parses all annotations; `None` if the ModelServing has not opted in.
    ///
    /// Signals are built-in ones and those in `custom`. If `custom` is `None`, unknown signals are ignored
    /// instead of reported.
    ///
    /// # Errors
    /// Every invalid annotation.
    pub fn parse(
        annotations: &BTreeMap<String, String>,
        custom: Option<&[CustomSignal]>,
    ) -> Option<Result<Self, Vec<AnnotationError>>> {
        let models = annotations.get(MODEL_NAME)?;
        if are_too_large(annotations) {
            return Some(Err(vec![AnnotationError::TooLarge]));
        }
        let mut parser = Parser { annotations, errors: Vec::new() };
        parser.reject_unknown_keys();
        let models = parser.record(MODEL_NAME, models, parse_model_names(models));
        let profile = parser.parse(AnnotationKey::Profile, parse_profile_name);
        let min_replicas = parser.parse(AnnotationKey::MinReplicas, |text| parse_replicas(text, 0));
        let max_replicas = parser.parse(AnnotationKey::MaxReplicas, |text| parse_replicas(text, 1));
        let signals = parser.parse(AnnotationKey::Signals, |text| parse_signals(text, custom));
        let pause = parser.parse(AnnotationKey::Paused, parse_pause).flatten();
        let shadow = parser.parse(AnnotationKey::Shadow, parse_bool).unwrap_or_default();
        let service_time = parser.parse(AnnotationKey::ServiceTime, str::parse);
        let roles = parser.parse(AnnotationKey::Roles, Roles::parse);
        parser.reject_groups_beside_roles();
        let engine = parser.parse(AnnotationKey::Engine, parse_engine);
        let engine_port = parser.parse(AnnotationKey::EnginePort, parse_port);
        if let (Some(min), Some(max)) = (min_replicas, max_replicas)
            && min > max
        {
            parser.errors.push(min_above_max(min, max));
        }
        Some(match models {
            Some(models) if parser.errors.is_empty() => Ok(Self {
                models,
                profile,
                min_replicas,
                max_replicas,
                signals,
                pause,
                shadow,
                service_time,
                roles,
                engine,
                engine_port,
            }),
            _ => Err(parser.errors),
        })
    }
}

/// The pause that the annotations ask for, whatever the other annotations hold.
///
/// # Errors
/// If its value is invalid.
pub(crate) fn requested_pause(annotations: &BTreeMap<String, String>) -> Result<Option<Pause>, ValueError> {
    annotations.get(&AnnotationKey::Paused.to_string()).map_or(Ok(None), |value| parse_pause(value))
}

/// Annotations for ServingGroups, which have no effect on roles.
const GROUPS_ONLY: [AnnotationKey; 5] = [
    AnnotationKey::MinReplicas,
    AnnotationKey::MaxReplicas,
    AnnotationKey::Signals,
    AnnotationKey::ServiceTime,
    AnnotationKey::Shadow,
];

fn groups_beside_roles(key: AnnotationKey, roles: &str) -> AnnotationError {
    let problem = format!(
        "scales ServingGroups, which stay as they are while {roles} has the roles of each scaled; remove one of the two"
    );
    AnnotationError::of(key.name(), problem)
}

/// Error of annotations for ServingGroups under a profile that has roles scaled.
pub(super) fn groups_beside_profile_roles(annotations: &Annotations) -> Option<AnnotationError> {
    let set = [
        (AnnotationKey::MinReplicas, annotations.min_replicas.is_some()),
        (AnnotationKey::MaxReplicas, annotations.max_replicas.is_some()),
        (AnnotationKey::Signals, annotations.signals.is_some()),
        (AnnotationKey::ServiceTime, annotations.service_time.is_some()),
        (AnnotationKey::Shadow, annotations.shadow),
    ];
    let (key, _) = set.into_iter().find(|(_, is_set)| *is_set)?;
    Some(groups_beside_roles(key, "spec.roles of the AutoscalingProfile"))
}

fn min_above_max(min: i32, max: i32) -> AnnotationError {
    let expected = format!("an integer <= {}, which is {max}", AnnotationKey::MaxReplicas);
    AnnotationError::invalid(AnnotationKey::MinReplicas, min, ValueError::expected(expected))
}

/// Error of a `min-replicas` above the maximum of the profile.
pub(super) fn min_above_profile(min: i32, profile_max: i32) -> AnnotationError {
    let expected = format!(
        "an integer <= {profile_max}, the profile's spec.replicas.max; to go higher, set {}",
        AnnotationKey::MaxReplicas
    );
    AnnotationError::invalid(AnnotationKey::MinReplicas, min, ValueError::expected(expected))
}

/// Error of a `max-replicas` below the minimum of the profile.
pub(super) fn max_below_profile(max: i32, profile_min: i32) -> AnnotationError {
    let expected = format!(
        "an integer >= {profile_min}, the profile's spec.replicas.min; to go lower, set {}",
        AnnotationKey::MinReplicas
    );
    AnnotationError::invalid(AnnotationKey::MaxReplicas, max, ValueError::expected(expected))
}

struct Parser<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl Parser<'_> {
    /// `None` if the annotation is absent or invalid.
    fn parse<T>(
        &mut self,
        key: AnnotationKey,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let key = key.to_string();
        let value = self.annotations.get(&key)?;
        self.record(&key, value, parse(value))
    }

    fn record<T>(&mut self, key: &str, value: &str, parsed: Result<T, ValueError>) -> Option<T> {
        parsed.map_err(|expected| self.errors.push(InvalidValue::new(key, value, expected).into())).ok()
    }

    /// ServingGroups and roles are not scaled at once: both change the capacity by the same load.
    fn reject_groups_beside_roles(&mut self) {
        if !self.annotations.contains_key(ROLES) {
            return;
        }
        let is_set = |key: &&AnnotationKey| {
            self.annotations
                .get(&key.to_string())
                .is_some_and(|value| **key != AnnotationKey::Shadow || value == "true")
        };
        let set = GROUPS_ONLY.iter().filter(is_set);
        self.errors.extend(set.map(|key| groups_beside_roles(*key, ROLES)));
    }

    fn reject_unknown_keys(&mut self) {
        let keys: Vec<&str> = AnnotationKey::VARIANTS.iter().map(|key| key.name()).collect();
        let own = self.annotations.keys().filter_map(|key| Some((key, key.strip_prefix(PREFIX)?)));
        let unknown = own.filter(|(_, name)| !keys.contains(name));
        for (i, (key, name)) in unknown.enumerate() {
            if i == UNKNOWN_LISTED {
                self.errors.push(AnnotationError::MoreUnknown);
                return;
            }
            let remedy = match nearest(name, keys.iter().copied()) {
                _ if name.contains("role") => SCALE_ROLES.to_owned(),
                Some(similar) => format!("the most similar one is {PREFIX}{similar}"),
                None => format!("the keys under {PREFIX} are {}", keys.join(", ")),
            };
            self.errors.push(AnnotationError::Unknown { key: key.clone(), remedy });
        }
    }
}

fn parse_model_names(text: &str) -> Result<ModelNames, ValueError> {
    text.parse()
}

fn parse_profile_name(text: &str) -> Result<String, ValueError> {
    if text.len() <= 253
        && text.chars().all(|c| is_lower_or_digit(c) || c == '-' || c == '.')
        && text.starts_with(is_lower_or_digit)
        && text.ends_with(is_lower_or_digit)
    {
        return Ok(text.to_owned());
    }
    Err(ValueError::expected("the name of an AutoscalingProfile, a lower-case DNS name such as default"))
}

const fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn parse_replicas(text: &str, min: i32) -> Result<i32, ValueError> {
    text.parse::<i32>()
        .ok()
        .filter(|replicas| *replicas >= min && !text.starts_with('+'))
        .ok_or_else(|| ValueError::expected(format!("an integer from {min} to {}", i32::MAX)))
}

fn parse_signals(text: &str, custom: Option<&[CustomSignal]>) -> Result<Vec<SignalTarget>, ValueError> {
    let mut signals: Vec<SignalTarget> = Vec::new();
    let (mut names, mut has_unknown) = (Vec::new(), false);
    for (i, pair) in text.split(',').enumerate() {
        if i == SIGNALS_MAX {
            return Err(ValueError::expected(format!("at most {SIGNALS_MAX} signals")));
        }
        let (name, target) = pair.split_once('=').ok_or_else(|| {
            ValueError::expected("name=target pairs separated by commas, such as active-requests=12")
        })?;
        let name = name.trim();
        let read = read_signal(name, target.trim(), custom.unwrap_or_default());
        let read = read.map_err(|error| error.within(pair))?;
        if names.contains(&name) {
            return Err(ValueError::expected(format!("each signal once, but {} is repeated", quoted(name))));
        }
        names.push(name);
        match (read, custom) {
            (Some(signal), _) => signals.push(signal),
            (None, Some(custom)) => return Err(unknown_signal(name, custom)),
            (None, None) => has_unknown = true,
        }
    }
    if !has_unknown {
        check_demand(signals.iter().map(|signal| &signal.source))?;
    }
    Ok(signals)
}

/// The signal of this name with this target; `None` if there is no signal of the name. A custom signal may have the name
/// of a latency, since both names were free before the latencies existed.
fn read_signal(
    name: &str,
    target: &str,
    custom: &[CustomSignal],
) -> Result<Option<SignalTarget>, ValueError> {
    if let Some(custom) = custom.iter().find(|custom| custom.name == name) {
        let source = SignalSource::Custom(custom.clone());
        return Ok(Some(SignalTarget { source, target: number(target)? }));
    }
    let Some(signal) = Signal::from_name(name) else { return number(target).map(|_| None) };
    SignalTarget::built_in(signal, target).map(Some)
}

fn unknown_signal(name: &str, custom: &[CustomSignal]) -> ValueError {
    ValueError::expected(format!(
        "known signals, but {} is unknown; {}",
        quoted(name),
        suggest_signal(name, custom)
    ))
}

/// A similar signal, or all signals.
pub(super) fn suggest_signal(name: &str, custom: &[CustomSignal]) -> String {
    let mut names: Vec<&str> = Signal::all().map(Signal::name).collect();
    names.extend(custom.iter().map(|custom| custom.name.as_str()));
    match nearest(name, names.iter().copied()) {
        Some(similar) => format!("the most similar one is {similar}"),
        None => format!("the signals are {}", names.join(", ")),
    }
}

fn parse_pause(text: &str) -> Result<Option<Pause>, ValueError> {
    if text == "false" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ValueError::one_of(&["true", "false", "scale-in", "scale-out"]))
}

fn parse_bool(text: &str) -> Result<bool, ValueError> {
    text.parse().map_err(|_| ValueError::one_of(&["true", "false"]))
}

fn parse_engine(text: &str) -> Result<Engine, ValueError> {
    Engine::VARIANTS.iter().copied().find(|engine| engine.name() == text).ok_or_else(|| {
        let names: Vec<&str> = Engine::VARIANTS.iter().map(|engine| engine.name()).collect();
        ValueError::one_of(&names)
    })
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    text.parse::<u16>()
        .ok()
        .filter(|port| *port > 0 && !text.starts_with('+'))
        .ok_or_else(|| ValueError::expected("an integer from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(pairs: &[(&str, &str)]) -> Option<Result<Annotations, Vec<AnnotationError>>> {
        Annotations::parse(
            &pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            Some(&[]),
        )
    }

    fn errors(pairs: &[(&str, &str)]) -> Vec<String> {
        read(pairs).unwrap().unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ignores_annotations_without_a_model_name() {
        assert_eq!(read(&[("autoscaling.kthena.io/min-replicas", "x")]), None);
    }

    #[test]
    fn needs_only_the_model_name() {
        let read = read(&[(MODEL_NAME, "llama")]).unwrap().unwrap();
        assert_eq!(
            (read.min_replicas, read.max_replicas, read.signals, read.pause),
            (None, None, None, None)
        );
    }

    #[test]
    fn reports_every_invalid_annotation() {
        let errors = errors(&[
            (MODEL_NAME, "a,,b"),
            ("autoscaling.kthena.io/engine", "tgi"),
            ("autoscaling.kthena.io/engine-port", "0"),
            ("autoscaling.kthena.io/max-replicas", "0"),
            ("autoscaling.kthena.io/max-replica", "4"),
            ("autoscaling.kthena.io/target-role", "decode"),
            ("autoscaling.kthena.io/x", ""),
            ("autoscaling.kthena.io/min-replicas", "-1"),
            ("autoscaling.kthena.io/paused", "yes"),
            ("autoscaling.kthena.io/profile", "Gold!"),
            ("autoscaling.kthena.io/shadow", "scale-in"),
            ("autoscaling.kthena.io/signals", "active-request=3"),
        ]);
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn reads_no_annotation_if_all_are_too_large_together() {
        let huge = "x".repeat(16 * 1024);
        let too_large = "the annotations kthena.io/model-name and autoscaling.kthena.io/* hold more than 16 KiB in total, so none of them is read; shorten them";
        assert_eq!(errors(&[(MODEL_NAME, &huge)]), [too_large]);
        assert_eq!(errors(&[(MODEL_NAME, "m"), ("autoscaling.kthena.io/notes", &huge)]), [too_large]);
        let others = [(MODEL_NAME, "m"), ("example.com/notes", huge.as_str())];
        assert!(read(&others).unwrap().is_ok(), "annotations of others do not count");
    }

    #[test]
    fn lists_few_unknown_annotations() {
        let keys: Vec<String> = (0..400).map(|i| format!("autoscaling.kthena.io/min-replica{i}")).collect();
        let pairs: Vec<(&str, &str)> =
            keys.iter().map(|key| (key.as_str(), "")).chain([(MODEL_NAME, "m")]).collect();
        assert_eq!(errors(&pairs).len(), UNKNOWN_LISTED + 1);
    }

    #[rstest]
    #[case("active-requests=12, output-tokens=0.5", None)]
    #[case("", Some("expected name=target pairs"))]
    #[case("active-requests", Some("expected name=target pairs"))]
    #[case("active-requests=", Some(r#"with at most three decimals in "active-requests=""#))]
    #[case(
        "active-requests=1,active-requests=2",
        Some(r#"each signal once, but "active-requests" is repeated"#)
    )]
    #[case("active-requests=12,ttft-p90=2s", None)]
    #[case("ttft-p90=2s,kv-cache=0.8", Some("expected a signal of the router beside ttft-p90 and itl-p90"))]
    #[case(
        "active-requests=12,ttft-p90=2",
        Some(r#"expected a duration such as 2s, from 10ms to 10m in "ttft-p90=2""#)
    )]
    #[case(
        "active-requests=12s",
        Some(r#"expected a number, because only ttft-p90 and itl-p90 have a duration in "active-requests=12s""#)
    )]
    #[case(&(0..33).map(|i| format!("s{i}=1")).collect::<Vec<_>>().join(","), Some("is unknown"))]
    #[case("latency=1", Some("the signals are active-requests, "))]
    #[case(
        "requests-rate=1",
        Some(r#"but "requests-rate" is unknown; the most similar one is request-rate"#)
    )]
    fn reads_signals(#[case] text: &str, #[case] error: Option<&str>) {
        let read = parse_signals(text, Some(&[]));
        match error {
            None => assert_eq!(read.unwrap().len(), 2),
            Some(expected) => assert!(read.clone().unwrap_err().to_string().contains(expected), "{read:?}"),
        }
    }

    /// A custom signal of 0.1 may have the name of a latency.
    #[test]
    fn prefers_a_custom_signal_to_a_latency() {
        let profile = "customSignals: [{name: ttft-p90, query: sum(a), target: '3'}]";
        let profile = crate::intent::Profile::read(&serde_saphyr::from_str(profile).unwrap()).unwrap();
        let read =
            |text: &str| parse_signals(text, Some(&profile.custom_signals)).map(|signals| signals.len());
        assert_eq!(read("ttft-p90=5"), Ok(1));
        assert!(read("active-requests=1,ttft-p90=2s").unwrap_err().to_string().contains("expected a number"));
    }

    #[test]
    fn ignores_unknown_signals_if_custom_ones_are_unavailable() {
        assert_eq!(parse_signals("latency=1", None), Ok(Vec::new()));
        let signals = |count: usize| (0..count).map(|i| format!("s{i}=1")).collect::<Vec<_>>().join(",");
        assert_eq!(parse_signals(&signals(32), None), Ok(Vec::new()));
        let error = parse_signals(&signals(43_000), None).unwrap_err().to_string();
        assert_eq!(error, "expected at most 32 signals");
    }

    #[rstest]
    #[case("true", Ok(Some(Pause::All)))]
    #[case("false", Ok(None))]
    #[case("scale-in", Ok(Some(Pause::ScaleIn)))]
    #[case("scale-out", Ok(Some(Pause::ScaleOut)))]
    #[case("True", Err("expected true, false, scale-in or scale-out"))]
    fn reads_pauses(#[case] text: &str, #[case] expected: Result<Option<Pause>, &str>) {
        assert_eq!(parse_pause(text).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case("sglang", Ok(Engine::Sglang))]
    #[case("vLLM", Err("expected vllm or sglang"))]
    fn reads_engines(#[case] text: &str, #[case] expected: Result<Engine, &str>) {
        assert_eq!(parse_engine(text).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[derive(serde::Deserialize)]
    struct Case {
        note: String,
        accepted: bool,
        annotations: BTreeMap<String, String>,
    }

    fn cases() -> Vec<Case> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/chart/annotations.yaml");
        serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// The chart's tests check the admission policy with the same cases.
    #[test]
    fn accepts_the_same_annotations_as_the_admission_policy() {
        for case in cases() {
            let accepted = Annotations::parse(&case.annotations, None).is_none_or(|read| read.is_ok());
            assert_eq!(accepted, case.accepted, "{}", case.note);
        }
    }

    #[test]
    fn reports_errors_in_the_words_of_the_admission_policy() {
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/kthena-keda/templates/admissionpolicy.yaml");
        let policy = std::fs::read_to_string(file).unwrap();
        let (_, policy) = policy.split_once("# Errors by annotation").unwrap();
        let (policy, _) = policy.split_once("# Message with all errors").unwrap();
        let texts: Vec<&str> = policy.split('\'').filter(|text| text.starts_with("expected ")).collect();
        let errors: Vec<String> = cases()
            .into_iter()
            .filter_map(|case| Annotations::parse(&case.annotations, None)?.err())
            .flatten()
            .map(|error| error.to_string())
            .collect();
        assert!(texts.len() > 10, "{texts:?}");
        for text in texts {
            assert!(errors.iter().any(|error| error.contains(text)), "the operator never reports {text:?}");
        }
    }

    #[test]
    fn compares_the_bounds_of_both_annotations() {
        let errors = errors(&[
            (MODEL_NAME, "m"),
            ("autoscaling.kthena.io/min-replicas", "5"),
            ("autoscaling.kthena.io/max-replicas", "3"),
        ]);
        assert_eq!(
            errors,
            [
                r#"invalid value "5" for autoscaling.kthena.io/min-replicas: expected an integer <= autoscaling.kthena.io/max-replicas, which is 3"#
            ]
        );
    }
}
