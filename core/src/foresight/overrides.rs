//! Changes of a model's settings to try: `key=value`.
//!
//! They change the annotations and the profile before the plan is made, so a candidate is checked and written as the
//! operator would write it.

use std::{fmt, str::FromStr};

use strum::{IntoStaticStr, VariantArray};

use super::spec::{HpaSpec, KedaSpec, Rules, UnsupportedSpec};
use crate::{
    api::{
        annotations::{AnnotationKey, PREFIX},
        keda::{ScaledObject, Trigger},
    },
    domain::{
        ACTIVATION, Backlog, ReplicaBounds, ServiceTimeSetting, Signal, ValueError, nearest, quoted, seconds,
    },
    intent::{Behavior, Direction, Policy, PolicyKind, Profile, Select, SignalTarget},
    observed::Observed,
};

/// A setting that can be tried. Every other annotation can be set by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Setting {
    /// Target of the first signal.
    #[strum(serialize = "target")]
    Target,
    /// Minimum number of ServingGroups.
    #[strum(serialize = "min")]
    Min,
    /// Maximum number of ServingGroups.
    #[strum(serialize = "max")]
    Max,
    /// Time for one request, which bounds the backlog; or off.
    #[strum(serialize = "serviceTime")]
    ServiceTime,
    /// Capacity beyond the arriving requests.
    #[strum(serialize = "headroom")]
    Headroom,
    /// Time in which a backlog is worked off.
    #[strum(serialize = "drainTime")]
    DrainTime,
    /// Interval between KEDA's polls.
    #[strum(serialize = "pollingInterval")]
    PollingInterval,
    /// Time without demand before scaling to zero.
    #[strum(serialize = "cooldown")]
    Cooldown,
    /// Policies for adding ServingGroups, such as `8/60s,100%/60s`.
    #[strum(serialize = "scaleUp.policies")]
    UpPolicies,
    /// Stabilization window for adding ServingGroups.
    #[strum(serialize = "scaleUp.stabilizationWindow")]
    UpWindow,
    /// Choice among the policies: Max, Min or Disabled.
    #[strum(serialize = "scaleUp.select")]
    UpSelect,
    /// Policies for removing ServingGroups.
    #[strum(serialize = "scaleDown.policies")]
    DownPolicies,
    /// Stabilization window for removing ServingGroups.
    #[strum(serialize = "scaleDown.stabilizationWindow")]
    DownWindow,
    /// Choice among the policies: Max, Min or Disabled.
    #[strum(serialize = "scaleDown.select")]
    DownSelect,
}

/// One change: a setting or an annotation, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    key: Key,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Setting(Setting),
    Annotation(AnnotationKey),
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: &str = match self.key {
            Key::Setting(setting) => setting.into(),
            Key::Annotation(key) => key.name(),
        };
        write!(f, "{key}={}", self.value)
    }
}

impl FromStr for Override {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| ValueError::expected("key=value, such as target=12"))?;
        let (key, value) = (key.trim(), value.trim().to_owned());
        let annotation = key.strip_prefix(PREFIX).unwrap_or(key);
        let setting = Setting::VARIANTS.iter().copied().find(|setting| <&str>::from(*setting) == key);
        let annotation = AnnotationKey::VARIANTS.iter().copied().find(|found| found.name() == annotation);
        match (setting, annotation) {
            (Some(setting), _) => Ok(Self { key: Key::Setting(setting), value }),
            (None, Some(annotation)) => Ok(Self { key: Key::Annotation(annotation), value }),
            (None, None) => {
                let keys = || {
                    let settings = Setting::VARIANTS.iter().map(|setting| <&str>::from(*setting));
                    settings.chain(AnnotationKey::VARIANTS.iter().map(|key| key.name()))
                };
                let remedy = match nearest(key, keys()) {
                    Some(similar) => format!("the most similar one is {similar}"),
                    None => format!("the keys are {}", keys().collect::<Vec<_>>().join(", ")),
                };
                Err(ValueError::expected(format!("a known key, but {} is unknown; {remedy}", quoted(key))))
            }
        }
    }
}

/// Value that a change does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value in --set {change}: {expected}")]
pub struct OverrideError {
    change: String,
    expected: ValueError,
}

/// Changes the inputs of a plan: the annotations, and the profile that the model uses, which is `defaults` where it has
/// none.
///
/// # Errors
/// If a value is not accepted.
pub fn apply(changes: &[Override], observed: &mut Observed, defaults: &Profile) -> Result<(), OverrideError> {
    let mut profile = match &observed.profile {
        Some(Ok(profile)) => profile.clone(),
        // The plan reports it.
        Some(Err(_)) => return Ok(()),
        None => defaults.clone(),
    };
    for change in changes {
        change
            .apply(observed, &mut profile)
            .map_err(|expected| OverrideError { change: change.to_string(), expected })?;
    }
    observed.profile = Some(Ok(profile));
    Ok(())
}

impl Override {
    fn apply(&self, observed: &mut Observed, profile: &mut Profile) -> Result<(), ValueError> {
        let value = self.value.as_str();
        let setting = match self.key {
            Key::Annotation(key) => {
                annotate(observed, key, value);
                return Ok(());
            }
            Key::Setting(setting) => setting,
        };
        match setting {
            Setting::Min => annotate(observed, AnnotationKey::MinReplicas, value),
            Setting::Max => annotate(observed, AnnotationKey::MaxReplicas, value),
            Setting::ServiceTime => {
                value.parse::<ServiceTimeSetting>()?;
                annotate(observed, AnnotationKey::ServiceTime, value);
            }
            Setting::Target => set_target(observed, profile, value)?,
            Setting::Headroom => profile.backlog.headroom = value.parse()?,
            Setting::DrainTime => profile.backlog.drain_time = value.parse()?,
            Setting::PollingInterval => profile.polling_interval = seconds(value, 1..=3600)?,
            Setting::Cooldown => profile.cooldown = seconds(value, 0..=86_400)?,
            Setting::UpPolicies => profile.behavior.scale_up.policies = policies(value)?,
            Setting::DownPolicies => profile.behavior.scale_down.policies = policies(value)?,
            Setting::UpWindow => set_window(&mut profile.behavior.scale_up, value)?,
            Setting::DownWindow => set_window(&mut profile.behavior.scale_down, value)?,
            Setting::UpSelect => profile.behavior.scale_up.select = select(value)?,
            Setting::DownSelect => profile.behavior.scale_down.select = select(value)?,
        }
        Ok(())
    }
}

fn annotate(observed: &mut Observed, key: AnnotationKey, value: &str) {
    observed.model_serving.annotate(&key.to_string(), value);
}

/// Sets the target of the first signal and keeps the others.
fn set_target(observed: &mut Observed, profile: &mut Profile, value: &str) -> Result<(), ValueError> {
    let target = value.parse()?;
    let key = AnnotationKey::Signals.to_string();
    let annotations = observed.model_serving.effective_annotations();
    let text = if let Some(written) = annotations.get(&key) {
        let (first, others) = written.split_once(',').map_or((written.as_str(), None), |(a, b)| (a, Some(b)));
        let name = first.split('=').next().unwrap_or_default();
        others.map_or_else(|| format!("{name}={target}"), |others| format!("{name}={target},{others}"))
    } else {
        let signals = profile.all_signals();
        let pair = |(index, signal): (usize, &SignalTarget)| {
            format!("{}={}", signal.source.name(), if index == 0 { target } else { signal.target })
        };
        signals.iter().enumerate().map(pair).collect::<Vec<_>>().join(",")
    };
    annotate(observed, AnnotationKey::Signals, &text);
    Ok(())
}

fn set_window(direction: &mut Direction, value: &str) -> Result<(), ValueError> {
    direction.stabilization_window = seconds(value, 0..=3600)?;
    Ok(())
}

fn select(value: &str) -> Result<Select, ValueError> {
    [Select::Max, Select::Min, Select::Disabled]
        .into_iter()
        .find(|select| <&str>::from(*select) == value)
        .ok_or_else(|| ValueError::expected("Max, Min or Disabled"))
}

/// Parses policies such as `8/60s,100%/60s`.
fn policies(text: &str) -> Result<Vec<Policy>, ValueError> {
    let policy = |text: &str| {
        let (value, period) = text.split_once('/')?;
        let (kind, value) = match value.strip_suffix('%') {
            Some(percent) => (PolicyKind::Percent, percent),
            None => (PolicyKind::Pods, value),
        };
        let value = value.parse::<i32>().ok().filter(|value| *value > 0)?;
        Some(Policy { kind, value, period: seconds(period, 1..=1800).ok()? })
    };
    let policies: Option<Vec<Policy>> = text.split(',').map(|text| policy(text.trim())).collect();
    policies.filter(|policies| policies.len() <= 4).ok_or_else(|| {
        ValueError::expected(
            "1 to 4 policies such as 8/60s or 100%/60s, separated by commas, with periods from 1s to 30m",
        )
    })
}

/// The profile whose plan has the settings of a ScaledObject, for built-in signals.
///
/// # Errors
/// If the object has settings that no profile has, such as a custom signal.
pub fn profile_of(object: &ScaledObject, backlog: Backlog) -> Result<Profile, UnsupportedSpec> {
    let (hpa, keda) = (HpaSpec::from_scaled_object(object)?, KedaSpec::from_scaled_object(object));
    let replicas =
        ReplicaBounds::new(keda.min, hpa.max()).ok_or(UnsupportedSpec::Bounds(keda.min, hpa.max()))?;
    let direction = |rules: &Rules| Direction {
        stabilization_window: rules.window,
        policies: rules.policies.clone(),
        select: rules.select,
    };
    let signals = object.spec.triggers.iter().filter(|trigger| trigger.name.as_deref() != Some(ACTIVATION));
    let signal = |trigger: &Trigger| {
        let name = trigger.name.as_deref().unwrap_or_default();
        let threshold = trigger.metadata.get("threshold").map_or("", String::as_str);
        let signal = Signal::from_name(name).filter(|signal| !matches!(signal, Signal::Latency(_)));
        let signal = signal.ok_or_else(|| UnsupportedSpec::Signal(name.to_owned()))?;
        SignalTarget::built_in(signal, threshold)
            .map_err(|_| UnsupportedSpec::Threshold(threshold.to_owned()))
    };
    let built_in = Profile::built_in();
    Ok(Profile {
        replicas,
        backlog,
        signals: signals.map(signal).collect::<Result<_, _>>()?,
        behavior: Behavior { scale_up: direction(&hpa.scale_up), scale_down: direction(&hpa.scale_down) },
        polling_interval: keda.polling_interval,
        // The operator writes it only beside a minimum of 0.
        cooldown: object.spec.cooldown_period.unwrap_or(built_in.cooldown),
        initial_cooldown: keda.initial_cooldown,
        ..built_in
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    fn planned(fixture: &Fixture, changes: &[&str]) -> Result<ScaledObject, String> {
        let mut observed = fixture.observed();
        let changes: Vec<Override> = changes
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map_err(|error: ValueError| error.to_string())?;
        apply(&changes, &mut observed, &fixture.defaults).map_err(|error| error.to_string())?;
        match plan(&observed, fixture.capabilities, &fixture.defaults) {
            plan if plan.findings.is_empty() => match plan.scaled_object {
                Desired::Apply(object) => Ok(*object),
                other => Err(format!("{other:?}")),
            },
            plan => Err(plan.findings.iter().map(|finding| finding.message.clone()).collect()),
        }
    }

    #[rstest]
    #[case("target=7.5", "/triggers/0/metadata/threshold", "\"7.5\"")]
    #[case("min=0", "/minReplicaCount", "0")]
    #[case("max=40", "/maxReplicaCount", "40")]
    #[case("max-replicas=40", "/maxReplicaCount", "40")]
    #[case("autoscaling.kthena.io/min-replicas=2", "/minReplicaCount", "2")]
    #[case("pollingInterval=20s", "/pollingInterval", "20")]
    #[case(
        "scaleUp.policies=8/60s, 50%/2m",
        "/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/policies",
        r#"[{"periodSeconds":60,"type":"Pods","value":8},{"periodSeconds":120,"type":"Percent","value":50}]"#
    )]
    #[case(
        "scaleDown.stabilizationWindow=10m",
        "/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown/stabilizationWindowSeconds",
        "600"
    )]
    #[case(
        "scaleDown.select=Disabled",
        "/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown/selectPolicy",
        "\"Disabled\""
    )]
    fn changes_the_planned_object(#[case] change: &str, #[case] pointer: &str, #[case] expected: &str) {
        let object = planned(&Fixture::model("llama"), &[change]).unwrap();
        let spec = serde_json::to_value(&object.spec).unwrap();
        assert_eq!(spec.pointer(pointer).unwrap().to_string(), expected);
    }

    #[test]
    fn bounds_the_backlog() {
        let query = |changes: &[&str]| {
            planned(&Fixture::model("llama"), changes).unwrap().spec.triggers[0].metadata["query"].clone()
        };
        let bounded = query(&["serviceTime=5s"]);
        assert!(bounded.contains("offset 30s"), "{bounded}");
        assert_ne!(query(&["serviceTime=5s", "headroom=1.5"]), bounded);
        assert_ne!(query(&["serviceTime=5s", "drainTime=5m"]), bounded);
    }

    /// A history has only the ScaledObject, from which changes are planned, too.
    #[test]
    fn a_profile_of_an_object_plans_the_same_object() {
        let changes =
            ["min=0", "max=7", "signals=active-requests=3,request-rate=2", "serviceTime=5s", "cooldown=20m"];
        let object = planned(&Fixture::model("llama"), &changes).unwrap();
        let backlog = Backlog { service_time: "5s".parse().unwrap(), ..Backlog::default() };
        let mut fixture = Fixture::model("llama");
        let prometheus = fixture.defaults.prometheus.clone();
        fixture.defaults = Profile { prometheus, ..profile_of(&object, backlog).unwrap() };
        assert_eq!(planned(&fixture, &[]).unwrap().spec, object.spec);
    }

    /// The object of a model that never sleeps has no cooldown, and KEDA's default is not that of the operator.
    #[test]
    fn a_profile_of_an_object_without_a_cooldown_has_the_built_in_one() {
        let object = planned(&Fixture::model("llama"), &["min=1"]).unwrap();
        assert_eq!(object.spec.cooldown_period, None);
        let profile = profile_of(&object, Backlog::default()).unwrap();
        assert_eq!(profile.cooldown, Profile::built_in().cooldown);
    }

    #[test]
    fn keeps_the_other_signals() {
        let fixture = Fixture::model("llama").annotated("signals", "active-requests=8,request-rate=2");
        let object = planned(&fixture, &["target=9"]).unwrap();
        let thresholds: Vec<&String> =
            object.spec.triggers.iter().map(|it| &it.metadata["threshold"]).collect();
        assert_eq!(thresholds, ["9", "2"]);
    }

    #[rstest]
    #[case("target", "expected key=value, such as target=12")]
    #[case("targt=3", "the most similar one is target")]
    #[case("xyzzy=3", "the keys are target, min, max,")]
    #[case("target=0", "invalid value in --set target=0: expected a target from 0.001")]
    #[case("serviceTime=soon", "invalid value in --set serviceTime=soon: expected off, auto, or a duration")]
    #[case("headroom=9", "expected a number from 1 to 3")]
    #[case("scaleUp.policies=8", "expected 1 to 4 policies such as 8/60s")]
    #[case("scaleUp.policies=0/60s", "expected 1 to 4 policies")]
    #[case("scaleUp.select=max", "expected Max, Min or Disabled")]
    #[case("min=11", "expected an integer <= 10")]
    #[case("max=none", "invalid value \"none\" for autoscaling.kthena.io/max-replicas")]
    fn refuses_invalid_changes(#[case] change: &str, #[case] expected: &str) {
        let error = planned(&Fixture::model("llama"), &[change]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
