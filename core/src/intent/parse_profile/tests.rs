//! Valid and invalid profiles.

use super::*;
use crate::{
    api::keda::{FallbackBehavior, MetricType},
    intent::PolicyKind,
};
use rstest::rstest;

fn read(yaml: &str) -> Result<Profile, String> {
    let spec: AutoscalingProfileSpec = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    Profile::read(&spec)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[test]
fn an_empty_profile_has_the_built_in_settings() {
    assert_eq!(read("{}").unwrap(), Profile::built_in());
}

/// A default that is invalid would silently become the default of its type.
#[test]
fn built_in_settings_are_valid() {
    assert_eq!(Profile::read(&AutoscalingProfileSpec::default()), Ok(Profile::built_in()));
    let built_in = Profile::built_in();
    assert_eq!((built_in.replicas.min(), built_in.replicas.max(), built_in.polling_interval), (1, 10, 15));
    assert_eq!((built_in.cooldown, built_in.initial_cooldown), (1800, 900));
    assert_eq!(built_in.behavior.scale_down.stabilization_window, 600);
    assert_eq!(built_in.monitors.interval.to_string(), "15s");
}

#[test]
fn each_setting_replaces_its_default() {
    let yaml = "
        prometheus: {url: 'https://p', authenticationRef: {name: prom}, authModes: [bearer, tls], headers: {X-Scope-OrgID: team-a}, unsafeSsl: true, queryParameters: {dedup: 'true'}, timeout: 1m, awsRegion: us-gov-west-1}
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
    assert_eq!(
        (prometheus.query_parameters["dedup"].as_str(), prometheus.timeout, prometheus.aws_region.as_deref()),
        ("true", Some(60), Some("us-gov-west-1"))
    );
    assert_eq!((profile.replicas.min(), profile.replicas.max(), profile.polling_interval), (0, 4, 2));
    assert_eq!(
        (profile.behavior.scale_up.stabilization_window, profile.behavior.scale_down.stabilization_window),
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
#[case::comment("max(up == 1)  # both zones", Some("max(up == 1)"))]
#[case::trailing_white_space("max(up == 1) \\n\\t", Some("max(up == 1)"))]
#[case::empty("", None)]
#[case::white_space(" \\n", None)]
#[case::comment_alone("# none", None)]
fn accepts_comments_and_white_space_in_queries(#[case] query: &str, #[case] expected: Option<&str>) {
    let profile = read(&format!("router: {{presenceQuery: \"{query}\"}}")).unwrap();
    assert_eq!(profile.router.presence.map(|query| query.to_string()).as_deref(), expected);
}

#[test]
fn reads_label_matchers() {
    let yaml = r#"prometheus: {url: 'http://p', matchers: {cluster: eu-1, _tier: 'a"b'}}"#;
    let prometheus = read(yaml).unwrap().prometheus.unwrap();
    assert_eq!(prometheus.matchers.iter().collect::<Vec<_>>(), [("_tier", r#"a"b"#), ("cluster", "eu-1")]);
}

#[rstest]
#[case(
    "prometheus: {url: 'http://p', matchers: {__name__: up}}",
    r#""__name__" for spec.prometheus.matchers: expected a label name such as cluster, of letters, digits and '_', without a leading "__""#
)]
#[case(
    "prometheus: {url: 'http://p', matchers: {namespace: a}}",
    r#""namespace" for spec.prometheus.matchers: expected a label that the queries do not match themselves"#
)]
#[case(
    "prometheus: {url: 'http://p', matchers: {cluster: ''}}",
    r#""" for spec.prometheus.matchers[cluster]: expected a value of 1 to 256 characters without control characters"#
)]
#[case(
    "prometheus: {url: 'http://p', matchers: {a: b, b: b, c: b, d: b, e: b, f: b, g: b, h: b, i: b}}",
    r#""9" for spec.prometheus.matchers: expected at most 8 labels"#
)]
#[case(
    "replicas: {min: 11}",
    r#""11" for spec.replicas.min: expected an integer <= spec.replicas.max, which is 10"#
)]
#[case("allowedNamespaces: []", r#""0 elements" for spec.allowedNamespaces: expected 1 to 64 elements"#)]
#[case(
    "allowedNamespaces: [a, 'b?']",
    r#""b?" for spec.allowedNamespaces[1]: expected the name of a namespace, in which * stands for any characters"#
)]
#[case("replicas: {min: -1}", r#""-1" for spec.replicas.min: expected an integer >= 0"#)]
#[case("replicas: {max: 0}", r#""0" for spec.replicas.max: expected an integer >= 1"#)]
#[case(
    "prometheus: {url: 'p:9090'}",
    r#""p:9090" for spec.prometheus.url: expected a URL that starts with http:// or https://, such as http://prometheus-operated.monitoring.svc:9090"#
)]
#[case(
    "prometheus: {url: 'http://p', authModes: [bearer, tls]}",
    r#""bearer, tls" for spec.prometheus.authModes: expected no modes without spec.prometheus.authenticationRef, which names the credentials"#
)]
#[case(
    "prometheus: {url: 'http://p', authenticationRef: {name: a}, authModes: [bearer, basic]}",
    r#""bearer, basic" for spec.prometheus.authModes: expected at most one of bearer and basic"#
)]
#[case(
    "prometheus: {url: 'http://p', queryParameters: {time: '1'}}",
    r#""time" for spec.prometheus.queryParameters: expected text without ',' and '=', which KEDA cannot carry, and neither query nor time"#
)]
#[case(
    "prometheus: {url: 'http://p', queryParameters: {a: 'b,c'}}",
    r#""b,c" for spec.prometheus.queryParameters[a]: expected text without ',' and '=', which KEDA cannot carry"#
)]
#[case(
    "prometheus: {url: 'http://p', timeout: 2m}",
    r#""2m" for spec.prometheus.timeout: expected a duration from 1s to 1m"#
)]
#[case(
    "prometheus: {url: 'http://p', awsRegion: 'eu west'}",
    r#""eu west" for spec.prometheus.awsRegion: expected an AWS region such as eu-central-1"#
)]
#[case(
    "prometheus: {url: 'http://p', headers: {a: 'b=c'}}",
    r#""b=c" for spec.prometheus.headers[a]: expected at most 512 characters of ASCII text without ',' and '=', which KEDA cannot carry"#
)]
#[case(
    "prometheus: {url: 'http://p', headers: {'X Scope OrgID': c}}",
    r#""X Scope OrgID" for spec.prometheus.headers: expected the name of an HTTP header"#
)]
#[case(
    "backlog: {serviceTime: measured}",
    r#""measured" for spec.backlog.serviceTime: expected off, auto, or a duration from 100ms to 1h"#
)]
#[case(
    "backlog: {headroom: '4'}",
    r#""4" for spec.backlog.headroom: expected a number from 1 to 3 with at most three decimals"#
)]
#[case("backlog: {drainTime: 30s}", r#""30s" for spec.backlog.drainTime: expected a duration from 1m to 1h"#)]
#[case("pollingInterval: soon", r#""soon" for spec.pollingInterval: expected a duration from 1s to 1h"#)]
#[case(
    "scaleUp: {stabilizationWindow: 2h}",
    r#""2h" for spec.scaleUp.stabilizationWindow: expected a duration from 0s to 1h"#
)]
#[case("scaleUp: {policies: []}", r#""[]" for spec.scaleUp.policies: expected at least one policy"#)]
#[case(
    "scaleDown: {policies: [{type: Pods, value: 0, period: 1s}]}",
    r#""0" for spec.scaleDown.policies[0].value: expected an integer >= 1"#
)]
#[case(
    "scaleDown: {policies: [{type: Pods, value: 1, period: 40m}]}",
    r#""40m" for spec.scaleDown.policies[0].period: expected a duration from 1s to 30m"#
)]
#[case(
    "monitors: {labels: {'a b': c}}",
    r#""a b" for spec.monitors.labels: expected a label key such as release or example.com/team"#
)]
#[case(
    "monitors: {labels: {a: 'b c'}}",
    r#""b c" for spec.monitors.labels[a]: expected a label value of at most 63 letters, digits, '-', '_' and '.'"#
)]
#[case(
    "monitors: {interval: 45s}",
    r#""45s" for spec.monitors.interval: expected a duration from 1s to 30s"#
)]
#[case("signals: []", r#""[]" for spec.signals: expected at least one signal, or one of customSignals"#)]
#[case(
    "signals: [{name: active-request, target: '1'}]",
    r#""active-request" for spec.signals[0].name: expected a built-in signal; the most similar one is active-requests"#
)]
#[case(
    "signals: [{name: kv-cache, target: '1'}, {name: kv-cache, target: '2'}]",
    r#""kv-cache" for spec.signals[1].name: expected each signal once, but it is repeated"#
)]
#[case(
    "signals: [{name: ttft-p90, target: 2s}, {name: engine-queue, target: '5'}]",
    r#""ttft-p90, engine-queue" for spec.signals: expected a signal of the router beside ttft-p90 and itl-p90, which say nothing without requests; add active-requests"#
)]
#[case(
    "signals: [{name: request-rate, target: '1'}, {name: ttft-p90, target: '2'}]",
    r#""2" for spec.signals[1].target: expected a duration such as 2s, from 10ms to 10m"#
)]
#[case(
    "signals: [{name: request-rate, target: '1'}, {name: itl-p90, target: 19ms}]",
    r#""19ms" for spec.signals[1].target: expected a duration such as 50ms, from 20ms to 10s"#
)]
#[case(
    "signals: [{name: engine-queue, target: 5s}]",
    r#""5s" for spec.signals[0].target: expected a number, because only ttft-p90 and itl-p90 have a duration"#
)]
#[case(
    "{signals: [{name: ttft-p90, target: 2s}], customSignals: [{name: ttft-p90, query: sum(a), target: '1'}]}",
    r#""ttft-p90" for spec.customSignals[0].name: expected a name that none of spec.signals has"#
)]
#[case(
    "customSignals: [{name: kv-cache, query: sum(a), target: '1'}]",
    r#""kv-cache" for spec.customSignals[0].name: expected a name that no built-in signal has"#
)]
#[case(
    "customSignals: [{name: activation, query: sum(a), target: '1'}]",
    r#""activation" for spec.customSignals[0].name: expected a name that no built-in signal has"#
)]
#[case(
    "customSignals: [{name: q, query: a, target: '1'}]",
    r#""a" for spec.customSignals[0].query: expected a query that returns one value; end it in sum(...) or max(...)"#
)]
#[case(
    "customSignals: [{name: q, query: sum(a), target: none}]",
    r#""none" for spec.customSignals[0].target: expected a target from 0.001 to 1000000000 with at most three decimals"#
)]
#[case(
    "router: {namespace: A}",
    r#""A" for spec.router.namespace: expected the name of a namespace, such as kthena-system"#
)]
#[case(
    "router: {presenceQuery: up}",
    r#""up" for spec.router.presenceQuery: expected a query that returns one value; end it in sum(...) or max(...)"#
)]
#[case(
    "router: {tlsConfig: {insecureSkipVerify: true}}",
    r#""http" for spec.router.scheme: expected https where spec.router.tlsConfig is set"#
)]
#[case(
    "router: {scheme: https, tlsConfig: {cert: {secret: {name: a, key: b}}}}",
    r#""cert" for spec.router.tlsConfig: expected both cert and keySecret, or neither"#
)]
#[case(
    "router: {scheme: https, tlsConfig: {ca: {secret: {name: '', key: b}}}}",
    r#""" for spec.router.tlsConfig: expected a name and a key in each reference"#
)]
#[case(
    "scaleToZero: {activation: some}",
    r#""some" for spec.scaleToZero.activation: expected a number >= 0 and < 1000000000 with at most three decimals"#
)]
#[case(
    "scaleToZero: {cooldown: 25h}",
    r#""25h" for spec.scaleToZero.cooldown: expected a duration from 0s to 24h"#
)]
#[case(
    "scaleToZero: {hold: {timeout: 2h}}",
    r#""2h" for spec.scaleToZero.hold.timeout: expected a duration from 10s to 1h"#
)]
#[case(
    "scaleToZero: {hold: {maxRequests: 0}}",
    r#""0" for spec.scaleToZero.hold.maxRequests: expected an integer from 1 to 10000"#
)]
#[case(
    "scaleToZero: {hold: {maxBody: 1MiB}}",
    r#""1MiB" for spec.scaleToZero.hold.maxBody: expected a size such as 512Ki or 1Mi, from 1Ki to 64Mi"#
)]
#[case(
    "scaleToZero: {hold: {maxBody: 2Mi, maxBodies: 1Mi}}",
    r#""2Mi" for spec.scaleToZero.hold.maxBody: expected a size of at most spec.scaleToZero.hold.maxBodies, which is 1Mi"#
)]
#[case(
    "scaleToZero: {hold: {keepAliveAfter: 0s}}",
    r#""0s" for spec.scaleToZero.hold.keepAliveAfter: expected a duration from 1s to 1h"#
)]
#[case("fallback: {replicas: 0}", r#""0" for spec.fallback.replicas: expected an integer >= 1"#)]
#[case(
    "fallback: {failureThreshold: 0}",
    r#""0" for spec.fallback.failureThreshold: expected an integer >= 1"#
)]
fn reports_invalid_fields(#[case] yaml: &str, #[case] message: &str) {
    assert_eq!(read(yaml), Err(format!("invalid value {message}")));
}

#[test]
fn reads_latency_objectives() {
    let signals = "signals: [{name: request-rate, target: '1'}, {name: ttft-p90, target: 2s}, {name: itl-p90, target: 50ms}]";
    let signals = read(signals).unwrap().signals;
    let read: Vec<String> = signals
        .iter()
        .map(|signal| match signal.source {
            SignalSource::Latency(objective) => format!("{} {objective}", signal.target),
            _ => signal.target.to_string(),
        })
        .collect();
    assert_eq!(read, ["1", "0.5 2s", "0.5 50ms"]);
}

/// The names of the latencies were free in 0.1.
#[test]
fn a_custom_signal_may_have_the_name_of_a_latency() {
    let profile = read("customSignals: [{name: ttft-p90, query: sum(a), target: '3'}]").unwrap();
    let custom: Vec<&str> = profile.custom_signals.iter().map(|custom| custom.name.as_str()).collect();
    assert_eq!(custom, ["ttft-p90"]);
}

#[test]
fn reports_every_invalid_field() {
    let yaml = "
        pollingInterval: soon
        replicas: {max: 0}
        customSignals: [{name: q, query: a, target: none}]";
    assert_eq!(read(yaml).unwrap_err().matches("invalid value").count(), 4);
}
