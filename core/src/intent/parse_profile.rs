//! Reads a profile as it was written.

use std::fmt::Display;

use super::{
    annotations::{read_target, unknown_signal},
    profile::{
        CreateMonitors, CustomSignal, Direction, Policy, PolicyKind, Profile, PrometheusSettings, Select,
        SignalTarget,
    },
};
use crate::{
    api::{
        keda::Fallback,
        profile::{
            AuthMode, AutoscalingProfileSpec, CreateSpec, CreateWord, CustomSignalSpec, FallbackSpec,
            HeaderValue, PolicySpec, PolicyType, PrometheusSpec, RouterSpec, SelectSpec, SignalSpec,
        },
    },
    domain::{Label, Namespace, ReplicaBounds, Seconds, ValueError},
    promql::{Query, Template},
    signals::{ACTIVATION, RouterSettings, Signal},
};

/// The longest stabilization window that the HPA accepts (Kubernetes `pkg/apis/autoscaling/validation`), in seconds.
const HOUR: i32 = 3600;
/// The longest period of a policy that the HPA accepts, in seconds.
const PERIOD_MAX: i32 = 1800;
/// Longer waits are more likely a slip than meant, in seconds.
const DAY: i32 = 86_400;

impl Profile {
    /// The settings that a profile gives.
    ///
    /// The API server refuses most of what is wrong; the rest is found here.
    ///
    /// # Errors
    /// Every field that is wrong, by its path.
    pub fn read(spec: &AutoscalingProfileSpec) -> Result<Self, Vec<ValueError>> {
        let mut reader = Reader { errors: Vec::new() };
        let mut profile = Self::built_in();
        if let Some(prometheus) = &spec.prometheus {
            reader.set(&mut profile.prometheus, "prometheus", read_prometheus(prometheus).map(Some));
        }
        if let Some(router) = &spec.router {
            reader.set(&mut profile.router, "router", read_router(router));
        }
        reader.set(
            &mut profile.replicas,
            "replicas",
            ReplicaBounds::new(spec.replicas.min, spec.replicas.max),
        );
        reader.set(
            &mut profile.signals,
            "signals",
            read_signals(&spec.signals, spec.custom_signals.is_empty()),
        );
        reader.set(&mut profile.custom_signals, "customSignals", read_custom_signals(&spec.custom_signals));
        reader.seconds(&mut profile.polling_interval, "pollingInterval", &spec.polling_interval, 1, HOUR);
        let up = &spec.scale_up;
        reader.direction(
            &mut profile.behavior.scale_up,
            "scaleUp",
            &up.stabilization_window,
            &up.policies,
            up.select,
        );
        let down = &spec.scale_down;
        reader.direction(
            &mut profile.behavior.scale_down,
            "scaleDown",
            &down.stabilization_window,
            &down.policies,
            down.select,
        );
        reader.seconds(&mut profile.cooldown, "scaleToZero.cooldown", &spec.scale_to_zero.cooldown, 0, DAY);
        reader.seconds(
            &mut profile.initial_cooldown,
            "scaleToZero.initialCooldown",
            &spec.scale_to_zero.initial_cooldown,
            0,
            DAY,
        );
        reader.set(&mut profile.activation, "scaleToZero.activation", spec.scale_to_zero.activation.parse());
        if let Some(fallback) = &spec.fallback {
            reader.set(&mut profile.fallback, "fallback", read_fallback(fallback).map(Some));
        }
        profile.monitors.create = spec.monitors.create.map(create_monitors);
        let labels = spec
            .monitors
            .labels
            .iter()
            .map(|(key, value)| Label::new(key, value).map(Label::into_pair))
            .collect();
        reader.set(&mut profile.monitors.labels, "monitors.labels", labels);
        reader.set(&mut profile.monitors.interval, "monitors.interval", spec.monitors.interval.parse());
        if reader.errors.is_empty() { Ok(profile) } else { Err(reader.errors) }
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

    fn seconds(&mut self, field: &mut i32, path: impl Display, text: &str, least: i32, most: i32) {
        self.set(field, path, Seconds::read(text, least, most));
    }

    fn direction(
        &mut self,
        direction: &mut Direction,
        path: &str,
        window: &str,
        policies: &[PolicySpec],
        select: SelectSpec,
    ) {
        self.seconds(
            &mut direction.stabilization_window,
            format!("{path}.stabilizationWindow"),
            window,
            0,
            HOUR,
        );
        let read = policies.iter().map(read_policy).collect::<Result<Vec<_>, _>>();
        self.set(&mut direction.policies, format!("{path}.policies"), read.and_then(not_empty));
        direction.select = match select {
            SelectSpec::Max => Select::Max,
            SelectSpec::Min => Select::Min,
            SelectSpec::Disabled => Select::Disabled,
        };
    }
}

fn read_prometheus(spec: &PrometheusSpec) -> Result<PrometheusSettings, ValueError> {
    let (bearer, basic) =
        (spec.auth_modes.contains(&AuthMode::Bearer), spec.auth_modes.contains(&AuthMode::Basic));
    if bearer && basic {
        return Err(ValueError::new("authModes: bearer and basic exclude each other"));
    }
    if !spec.auth_modes.is_empty() && spec.authentication_ref.is_none() {
        return Err(ValueError::new("authModes need an authenticationRef that brings the credentials"));
    }
    for (key, HeaderValue(value)) in &spec.headers {
        if key.is_empty()
            || [key, value].iter().any(|text| text.contains([',', '=']) || text.chars().any(char::is_control))
        {
            return Err(ValueError::new(format!(
                "headers: KEDA cannot carry {key:?}, since it has ',' or '=' or a control character"
            )));
        }
    }
    Ok(PrometheusSettings {
        url: spec.url.parse().map_err(|error| ValueError::new(format!("url: {error}")))?,
        authentication: spec.authentication_ref.clone(),
        modes: spec.auth_modes.clone(),
        headers: spec.headers.iter().map(|(key, HeaderValue(value))| (key.clone(), value.clone())).collect(),
        unsafe_ssl: spec.unsafe_ssl,
    })
}

fn not_empty(policies: Vec<Policy>) -> Result<Vec<Policy>, ValueError> {
    if policies.is_empty() {
        return Err(ValueError::new(
            "an empty list would allow no change at all; write at least one policy, or leave the field out",
        ));
    }
    Ok(policies)
}

fn read_policy(spec: &PolicySpec) -> Result<Policy, ValueError> {
    if spec.value < 1 {
        return Err(ValueError::new(format!(
            "the value {} would allow no change; write at least 1",
            spec.value
        )));
    }
    let kind = match spec.kind {
        PolicyType::Pods => PolicyKind::Pods,
        PolicyType::Percent => PolicyKind::Percent,
    };
    Ok(Policy { kind, value: spec.value, period: Seconds::read(&spec.period, 1, PERIOD_MAX)? })
}

fn read_signals(specs: &[SignalSpec], may_not_be_empty: bool) -> Result<Vec<SignalTarget>, ValueError> {
    if specs.is_empty() && may_not_be_empty {
        return Err(ValueError::new(
            "an empty list measures nothing; write at least one signal, or leave the field out",
        ));
    }
    no_duplicates(specs.iter().map(|spec| &spec.name))?;
    let read = |spec: &SignalSpec| {
        let signal = Signal::from_name(&spec.name).ok_or_else(|| unknown_signal(&spec.name, &[]))?;
        Ok(SignalTarget::built_in(signal, read_target(&spec.name, &spec.target)?))
    };
    specs.iter().map(read).collect()
}

fn read_custom_signals(specs: &[CustomSignalSpec]) -> Result<Vec<CustomSignal>, ValueError> {
    no_duplicates(specs.iter().map(|spec| &spec.name))?;
    let read = |spec: &CustomSignalSpec| {
        let CustomSignalSpec { name, query, target, metric_type } = spec;
        if Signal::from_name(name).is_some() || name == ACTIVATION {
            return Err(ValueError::new(format!("{name} is the name of a built-in signal; choose another")));
        }
        let query =
            Template::parse(query).map_err(|error| ValueError::new(format!("{name}: query: {error}")))?;
        Ok(CustomSignal {
            name: name.clone(),
            query,
            target: read_target(name, target)?,
            metric_type: *metric_type,
        })
    };
    specs.iter().map(read).collect()
}

fn no_duplicates<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), ValueError> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name) {
            return Err(ValueError::new(format!("{name} is given twice; keep one")));
        }
        seen.push(name);
    }
    Ok(())
}

fn read_router(spec: &RouterSpec) -> Result<RouterSettings, ValueError> {
    let namespace = spec.namespace.as_deref().map(str::parse::<Namespace>).transpose();
    let presence =
        spec.presence_query.as_deref().filter(|query| !query.trim().is_empty()).map(Query::parse).transpose();
    Ok(RouterSettings {
        namespace: namespace
            .map_err(|error| ValueError::new(format!("namespace: {error}")))?
            .map(Namespace::into_string),
        presence: presence.map_err(|error| ValueError::new(format!("presenceQuery: {error}")))?,
    })
}

fn read_fallback(spec: &FallbackSpec) -> Result<Fallback, ValueError> {
    if spec.failure_threshold < 1 || spec.replicas < 1 {
        return Err(ValueError::new("failureThreshold and replicas must be at least 1"));
    }
    Ok(Fallback {
        failure_threshold: spec.failure_threshold,
        replicas: spec.replicas,
        behavior: Some(spec.behavior),
    })
}

const fn create_monitors(spec: CreateSpec) -> CreateMonitors {
    match spec {
        CreateSpec::Switch(true) => CreateMonitors::UnlessScraped,
        CreateSpec::Switch(false) => CreateMonitors::Never,
        CreateSpec::Word(CreateWord::Always) => CreateMonitors::Always,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::keda::{FallbackBehavior, MetricType};
    use rstest::rstest;

    fn read(yaml: &str) -> Result<Profile, String> {
        let spec: AutoscalingProfileSpec = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        Profile::read(&spec)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn an_empty_profile_is_what_is_built_in() {
        assert_eq!(read("{}").unwrap(), Profile::built_in());
    }

    #[test]
    fn every_setting_replaces_its_default() {
        let yaml = "
            prometheus: {url: 'https://p', authenticationRef: {name: prom}, authModes: [bearer, tls], headers: {X-Scope-OrgID: team-a}, unsafeSsl: true}
            replicas: {min: 0, max: 4}
            signals: [{name: queued-requests, target: '2.5'}]
            pollingInterval: 2s
            scaleUp: {stabilizationWindow: 5s, policies: [{type: Percent, value: 900, period: 1m}], select: Min}
            scaleDown: {stabilizationWindow: 1h, policies: [{type: Pods, value: 3, period: 2s}], select: Disabled}
            router: {namespace: routers, presenceQuery: max(up)}
            customSignals: [{name: slo-queue, query: 'sum(q{model=~{{model}}})', target: '5', metricType: Value}]
            scaleToZero: {cooldown: 10s, initialCooldown: 20s, activation: '2.5'}
            fallback: {replicas: 3}
            monitors: {create: always, labels: {release: kps}, interval: 1s}";
        let profile = read(yaml).unwrap();
        let prometheus = profile.prometheus.unwrap();
        assert_eq!(
            (prometheus.modes.len(), prometheus.headers["X-Scope-OrgID"].as_str(), prometheus.unsafe_ssl),
            (2, "team-a", true)
        );
        assert_eq!((profile.replicas.min(), profile.replicas.max(), profile.polling_interval), (0, 4, 2));
        assert_eq!(
            (
                profile.behavior.scale_up.stabilization_window,
                profile.behavior.scale_down.stabilization_window
            ),
            (5, 3600)
        );
        assert_eq!(
            profile.behavior.scale_up.policies,
            [Policy { kind: PolicyKind::Percent, value: 900, period: 60 }]
        );
        assert_eq!(
            (profile.behavior.scale_up.select, profile.behavior.scale_down.select),
            (Select::Min, Select::Disabled)
        );
        assert_eq!(profile.router.namespace.as_deref(), Some("routers"));
        assert_eq!(profile.router.presence.map(|query| query.to_string()).as_deref(), Some("max(up)"));
        assert_eq!(
            profile
                .custom_signals
                .iter()
                .map(|custom| (custom.name.as_str(), custom.metric_type))
                .collect::<Vec<_>>(),
            [("slo-queue", MetricType::Value)]
        );
        let fallback = profile.fallback.unwrap();
        assert_eq!(
            (fallback.behavior, fallback.failure_threshold, fallback.replicas),
            (Some(FallbackBehavior::CurrentReplicasIfHigher), 10, 3)
        );
        assert_eq!(
            (profile.monitors.create, profile.activation.to_string().as_str()),
            (Some(CreateMonitors::Always), "2.5")
        );
        assert_eq!(
            (profile.cooldown, profile.initial_cooldown, profile.monitors.interval.to_string().as_str()),
            (10, 20, "1s")
        );
    }

    #[rstest]
    #[case("replicas: {min: 11}", "replicas: min-replicas 11 is greater than max-replicas 10")]
    #[case("prometheus: {url: 'p:9090'}", "prometheus: url: ")]
    #[case("prometheus: {url: 'http://p', authModes: [bearer]}", "authenticationRef")]
    #[case(
        "prometheus: {url: 'http://p', authenticationRef: {name: a}, authModes: [bearer, basic]}",
        "exclude each other"
    )]
    #[case("prometheus: {url: 'http://p', headers: {a: 'b=c'}}", "headers: KEDA cannot carry")]
    #[case("pollingInterval: soon", "pollingInterval: \"soon\" is no duration")]
    #[case("scaleUp: {stabilizationWindow: 2h}", "scaleUp.stabilizationWindow: ")]
    #[case("scaleUp: {policies: []}", "scaleUp.policies: an empty list")]
    #[case("scaleDown: {policies: [{type: Pods, value: 0, period: 1s}]}", "scaleDown.policies: the value 0")]
    #[case("monitors: {labels: {'a b': c}}", "monitors.labels: ")]
    #[case("signals: []", "signals: an empty list")]
    #[case("signals: [{name: active-request, target: '1'}]", "did you mean active-requests?")]
    #[case(
        "signals: [{name: kv-cache, target: '1'}, {name: kv-cache, target: '2'}]",
        "kv-cache is given twice"
    )]
    #[case(
        "customSignals: [{name: kv-cache, query: sum(a), target: '1'}]",
        "customSignals: kv-cache is the name of a built-in signal"
    )]
    #[case(
        "customSignals: [{name: q, query: a, target: '1'}]",
        "customSignals: q: query: it may answer several values"
    )]
    #[case(
        "customSignals: [{name: q, query: 'sum(a{b={{pod}}})', target: '1'}]",
        "unknown placeholder {{pod}}"
    )]
    #[case(
        "customSignals: [{name: q, query: sum(a), target: none}]",
        "customSignals: q: \"none\" is no target"
    )]
    #[case("router: {namespace: A}", "router: namespace: ")]
    #[case("router: {presenceQuery: up}", "router: presenceQuery: it may answer several values")]
    #[case("scaleToZero: {activation: some}", "scaleToZero.activation: ")]
    #[case("fallback: {replicas: 0}", "fallback: failureThreshold and replicas")]
    fn names_what_is_wrong(#[case] yaml: &str, #[case] why: &str) {
        let error = read(yaml).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
