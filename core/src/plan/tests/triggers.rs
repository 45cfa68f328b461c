//! Triggers: one per signal, and the activation trigger.

use rstest::rstest;
use serde_json::{Value, json};

use super::{applied, planned};
use crate::{api::keda::Trigger, observed::fixture::Fixture};

fn setting<'a>(trigger: &'a Trigger, key: &str) -> &'a str {
    trigger.metadata.get(key).map_or("", String::as_str)
}

/// Name, threshold and activation threshold of every trigger.
fn thresholds(fixture: &Fixture) -> Vec<String> {
    let text = |trigger: &Trigger| {
        let name = trigger.name.as_deref().unwrap_or_default();
        [name, setting(trigger, "threshold"), setting(trigger, "activationThreshold")]
            .join(" ")
            .trim_end()
            .to_owned()
    };
    applied(fixture).spec.triggers.iter().map(text).collect()
}

fn queries(fixture: &Fixture) -> Vec<String> {
    applied(fixture).spec.triggers.iter().map(|trigger| setting(trigger, "query").to_owned()).collect()
}

fn engines(fixture: Fixture) -> Fixture {
    fixture.server("chat", "chat", &json!({"inferenceEngine": "vLLM", "workloadPort": {"port": 8080}}))
}

#[rstest]
#[case::default("", &["active-requests 10"])]
#[case::active_requests("active-requests=12", &["active-requests 12"])]
#[case::queued_requests("queued-requests=0.5", &["queued-requests 0.5"])]
#[case::request_rate("request-rate=3", &["request-rate 3"])]
#[case::output_tokens("output-tokens=2000", &["output-tokens 2000"])]
#[case::engine_queue("engine-queue=4", &["engine-queue 4"])]
#[case::engine_running("engine-running=4", &["engine-running 4"])]
#[case::kv_cache("kv-cache=0.8", &["kv-cache 0.8"])]
#[case::latencies("active-requests=3,ttft-p90=2s,itl-p90=50ms", &["active-requests 3", "ttft-p90 0.5", "itl-p90 0.5"])]
#[case::several("engine-running=4,active-requests=3", &["engine-running 4", "active-requests 3"])]
fn has_one_trigger_per_signal(#[case] signals: &str, #[case] expected: &[&str]) {
    let fixture = engines(Fixture::model("llama"));
    let fixture = if signals.is_empty() { fixture } else { fixture.annotated("signals", signals) };
    assert_eq!(thresholds(&fixture), expected);
    let scaled_object = applied(&fixture);
    for trigger in &scaled_object.spec.triggers {
        assert_eq!(trigger.kind, "prometheus");
        assert_eq!(serde_json::to_value(trigger.metric_type).unwrap(), json!("AverageValue"));
        assert_eq!(setting(trigger, "serverAddress"), "http://prometheus:9090");
        assert_eq!(setting(trigger, "ignoreNullValues"), "false");
    }
}

/// Four scrapes, and at least 45 s.
#[rstest]
#[case("5s", "[45s]")]
#[case("15s", "[60s]")]
#[case("30s", "[120s]")]
fn the_window_of_a_latency_follows_the_scrapes(#[case] interval: &str, #[case] window: &str) {
    let fixture = engines(Fixture::model("llama"))
        .annotated("signals", "active-requests=3,ttft-p90=2s")
        .profile(&json!({"monitors": {"interval": interval}}));
    let query = &queries(&fixture)[1];
    assert!(
        query.contains(&format!(
            "_bucket{{namespace=\"models\",modelserving_volcano_sh_name=\"chat\",pod!=\"\"}}{window}"
        )),
        "{query}"
    );
}

/// Latencies never wake a model.
#[test]
fn a_latency_is_no_trigger_at_zero() {
    let fixture = engines(Fixture::model("llama"))
        .annotated("signals", "active-requests=3,ttft-p90=2s")
        .annotated("min-replicas", "0");
    assert_eq!(thresholds(&fixture), ["active-requests 3", "ttft-p90 0.5", "activation 1000000000 0"]);
}

/// Engines vanish at zero, so that the router's presence has to stand in for them: without engines the load
/// is 0, not missing.
#[rstest]
#[case::above_zero("1", false)]
#[case::to_zero("0", true)]
fn counts_no_engines_as_idle_only_if_the_minimum_is_0(#[case] min: &str, #[case] expected: bool) {
    let fixture = engines(Fixture::model("llama"))
        .annotated("signals", "engine-queue=1,active-requests=1")
        .annotated("min-replicas", min);
    assert_eq!(queries(&fixture)[0].contains("kthena_router"), expected, "{}", queries(&fixture)[0]);
}

#[rstest]
#[case::one(Fixture::model("llama"), r#"model="llama""#)]
#[case::several(Fixture::model("llama, alias"), r#"model=~"llama|alias""#)]
#[case::adapter(
    Fixture::model("llama").route_with(&json!({"modelName": "llama", "loraAdapters": ["poems"], "rules": []})),
    r#"model=~"llama|poems""#
)]
#[case::adapter_of_another_model(
    Fixture::model("llama").route_with(&json!({"modelName": "gemma", "loraAdapters": ["poems"], "rules": []})),
    r#"model="llama""#
)]
#[case::quoted(Fixture::model(r#"a"b\c"#), r#"model="a\"b\\c""#)]
fn counts_requests_for_all_names(#[case] fixture: Fixture, #[case] matcher: &str) {
    let queries = queries(&fixture);
    assert!(queries[0].contains(matcher), "{}", queries[0]);
}

fn split(fields: &Value) -> Fixture {
    Fixture::model("llama")
        .other("canary", "llama")
        .server("chat", "chat", fields)
        .server("canary", "canary", &json!({}))
        .route("llama", &["chat", "canary"])
}

#[test]
fn counts_requests_by_model_server_if_a_name_is_split() {
    let queries = queries(&split(&json!({})));
    assert!(
        queries[0].contains(r#"model_server="models/chat""#) && !queries[0].contains("llama"),
        "{}",
        queries[0]
    );
}

/// The router counts each request at the prefill and at the decode pod.
#[rstest]
#[case::not_split(Fixture::model("llama").server("chat", "chat", &json!({"pdGroup": {}})).route("llama", &["chat"]), "active-requests 10")]
#[case::split(split(&json!({"pdGroup": {}})), "active-requests 20")]
#[case::split_without_disaggregation(split(&json!({})), "active-requests 10")]
fn doubles_the_target_if_requests_count_twice(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(thresholds(&fixture), [expected]);
}

#[rstest]
#[case::vllm("vllm", "vllm:num_requests_waiting")]
#[case::sglang("sglang", "sglang:num_queue_reqs")]
fn queries_the_series_of_the_engine(#[case] engine: &str, #[case] series: &str) {
    let fixture = Fixture::model("llama").annotated("signals", "engine-queue=5").annotated("engine", engine);
    assert!(queries(&fixture)[0].contains(series), "{}", queries(&fixture)[0]);
}

#[test]
fn wakes_a_model_at_zero_by_an_activation_trigger() {
    let fixture = Fixture::model("llama").annotated("min-replicas", "0");
    assert_eq!(thresholds(&fixture), ["active-requests 10", "activation 1000000000 0"]);
    let profile = json!({"replicas": {"min": 0}, "scaleToZero": {"activation": "2.5"}});
    let with_profile = Fixture::model("llama").profile(&profile);
    assert_eq!(thresholds(&with_profile), ["active-requests 10", "activation 1000000000 2.5"]);
}

#[test]
fn accepts_engine_signals_at_zero_beside_a_demand_signal() {
    let fixture = engines(Fixture::model("llama"))
        .annotated("min-replicas", "0")
        .annotated("signals", "engine-queue=5,active-requests=10");
    assert_eq!(thresholds(&fixture).len(), 3);
}

fn custom(signal: &Value) -> Value {
    json!({"signals": [], "customSignals": [signal]})
}

#[rstest]
#[case::total(
    json!({"name": "slo", "query": "sum(x{model=~{{model}},namespace={{namespace}},name={{name}}})", "target": "5"}),
    "AverageValue",
    r#"sum(x{model=~"llama|alias",namespace="models",name="chat"})"#
)]
#[case::level(json!({"name": "slo", "query": "max(latency)", "target": "5", "metricType": "Value"}), "Value", "max(latency)")]
fn queries_a_custom_signal(#[case] signal: Value, #[case] metric_type: &str, #[case] query: &str) {
    let fixture = Fixture::model("llama,alias").profile(&custom(&signal));
    let scaled_object = applied(&fixture);
    let [trigger] = scaled_object.spec.triggers.as_slice() else { panic!("{scaled_object:?}") };
    assert_eq!((thresholds(&fixture), setting(trigger, "query")), (vec!["slo 5".to_owned()], query));
    assert_eq!(serde_json::to_value(trigger.metric_type).unwrap(), json!(metric_type));
}

#[test]
fn overrides_the_signals_of_the_profile_by_annotation() {
    let profile = json!({
        "signals": [{"name": "request-rate", "target": "2"}],
        "customSignals": [{"name": "slo", "query": "sum(x)", "target": "5"}],
    });
    let fixture = Fixture::model("llama").profile(&profile);
    assert_eq!(thresholds(&fixture), ["request-rate 2", "slo 5"]);
    assert_eq!(thresholds(&fixture.annotated("signals", "slo=7")), ["slo 7"]);
}

#[test]
fn reports_every_signal_that_cannot_be_measured_once() {
    let fixture = Fixture::model("llama").annotated("signals", "engine-queue=5,kv-cache=1,engine-running=2");
    assert_eq!(planned(&fixture).findings.len(), 1);
}

#[rstest]
#[case::namespace(json!({"namespace": "gateways"}), r#"0 * max((up{namespace="gateways",pod!="",service="kthena-router"} == 1) and"#)]
#[case::presence_query(json!({"presenceQuery": "max(my_router_up == 1)"}), "or 0 * max(max(my_router_up == 1))")]
fn locates_the_router_by_the_profile(#[case] router: Value, #[case] part: &str) {
    let queries = queries(&Fixture::model("llama").profile(&json!({"router": router})));
    assert!(queries[0].contains(part), "{}", queries[0]);
}

/// Bounds the backlog of a request that takes 5 s.
fn bounded() -> Fixture {
    Fixture::model("llama")
        .route("llama", &["chat"])
        .server("chat", "chat", &json!({}))
        .annotated("service-time", "5s")
}

#[test]
fn bounds_the_backlog() {
    insta::assert_snapshot!("bounded", queries(&bounded()).join("\n"));
    assert_eq!(thresholds(&bounded()), ["active-requests 10"]);
}

/// A query changes only for a model that asks for it.
#[rstest]
#[case::built_in(Fixture::model("llama"), false)]
#[case::annotation(Fixture::model("llama").annotated("service-time", "5s"), true)]
#[case::profile(Fixture::model("llama").profile(&json!({"backlog": {"serviceTime": "5s"}})), true)]
#[case::off_for_one_model(
    Fixture::model("llama").profile(&json!({"backlog": {"serviceTime": "5s"}})).annotated("service-time", "off"),
    false
)]
#[case::no_shorter_than_the_drain_time(
    Fixture::model("llama").profile(&json!({"backlog": {"serviceTime": "1m", "drainTime": "1m"}})),
    false
)]
fn bounds_the_backlog_where_a_service_time_is_set(#[case] fixture: Fixture, #[case] is_bounded: bool) {
    let unbounded = queries(&Fixture::model("llama"));
    assert_eq!(queries(&fixture) != unbounded, is_bounded);
}

/// The engines' running requests count only where Prometheus scrapes the engines.
#[rstest]
#[case::router_alone("active-requests=10", false)]
#[case::with_engines("active-requests=10,engine-queue=5", true)]
fn counts_running_requests_where_engines_are_scraped(#[case] signals: &str, #[case] expected: bool) {
    let fixture = engines(bounded().annotated("signals", signals));
    assert_eq!(queries(&fixture)[0].contains("num_requests_running"), expected);
}

#[rstest]
#[case::split(
    split(&json!({})).annotated("service-time", "5s"),
    "kthena-router counts no arrivals for a part of the requests of a model"
)]
#[case::long(
    (0..16).fold(bounded(), |fixture, i| {
        let rules = json!([{"targetModels": [{"modelServerName": "chat"}]}]);
        fixture.route_with(&json!({"modelName": format!("{i:0>100}"), "rules": rules}))
    }),
    "its query would have more than 6144 bytes after URL encoding"
)]
#[case::slow(
    bounded().profile(&json!({"backlog": {"drainTime": "1m"}})).annotated("service-time", "60s"),
    "it is not shorter than backlog.drainTime of the AutoscalingProfile"
)]
fn counts_all_where_the_backlog_cannot_be_bounded(#[case] fixture: Fixture, #[case] cause: &str) {
    let warnings = planned(&fixture).warnings.join("; ");
    let time = if cause.contains("drainTime") { "60s" } else { "5s" };
    assert!(
        warnings.contains(&format!(
            "the service time {time} has no effect on active-requests, because {cause}, so all requests in flight count; set autoscaling.kthena.io/service-time to off"
        )),
        "{warnings}"
    );
    let off = planned(&fixture.annotated("service-time", "off")).warnings.join("; ");
    assert!(!off.contains("service time"), "{off}");
}
