//! Lays a profile as it was written over the built-in defaults.

use std::{fmt::Display, str::FromStr};

use super::{
    annotations::signal_target,
    label::Label,
    profile::{Direction, Policy, PolicyKind, Profile, PrometheusSettings, SignalTarget},
    values::{ReplicaBounds, Seconds, ValueError},
};
use crate::api::profile::{AutoscalingProfileSpec, DirectionSpec, PolicySpec, PolicyType, SignalSpec};

/// The longest stabilization window that the HPA accepts, in seconds (Kubernetes `pkg/apis/autoscaling/validation`).
const WINDOW_MAX: i32 = 3600;
/// The longest period of a policy that the HPA accepts, in seconds.
const PERIOD_MAX: i32 = 1800;
/// A day, in seconds: longer waits are more likely a slip than meant.
const DAY: i32 = 86_400;

impl Profile {
    /// These settings, with what the profile says in place of them.
    ///
    /// # Errors
    /// Every field that is wrong, by its path.
    pub fn overlaid(mut self, spec: &AutoscalingProfileSpec) -> Result<Self, Vec<ValueError>> {
        let mut reader = Reader { errors: Vec::new() };
        if let Some(prometheus) = &spec.prometheus {
            reader.set(&mut self.prometheus, "prometheus.url", prometheus.url.parse().map(|url| Some(PrometheusSettings { url })));
        }
        let (min, max) = (spec.replicas.min.unwrap_or(self.replicas.min()), spec.replicas.max.unwrap_or(self.replicas.max()));
        reader.set(&mut self.replicas, "replicas", ReplicaBounds::new(min, max));
        if let Some(signals) = &spec.signals {
            reader.set(&mut self.signals, "signals", read_signals(signals));
        }
        reader.seconds(&mut self.polling_interval, "pollingInterval", spec.polling_interval.as_deref(), 1, DAY);
        reader.direction(&mut self.behavior.scale_up, "scaleUp", &spec.scale_up);
        reader.direction(&mut self.behavior.scale_down, "scaleDown", &spec.scale_down);
        reader.seconds(&mut self.cooldown, "scaleToZero.cooldown", spec.scale_to_zero.cooldown.as_deref(), 0, DAY);
        reader.seconds(&mut self.initial_cooldown, "scaleToZero.initialCooldown", spec.scale_to_zero.initial_cooldown.as_deref(), 0, DAY);
        if let Some(labels) = &spec.monitors.labels {
            let read = labels.iter().map(|(key, value)| Label::new(key, value).map(Label::into_pair)).collect();
            reader.set(&mut self.monitors.labels, "monitors.labels", read);
        }
        reader.parsed(&mut self.monitors.interval, "monitors.interval", spec.monitors.interval.as_deref());
        if reader.errors.is_empty() { Ok(self) } else { Err(reader.errors) }
    }
}

struct Reader {
    errors: Vec<ValueError>,
}

impl Reader {
    fn set<T>(&mut self, field: &mut T, path: impl Display, read: Result<T, ValueError>) {
        match read {
            Ok(value) => *field = value,
            Err(error) => self.errors.push(ValueError::new(format!("{path}: {error}"))),
        }
    }

    fn parsed<T: FromStr<Err = ValueError>>(&mut self, field: &mut T, path: impl Display, text: Option<&str>) {
        if let Some(text) = text {
            self.set(field, path, text.parse());
        }
    }

    fn seconds(&mut self, field: &mut i32, path: impl Display, text: Option<&str>, least: i32, most: i32) {
        if let Some(text) = text {
            self.set(field, path, Seconds::read(text, least, most));
        }
    }

    fn direction(&mut self, direction: &mut Direction, path: &str, spec: &DirectionSpec) {
        let window = spec.stabilization_window.as_deref();
        self.seconds(&mut direction.stabilization_window, format!("{path}.stabilizationWindow"), window, 0, WINDOW_MAX);
        if let Some(policies) = &spec.policies {
            let read = policies.iter().map(read_policy).collect::<Result<Vec<_>, _>>();
            self.set(&mut direction.policies, format!("{path}.policies"), read.and_then(not_empty));
        }
    }
}

fn not_empty(policies: Vec<Policy>) -> Result<Vec<Policy>, ValueError> {
    if policies.is_empty() {
        return Err(ValueError::new("an empty list would allow no change at all; write at least one policy, or leave the field out"));
    }
    Ok(policies)
}

fn read_policy(spec: &PolicySpec) -> Result<Policy, ValueError> {
    if spec.value < 1 {
        return Err(ValueError::new(format!("the value {} would allow no change; write at least 1", spec.value)));
    }
    let kind = match spec.kind {
        PolicyType::Pods => PolicyKind::Pods,
        PolicyType::Percent => PolicyKind::Percent,
    };
    Ok(Policy { kind, value: spec.value, period: Seconds::read(&spec.period, 1, PERIOD_MAX)? })
}

fn read_signals(specs: &[SignalSpec]) -> Result<Vec<SignalTarget>, ValueError> {
    if specs.is_empty() {
        return Err(ValueError::new("an empty list measures nothing; write at least one signal, or leave the field out"));
    }
    let mut signals: Vec<SignalTarget> = Vec::new();
    for spec in specs {
        let signal = signal_target(&spec.name, &spec.target)?;
        if signals.iter().any(|seen| seen.signal == signal.signal) {
            return Err(ValueError::new(format!("{} is given twice; keep one", signal.signal)));
        }
        signals.push(signal);
    }
    Ok(signals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn overlaid(yaml: &str) -> Result<Profile, String> {
        let spec: AutoscalingProfileSpec = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        Profile::built_in().overlaid(&spec).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn an_empty_profile_changes_nothing() {
        assert_eq!(overlaid("{}").unwrap(), Profile::built_in());
    }

    #[test]
    fn every_setting_replaces_its_default() {
        let yaml = "
            prometheus: {url: 'http://p:9090'}
            replicas: {min: 0, max: 4}
            signals: [{name: queued-requests, target: '2.5'}]
            pollingInterval: 2s
            scaleUp: {stabilizationWindow: 5s, policies: [{type: Percent, value: 900, period: 1m}]}
            scaleDown: {stabilizationWindow: 1h, policies: [{type: Pods, value: 3, period: 2s}]}
            scaleToZero: {cooldown: 10s, initialCooldown: 20s}
            monitors: {labels: {release: kps}, interval: 1s}";
        let profile = overlaid(yaml).unwrap();
        assert_eq!((profile.replicas.min(), profile.replicas.max(), profile.polling_interval), (0, 4, 2));
        assert_eq!((profile.behavior.scale_up.stabilization_window, profile.behavior.scale_down.stabilization_window), (5, 3600));
        assert_eq!(profile.behavior.scale_up.policies, [Policy { kind: PolicyKind::Percent, value: 900, period: 60 }]);
        assert_eq!((profile.cooldown, profile.initial_cooldown, profile.monitors.interval.to_string().as_str()), (10, 20, "1s"));
    }

    #[rstest]
    #[case("replicas: {min: 11}", "replicas: min-replicas 11 is greater than max-replicas 10")]
    #[case("prometheus: {url: 'p:9090'}", "prometheus.url: ")]
    #[case("pollingInterval: soon", "pollingInterval: \"soon\" is no duration")]
    #[case("scaleUp: {stabilizationWindow: 2h}", "scaleUp.stabilizationWindow: ")]
    #[case("scaleUp: {policies: []}", "scaleUp.policies: an empty list")]
    #[case("scaleDown: {policies: [{type: Pods, value: 0, period: 1s}]}", "scaleDown.policies: the value 0")]
    #[case("monitors: {labels: {'a b': c}}", "monitors.labels: ")]
    #[case("signals: []", "signals: an empty list")]
    #[case("signals: [{name: active-request, target: '1'}]", "did you mean active-requests?")]
    #[case("scaleup: {}", "unknown field")]
    fn names_what_is_wrong(#[case] yaml: &str, #[case] why: &str) {
        let error = overlaid(yaml).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
