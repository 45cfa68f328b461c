//! Parses the spec of an AutoscalingProfile.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{
    annotations::suggest_signal,
    profile::{
        Behavior, CreateMonitors, CustomSignal, Direction, MonitorSettings, Policy, Profile,
        PrometheusSettings, RouterEndpoint, Select, SignalSource, SignalTarget, check_demand,
    },
    roles::{self, RoleTarget, Roles},
};
use crate::{
    api::{
        keda::Fallback,
        monitoring::{KeyReference, Scheme, SecretOrConfigMap, TlsConfig},
        profile::{
            AuthMode, AutoscalingProfileSpec, BacklogSpec, CreateSpec, CreateWord, CustomSignalSpec,
            FallbackSpec, HeaderValue, HoldSpec, LabelValue, MatcherValue, MonitorsSpec,
            NamespacePatternSpec, PolicySpec, PrometheusSpec, ReplicasSpec, RoleRatioSpec, RoleSpec,
            RouterSpec, SignalSpec,
        },
    },
    domain::{
        ACTIVATION, Backlog, Hold, InvalidValue, Kibibytes, Label, MAX_BODIES, MAX_BODY, Namespace,
        NamespacePattern, ReplicaBounds, RoleRatio, SeriesMatchers, Signal, Target, ValueError, seconds,
    },
    promql::{Query, QueryError, Template, without_comments},
    signals::RouterSettings,
};

/// Range of polling intervals, in seconds.
const POLLING_INTERVAL: RangeInclusive<i32> = 1..=3600;
/// Parameters of a query that a profile may set.
const QUERY_PARAMETERS_MAX: usize = 16;
/// Range of limits of a query, in seconds.
const QUERY_TIMEOUT: RangeInclusive<i32> = 1..=60;
/// Range of stabilization windows that the HPA accepts (Kubernetes `pkg/apis/autoscaling/validation`), in
/// seconds.
const STABILIZATION_WINDOW: RangeInclusive<i32> = 0..=3600;
/// Range of policy periods that the HPA accepts, in seconds.
const POLICY_PERIOD: RangeInclusive<i32> = 1..=1800;
/// Range of cooldowns, in seconds; a longer one is more likely a mistake than an intention.
const COOLDOWN: RangeInclusive<i32> = 0..=86_400;

/// Range of times for which a request is held, in seconds.
const HOLD_TIMEOUT: RangeInclusive<i32> = 10..=3600;
/// Range of times until the first keep-alive comment, in seconds.
const KEEP_ALIVE_AFTER: RangeInclusive<i32> = 1..=3600;
/// Range of numbers of requests that are held at a time.
const HELD_REQUESTS: RangeInclusive<i32> = 1..=10_000;

/// Maximum numbers of elements and characters, as in the CRD.
const HEADERS_MAX: usize = 16;
const HEADER_NAME_MAX: usize = 128;
const HEADER_VALUE_MAX: usize = 512;
const LABELS_MAX: usize = 32;
const SIGNALS_MAX: usize = 8;
const POLICIES_MAX: usize = 4;
const QUERY_MAX: usize = 2048;
const QUANTITY_MAX: usize = 14;
const FAILURES_MAX: i32 = 1000;
const AUTH_MODES_MAX: usize = 4;
const AUTHENTICATION_NAME_MAX: usize = 253;

impl Profile {
    /// The built-in settings: the defaults of the CRD.
    pub fn built_in() -> Self {
        Parser::default().profile(&AutoscalingProfileSpec::default())
    }

    /// Parses the settings of a profile.
    ///
    /// The API server rejects most invalid values by the CRD; this finds the rest, such as queries.
    ///
    /// # Errors
    /// Every invalid field, with its path.
    pub fn read(spec: &AutoscalingProfileSpec) -> Result<Self, Vec<InvalidValue>> {
        let mut parser = Parser::default();
        let profile = parser.profile(spec);
        if parser.errors.is_empty() { Ok(profile) } else { Err(parser.errors) }
    }
}

/// Collects the errors; a setting with an error gets the default of its type, and the caller drops the
/// profile.
#[derive(Default)]
struct Parser {
    errors: Vec<InvalidValue>,
}

impl Parser {
    fn profile(&mut self, spec: &AutoscalingProfileSpec) -> Profile {
        let (up, down, to_zero) = (&spec.scale_up, &spec.scale_down, &spec.scale_to_zero);
        self.text("spec.scaleToZero.activation", &to_zero.activation, QUANTITY_MAX);
        let signals = self.signals(&spec.signals, spec.custom_signals.is_empty());
        let custom_signals = self.custom_signals(&spec.custom_signals);
        self.signals_together(&signals, &custom_signals);
        Profile {
            allowed_namespaces: spec.allowed_namespaces.as_deref().map(|allowed| self.namespaces(allowed)),
            prometheus: spec.prometheus.as_ref().and_then(|prometheus| self.prometheus(prometheus)),
            router: spec.router.as_ref().map(|router| self.router(router)).unwrap_or_default(),
            replicas: self.replicas(&spec.replicas),
            signals,
            custom_signals,
            roles: self.roles(&spec.roles, spec.role_ratio.as_ref()),
            backlog: self.backlog(&spec.backlog),
            polling_interval: self.seconds("spec.pollingInterval", &spec.polling_interval, POLLING_INTERVAL),
            behavior: Behavior {
                scale_up: self.direction("spec.scaleUp", &up.stabilization_window, &up.policies, up.select),
                scale_down: self.direction(
                    "spec.scaleDown",
                    &down.stabilization_window,
                    &down.policies,
                    down.select,
                ),
            },
            cooldown: self.seconds("spec.scaleToZero.cooldown", &to_zero.cooldown, COOLDOWN),
            initial_cooldown: self.seconds(
                "spec.scaleToZero.initialCooldown",
                &to_zero.initial_cooldown,
                COOLDOWN,
            ),
            activation: self.value(
                "spec.scaleToZero.activation",
                &to_zero.activation,
                to_zero.activation.parse(),
            ),
            hold: to_zero.hold.as_ref().map(|hold| self.hold(hold)),
            fallback: spec.fallback.as_ref().map(|fallback| self.fallback(fallback)),
            monitors: self.monitors(&spec.monitors),
            router_endpoint: spec
                .router
                .as_ref()
                .map(|router| self.router_endpoint(router))
                .unwrap_or_default(),
        }
    }

    fn backlog(&mut self, BacklogSpec { service_time, headroom, drain_time }: &BacklogSpec) -> Backlog {
        for (path, text) in [
            ("spec.backlog.serviceTime", service_time),
            ("spec.backlog.headroom", headroom),
            ("spec.backlog.drainTime", drain_time),
        ] {
            self.text(path, text, QUANTITY_MAX);
        }
        Backlog {
            service_time: self.value("spec.backlog.serviceTime", service_time, service_time.parse()),
            headroom: self.value("spec.backlog.headroom", headroom, headroom.parse()),
            drain_time: self.value("spec.backlog.drainTime", drain_time, drain_time.parse()),
        }
    }

    fn roles(&mut self, specs: &[RoleSpec], ratio: Option<&RoleRatioSpec>) -> Option<Roles> {
        let path = "spec.roles";
        if specs.is_empty() {
            if ratio.is_some() {
                self.reject("spec.roleRatio", "", ValueError::expected("two entries of spec.roles"));
            }
            return None;
        }
        let roles: Vec<RoleTarget> = specs
            .iter()
            .enumerate()
            .filter_map(|(i, spec)| self.role(&format!("{path}[{i}]"), spec))
            .collect();
        let ratio = ratio.and_then(|RoleRatioSpec { min, max }| {
            let ratio = RoleRatio::new(min.as_deref(), max.as_deref());
            ratio.map_err(|error| self.reject("spec.roleRatio", "", error)).ok()
        });
        // A role with an error has been reported already.
        if roles.len() != specs.len() {
            return None;
        }
        let count = specs.len().to_string();
        Roles::new(roles, ratio).map_err(|error| self.reject(path, &count, error)).ok()
    }

    fn role(&mut self, path: &str, spec: &RoleSpec) -> Option<RoleTarget> {
        let RoleSpec { name, min, max, signals } = spec;
        let read: Result<Vec<SignalTarget>, ValueError> =
            signals.iter().map(|signal| roles::signal(&signal.name, &signal.target)).collect();
        let read = roles::check_name(name).and(read).and_then(roles::signals).and_then(|signals| {
            Ok(RoleTarget { name: name.clone(), signals, bounds: roles::bounds(*min, *max)? })
        });
        read.map_err(|error| self.reject(path, name, error)).ok()
    }

    fn namespaces(&mut self, specs: &[NamespacePatternSpec]) -> Vec<NamespacePattern> {
        let path = "spec.allowedNamespaces";
        self.length(path, specs.len(), 1, 64);
        let paths = (0..).map(|i| format!("{path}[{i}]"));
        let patterns = specs.iter().zip(paths);
        patterns
            .filter_map(|(NamespacePatternSpec(text), path)| self.parse(path, text, text.parse()))
            .collect()
    }

    fn prometheus(&mut self, spec: &PrometheusSpec) -> Option<PrometheusSettings> {
        self.auth_modes(spec);
        self.headers(&spec.headers);
        self.authentication(spec);
        self.matchers(&spec.matchers);
        self.query_parameters(&spec.query_parameters);
        let timeout = spec.timeout.as_deref();
        let timeout = timeout.map(|text| self.seconds("spec.prometheus.timeout", text, QUERY_TIMEOUT));
        let aws_region = spec.aws_region.clone().filter(|region| self.aws_region(region));
        let url = self.parse("spec.prometheus.url", &spec.url, spec.url.parse())?;
        Some(PrometheusSettings {
            url,
            authentication: spec.authentication_ref.clone(),
            modes: spec.auth_modes.clone(),
            headers: spec
                .headers
                .iter()
                .map(|(name, HeaderValue(value))| (name.clone(), value.clone()))
                .collect(),
            unsafe_ssl: spec.unsafe_ssl,
            matchers: matchers(&spec.matchers),
            query_parameters: spec
                .query_parameters
                .iter()
                .map(|(name, HeaderValue(value))| (name.clone(), value.clone()))
                .collect(),
            timeout,
            aws_region,
        })
    }

    fn authentication(&mut self, spec: &PrometheusSpec) {
        self.length("spec.prometheus.authModes", spec.auth_modes.len(), 0, AUTH_MODES_MAX);
        let Some(reference) = &spec.authentication_ref else { return };
        let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let name = reference.name.as_str();
        let is_name = (1..=AUTHENTICATION_NAME_MAX).contains(&name.len())
            && name.starts_with(is_edge)
            && name.ends_with(is_edge)
            && name.chars().all(|c| is_edge(c) || c == '-' || c == '.');
        if !is_name {
            let expected = ValueError::expected("the name of an object, a lower-case DNS name");
            self.reject("spec.prometheus.authenticationRef.name", name, expected);
        }
    }

    /// Reports the first invalid matcher.
    fn matchers(&mut self, matchers: &BTreeMap<String, MatcherValue>) {
        const PATH: &str = "spec.prometheus.matchers";
        if matchers.len() > SeriesMatchers::MAX {
            let expected = ValueError::expected(format!("at most {} labels", SeriesMatchers::MAX));
            return self.reject(PATH, &matchers.len().to_string(), expected);
        }
        for (name, MatcherValue(value)) in matchers {
            if let Err(expected) = SeriesMatchers::check_name(name) {
                return self.reject(PATH, name, expected);
            }
            if let Err(expected) = SeriesMatchers::check_value(value) {
                return self.reject(format!("{PATH}[{name}]"), value, expected);
            }
        }
    }

    /// Reports the first invalid parameter: the map has no bound on its keys.
    fn query_parameters(&mut self, parameters: &BTreeMap<String, HeaderValue>) {
        let path = "spec.prometheus.queryParameters";
        self.length(path, parameters.len(), 0, QUERY_PARAMETERS_MAX);
        for (name, HeaderValue(value)) in parameters {
            if ["", "query", "time"].contains(&name.as_str()) || name.contains([',', '=']) {
                let expected =
                    "text without ',' and '=', which KEDA cannot carry, and neither query nor time";
                return self.reject(path, name, ValueError::expected(expected));
            }
            if value.contains([',', '=']) {
                let expected = "text without ',' and '=', which KEDA cannot carry";
                return self.reject(format!("{path}[{name}]"), value, ValueError::expected(expected));
            }
        }
    }

    /// `true` if the region is valid; reports it otherwise.
    fn aws_region(&mut self, region: &str) -> bool {
        let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_valid = region.len() <= 32
            && region.contains('-')
            && region.split('-').all(|part| !part.is_empty() && part.chars().all(is_label));
        if !is_valid {
            let expected = ValueError::expected("an AWS region such as eu-central-1");
            self.reject("spec.prometheus.awsRegion", region, expected);
        }
        is_valid
    }

    fn auth_modes(&mut self, spec: &PrometheusSpec) {
        let modes = &spec.auth_modes;
        let expected = if modes.contains(&AuthMode::Bearer) && modes.contains(&AuthMode::Basic) {
            "at most one of bearer and basic"
        } else if !modes.is_empty() && spec.authentication_ref.is_none() {
            "no modes without spec.prometheus.authenticationRef, which names the credentials"
        } else {
            return;
        };
        let modes: Vec<&str> = modes.iter().map(Into::into).collect();
        self.reject("spec.prometheus.authModes", &modes.join(", "), ValueError::expected(expected));
    }

    /// Reports the first invalid header.
    fn headers(&mut self, headers: &BTreeMap<String, HeaderValue>) {
        let path = "spec.prometheus.headers";
        self.length(path, headers.len(), 0, HEADERS_MAX);
        for (name, HeaderValue(value)) in headers {
            if !is_header_name(name) {
                return self.reject(path, name, ValueError::expected("the name of an HTTP header"));
            }
            if value.len() > HEADER_VALUE_MAX || !value.chars().all(is_header_text) {
                let expected = format!(
                    "at most {HEADER_VALUE_MAX} characters of ASCII text without ',' and '=', which KEDA cannot carry"
                );
                return self.reject(format!("{path}[{name}]"), value, ValueError::expected(expected));
            }
        }
    }

    fn router(&mut self, spec: &RouterSpec) -> RouterSettings {
        let namespace = spec.namespace.as_deref().and_then(|namespace| {
            self.parse("spec.router.namespace", namespace, namespace.parse::<Namespace>())
        });
        let query = spec.presence_query.as_deref().filter(|query| !without_comments(query).is_empty());
        let presence =
            query.and_then(|query| self.query("spec.router.presenceQuery", query, Query::parse(query)));
        RouterSettings { namespace: namespace.map(Namespace::into_string), presence }
    }

    fn router_endpoint(&mut self, spec: &RouterSpec) -> RouterEndpoint {
        let scheme = spec.scheme.unwrap_or_default();
        if let Some(tls) = &spec.tls_config {
            if scheme == Scheme::Http {
                let expected = ValueError::expected("https where spec.router.tlsConfig is set");
                self.reject("spec.router.scheme", scheme.into(), expected);
            }
            self.tls(tls);
        }
        RouterEndpoint { scheme, tls: spec.tls_config.clone() }
    }

    fn tls(&mut self, tls: &TlsConfig) {
        let path = "spec.router.tlsConfig";
        if tls.cert.is_some() != tls.key_secret.is_some() {
            let given = if tls.cert.is_some() { "cert" } else { "keySecret" };
            self.reject(path, given, ValueError::expected("both cert and keySecret, or neither"));
        }
        let references =
            [tls.ca.as_ref(), tls.cert.as_ref()].into_iter().flatten().map(|reference| match reference {
                SecretOrConfigMap::Secret(reference) | SecretOrConfigMap::ConfigMap(reference) => reference,
            });
        for KeyReference { name, key } in references.chain(&tls.key_secret) {
            if name.is_empty() || key.is_empty() {
                self.reject(path, "", ValueError::expected("a name and a key in each reference"));
            }
        }
    }

    fn replicas(&mut self, spec: &ReplicasSpec) -> ReplicaBounds {
        let ReplicasSpec { min, max } = *spec;
        self.at_least("spec.replicas.min", min, 0);
        self.at_least("spec.replicas.max", max, 1);
        if max >= 1 && min > max {
            let expected = ValueError::expected(format!("an integer <= spec.replicas.max, which is {max}"));
            self.reject("spec.replicas.min", &min.to_string(), expected);
        }
        ReplicaBounds::new(min, max).unwrap_or_default()
    }

    fn signals(&mut self, specs: &[SignalSpec], may_not_be_empty: bool) -> Vec<SignalTarget> {
        if specs.is_empty() && may_not_be_empty {
            self.reject(
                "spec.signals",
                "[]",
                ValueError::expected("at least one signal, or one of customSignals"),
            );
        }
        self.length("spec.signals", specs.len(), 0, SIGNALS_MAX);
        self.unique("spec.signals", specs.iter().map(|spec| spec.name.as_str()));
        specs
            .iter()
            .enumerate()
            .filter_map(|(i, spec)| self.signal(&format!("spec.signals[{i}]"), spec))
            .collect()
    }

    /// Reports signals that need another one beside them, and custom signals with the name of a built-in one.
    fn signals_together(&mut self, signals: &[SignalTarget], custom: &[CustomSignal]) {
        let custom_sources = custom.iter().cloned().map(SignalSource::Custom);
        let sources: Vec<SignalSource> =
            signals.iter().map(|signal| signal.source.clone()).chain(custom_sources).collect();
        if let Err(expected) = check_demand(&sources) {
            let names: Vec<&str> = sources.iter().map(SignalSource::name).collect();
            self.reject("spec.signals", &names.join(", "), expected);
        }
        for (i, custom) in custom.iter().enumerate() {
            if signals.iter().any(|signal| signal.source.name() == custom.name) {
                let expected = ValueError::expected("a name that none of spec.signals has");
                self.reject(format!("spec.customSignals[{i}].name"), &custom.name, expected);
            }
        }
    }

    fn signal(&mut self, path: &str, spec: &SignalSpec) -> Option<SignalTarget> {
        self.text(format!("{path}.target"), &spec.target, QUANTITY_MAX);
        let signal = Signal::from_name(&spec.name).ok_or_else(|| {
            ValueError::expected(format!("a built-in signal; {}", suggest_signal(&spec.name, &[])))
        });
        let signal = self.parse(format!("{path}.name"), &spec.name, signal)?;
        let target = SignalTarget::built_in(signal, &spec.target);
        self.parse(format!("{path}.target"), &spec.target, target)
    }

    fn custom_signals(&mut self, specs: &[CustomSignalSpec]) -> Vec<CustomSignal> {
        self.length("spec.customSignals", specs.len(), 0, SIGNALS_MAX);
        self.unique("spec.customSignals", specs.iter().map(|spec| spec.name.as_str()));
        let paths = (0..).map(|i| format!("spec.customSignals[{i}]"));
        specs.iter().zip(paths).filter_map(|(spec, path)| self.custom_signal(&path, spec)).collect()
    }

    fn custom_signal(&mut self, path: &str, spec: &CustomSignalSpec) -> Option<CustomSignal> {
        let CustomSignalSpec { name, query, target, metric_type } = spec;
        if Signal::from_name(name).is_some_and(Signal::is_reserved) || name == ACTIVATION {
            let expected = ValueError::expected("a name that no built-in signal has");
            self.reject(format!("{path}.name"), name, expected);
        }
        if !is_signal_name(name) {
            let expected = ValueError::expected("a name of lower-case letters, digits and '-', at most 63");
            self.reject(format!("{path}.name"), name, expected);
        }
        let target = self.target(path, target);
        let query = self.query(&format!("{path}.query"), query, Template::parse(query))?;
        Some(CustomSignal { name: name.clone(), query, target: target?, metric_type: *metric_type })
    }

    fn target(&mut self, path: &str, text: &str) -> Option<Target> {
        let target = self.parse(format!("{path}.target"), text, text.parse())?;
        self.text(format!("{path}.target"), text, QUANTITY_MAX);
        Some(target)
    }

    fn unique<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = Vec::new();
        for (i, name) in names.enumerate() {
            if seen.contains(&name) {
                let expected = ValueError::expected("each signal once, but it is repeated");
                self.reject(format!("{path}[{i}].name"), name, expected);
            }
            seen.push(name);
        }
    }

    fn direction(&mut self, path: &str, window: &str, policies: &[PolicySpec], select: Select) -> Direction {
        if policies.is_empty() {
            self.reject(format!("{path}.policies"), "[]", ValueError::expected("at least one policy"));
        }
        self.length(format!("{path}.policies"), policies.len(), 0, POLICIES_MAX);
        let paths = (0..).map(|i| format!("{path}.policies[{i}]"));
        Direction {
            stabilization_window: self.seconds(
                format!("{path}.stabilizationWindow"),
                window,
                STABILIZATION_WINDOW,
            ),
            policies: policies.iter().zip(paths).map(|(spec, path)| self.policy(&path, spec)).collect(),
            select,
        }
    }

    fn policy(&mut self, path: &str, spec: &PolicySpec) -> Policy {
        self.at_least(format!("{path}.value"), spec.value, 1);
        let period = self.seconds(format!("{path}.period"), &spec.period, POLICY_PERIOD);
        Policy { kind: spec.kind, value: spec.value, period }
    }

    fn hold(&mut self, spec: &HoldSpec) -> Hold {
        let path = "spec.scaleToZero.hold";
        if !HELD_REQUESTS.contains(&spec.max_requests) {
            let expected = format!("an integer from {} to {}", HELD_REQUESTS.start(), HELD_REQUESTS.end());
            let expected = ValueError::expected(expected);
            self.reject(format!("{path}.maxRequests"), &spec.max_requests.to_string(), expected);
        }
        let max_body = Kibibytes::parse(&spec.max_body, MAX_BODY);
        let max_bodies = Kibibytes::parse(&spec.max_bodies, MAX_BODIES);
        if let (Ok(one), Ok(all)) = (&max_body, &max_bodies)
            && one > all
        {
            let expected = ValueError::expected(format!(
                "a size of at most {path}.maxBodies, which is {}",
                spec.max_bodies
            ));
            self.reject(format!("{path}.maxBody"), &spec.max_body, expected);
        }
        Hold {
            timeout: self.seconds(format!("{path}.timeout"), &spec.timeout, HOLD_TIMEOUT),
            max_requests: spec.max_requests,
            max_body: self.value(format!("{path}.maxBody"), &spec.max_body, max_body),
            max_bodies: self.value(format!("{path}.maxBodies"), &spec.max_bodies, max_bodies),
            keep_alive_after: self.seconds(
                format!("{path}.keepAliveAfter"),
                &spec.keep_alive_after,
                KEEP_ALIVE_AFTER,
            ),
        }
    }

    fn fallback(&mut self, spec: &FallbackSpec) -> Fallback {
        self.at_least("spec.fallback.failureThreshold", spec.failure_threshold, 1);
        if spec.failure_threshold > FAILURES_MAX {
            let expected = ValueError::expected(format!("an integer <= {FAILURES_MAX}"));
            self.reject("spec.fallback.failureThreshold", &spec.failure_threshold.to_string(), expected);
        }
        self.at_least("spec.fallback.replicas", spec.replicas, 1);
        Fallback {
            failure_threshold: spec.failure_threshold,
            replicas: spec.replicas,
            behavior: Some(spec.behavior),
        }
    }

    fn monitors(&mut self, spec: &MonitorsSpec) -> MonitorSettings {
        self.labels(&spec.labels);
        MonitorSettings {
            create: spec.create.map(create_monitors),
            labels: spec.labels.iter().map(|(key, LabelValue(value))| (key.clone(), value.clone())).collect(),
            interval: self.value("spec.monitors.interval", &spec.interval, spec.interval.parse()),
        }
    }

    /// Reports the first invalid label: the map has no bound on its size.
    fn labels(&mut self, labels: &BTreeMap<String, LabelValue>) {
        self.length("spec.monitors.labels", labels.len(), 0, LABELS_MAX);
        for (key, LabelValue(value)) in labels {
            if let Err(expected) = Label::check_key(key) {
                return self.reject("spec.monitors.labels", key, expected);
            }
            if let Err(expected) = Label::check_value(value) {
                return self.reject(format!("spec.monitors.labels[{key}]"), value, expected);
            }
        }
    }

    fn seconds(&mut self, path: impl Into<String>, text: &str, range: RangeInclusive<i32>) -> i32 {
        self.value(path, text, seconds(text, range))
    }

    /// Checks the number of elements of a list or a map.
    fn length(&mut self, path: impl Into<String>, length: usize, min: usize, max: usize) {
        if !(min..=max).contains(&length) {
            let expected = ValueError::expected(format!("{min} to {max} elements"));
            self.reject(path, &format!("{length} elements"), expected);
        }
    }

    /// Checks the length of a text, in characters.
    fn text(&mut self, path: impl Into<String>, text: &str, max: usize) {
        if text.chars().count() > max {
            self.reject(path, text, ValueError::expected(format!("at most {max} characters")));
        }
    }

    fn at_least(&mut self, path: impl Into<String>, value: i32, min: i32) {
        if value < min {
            self.reject(path, &value.to_string(), ValueError::expected(format!("an integer >= {min}")));
        }
    }

    fn query<T>(&mut self, path: &str, text: &str, parsed: Result<T, QueryError>) -> Option<T> {
        self.text(path, text, QUERY_MAX);
        self.parse(path, text, parsed.map_err(ValueError::from))
    }

    fn value<T: Default>(&mut self, path: impl Into<String>, text: &str, parsed: Result<T, ValueError>) -> T {
        self.parse(path, text, parsed).unwrap_or_default()
    }

    fn parse<T>(&mut self, path: impl Into<String>, text: &str, parsed: Result<T, ValueError>) -> Option<T> {
        parsed.map_err(|expected| self.reject(path, text, expected)).ok()
    }

    fn reject(&mut self, path: impl Into<String>, value: &str, expected: ValueError) {
        self.errors.push(InvalidValue::new(path, value, expected));
    }
}

fn matchers(spec: &BTreeMap<String, MatcherValue>) -> SeriesMatchers {
    spec.iter().map(|(name, MatcherValue(value))| (name.clone(), value.clone())).collect()
}

fn is_signal_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(is_inner)
        && name.chars().all(|c| is_inner(c) || c == '-')
}

/// A token of RFC 9110, without the quote `'`.
fn is_header_name(name: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&*+-.^_`|~".contains(c);
    (1..=HEADER_NAME_MAX).contains(&name.len()) && name.chars().all(is_token)
}

const fn is_header_text(c: char) -> bool {
    (c.is_ascii_graphic() || c == ' ') && c != ',' && c != '='
}

const fn create_monitors(spec: CreateSpec) -> CreateMonitors {
    match spec {
        CreateSpec::Switch(true) => CreateMonitors::UnlessScraped,
        CreateSpec::Switch(false) => CreateMonitors::Never,
        CreateSpec::Word(CreateWord::Always) => CreateMonitors::Always,
    }
}

#[cfg(test)]
mod tests;
