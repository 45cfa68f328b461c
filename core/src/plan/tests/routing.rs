//! Names that count as demand, and the routes that have a say in it.

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, explained, planned, verdict};
use crate::{
    domain::VerdictReason,
    observed::{
        NAMES_MAX, NameTraffic, ProbeResult, RouterScrape,
        fixture::{Condition, Fixture},
    },
    plan::{LinkState, diagnose},
};

fn rules(targets: &Value) -> Value {
    json!([{"targetModels": targets}])
}

fn to(server: &str) -> Value {
    rules(&json!([{"modelServerName": server}]))
}

/// Names or ModelServers in the first query, whether the model can be woken, and the number of warnings; or
/// the reasons of a plan that is not applied.
fn outcome(fixture: &Fixture) -> String {
    let plan = planned(fixture);
    let Some(resolved) = plan.explanation.as_ref().and_then(|found| found.resolved.as_ref()) else {
        let reasons: Vec<&str> = plan.findings.iter().map(|finding| finding.reason.as_str()).collect();
        return reasons.join(" ");
    };
    assert_eq!((action(&plan.scaled_object), plan.findings.len()), ("apply", 0));
    let query = &resolved.triggers.triggers[0].query;
    let matcher = |label: &str| {
        let (_, rest) = query.split_once(&format!("{label}="))?;
        let rest = rest.trim_start_matches('~').strip_prefix('"')?;
        Some(format!("{label} {}", rest.split('"').next()?))
    };
    let counted =
        matcher("model_server").or_else(|| matcher("{model")).unwrap_or_else(|| "nothing".to_owned());
    let wakes = resolved.triggers.triggers.iter().any(|trigger| trigger.name == "activation");
    let wakes = if wakes { ", wakes" } else { "" };
    let warnings =
        if plan.warnings.is_empty() { String::new() } else { format!(", warns: {}", plan.warnings.len()) };
    format!("{}{wakes}{warnings}", counted.trim_start_matches('{'))
}

/// `models/chat` with its own ModelServer and a route for `llama`.
fn routed() -> Fixture {
    Fixture::model("llama").server("chat", "chat", &json!({})).route("llama", &["chat"])
}

/// The same with another ModelServing and its ModelServer.
fn with_canary() -> Fixture {
    routed().other("canary", "llama").server("canary", "canary", &json!({}))
}

fn at_zero(fixture: Fixture) -> Fixture {
    fixture.annotated("min-replicas", "0")
}

fn alias(name: &str, server: &str) -> Value {
    json!({"modelName": name, "rules": to(server)})
}

/// Every name that routes lead to the model's own ModelServers counts, whatever the annotation lists.
#[rstest]
#[case::alias(routed().route_with(&alias("gpt", "chat")), "model llama|gpt")]
#[case::adapters_alone(
    routed().route_with(&json!({"loraAdapters": ["sql", "poems"], "rules": to("chat")})),
    "model llama|poems|sql"
)]
#[case::at_zero(at_zero(routed()).route_with(&alias("gpt", "chat")), "model llama|gpt, wakes")]
#[case::two_of_its_own(
    routed().server("more", "chat", &json!({})).route_with(&alias("gpt", "more")),
    "model llama|gpt"
)]
#[case::of_another_model_server(routed().server("b", "b", &json!({})).route_with(&alias("gpt", "b")), "model llama")]
#[case::of_another_namespace(routed().route_in("evil", &alias("gpt", "chat")), "model llama")]
#[case::shared_with_another(with_canary().route("gpt", &["chat", "canary"]), "model_server models/chat")]
#[case::shared_with_another_at_zero(
    at_zero(with_canary()).route("gpt", &["chat", "canary"]),
    "model llama, wakes, warns: 1"
)]
#[case::shared_with_another_by_rate(
    with_canary().annotated("signals", "request-rate=1").route("gpt", &["chat", "canary"]),
    "model llama, warns: 1"
)]
#[case::no_weight(
    routed().server("b", "b", &json!({})).route_with(&json!({"modelName": "gpt", "rules": rules(&json!([
        {"modelServerName": "chat", "weight": 0}, {"modelServerName": "b"}
    ]))})),
    "model llama"
)]
#[case::mistyped(Fixture::model("lama").server("chat", "chat", &json!({})).route("llama", &["chat"]), "model lama|llama")]
#[case::listed_and_not_routed(
    Fixture::model("llama,gpt").server("chat", "chat", &json!({})).route("llama", &["chat"]),
    "model llama|gpt, warns: 1"
)]
fn counts_every_name_that_leads_to_it(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(outcome(&fixture), expected);
}

fn with_adapters(fixture: Fixture, count: usize) -> Fixture {
    (0..count).collect::<Vec<_>>().chunks(10).fold(fixture, |fixture, chunk| {
        let names: Vec<String> = chunk.iter().map(|i| format!("lora-{i:03}")).collect();
        fixture.route_with(&json!({"loraAdapters": names, "rules": to("chat")}))
    })
}

#[rstest]
#[case::as_many_as_a_query_lists(with_adapters(routed(), NAMES_MAX - 1), NAMES_MAX, 0)]
#[case::more_by_model_server(with_adapters(routed(), NAMES_MAX), 0, 1)]
#[case::more_at_zero(at_zero(with_adapters(routed(), NAMES_MAX + 50)), NAMES_MAX, 1)]
#[case::more_by_rate(with_adapters(routed(), 200).annotated("signals", "request-rate=1"), NAMES_MAX, 1)]
#[case::long_names(
    (0..40).fold(at_zero(routed()), |fixture, i| fixture.route_with(&alias(&format!("{i:0>250}"), "chat"))),
    17,
    2
)]
fn bounds_the_number_of_names(#[case] fixture: Fixture, #[case] names: usize, #[case] warnings: usize) {
    let (plan, explanation) = explained(&fixture);
    let query = &explanation.resolved.unwrap().triggers.triggers[0].query;
    let found = query
        .split_once("{model=~\"")
        .map_or(0, |(_, rest)| rest.split('"').next().unwrap().split('|').count());
    assert_eq!((found, plan.warnings.len()), (names, warnings), "{query}");
}

/// A query for one name keeps to the listed one; a route that adds a name does not make the plan invalid.
#[rstest]
#[case::one_name("sum(x{model={{model}}})", "sum(x{model=\"llama\"})", 1)]
#[case::all_names("sum(x{model=~{{model}}})", "sum(x{model=~\"llama|gpt\"})", 0)]
fn fills_custom_queries_with_added_names(
    #[case] query: &str,
    #[case] expected: &str,
    #[case] warnings: usize,
) {
    let signal = json!({"name": "slo", "query": query, "target": "5"});
    let fixture = routed()
        .route_with(&alias("gpt", "chat"))
        .profile(&json!({"signals": [], "customSignals": [signal]}));
    let (plan, explanation) = explained(&fixture);
    assert_eq!(explanation.resolved.unwrap().triggers.triggers[0].query, expected);
    assert_eq!(plan.warnings.len(), warnings, "{:?}", plan.warnings);
}

fn foreign(spec: &Value) -> Fixture {
    at_zero(routed()).server_in("evil", "any").route_in("evil", spec)
}

fn older_foreign(spec: &Value) -> Fixture {
    at_zero(Fixture::model("llama").server("chat", "chat", &json!({})))
        .server_in("evil", "any")
        .route_in("evil", spec)
        .route("llama", &["chat"])
}

fn conditional(uri: &Value) -> Value {
    json!({"modelName": "llama", "rules": [
        {"modelMatch": {"uri": uri}, "targetModels": [{"modelServerName": "any"}]}
    ]})
}

/// The router uses the oldest route of a name that matches, and routes with the `modelName` before adapters.
#[rstest]
#[case::younger(foreign(&alias("llama", "any")), "model llama, wakes")]
#[case::younger_adapter(foreign(&json!({"modelName": "x", "loraAdapters": ["llama"], "rules": to("any")})), "model llama, wakes")]
#[case::older_adapter(older_foreign(&json!({"loraAdapters": ["llama"], "rules": to("any")})), "model llama, wakes")]
#[case::at_a_gateway(
    foreign(&json!({"modelName": "llama", "parentRefs": [{"name": "g"}], "rules": to("any")})),
    "model llama, wakes"
)]
#[case::older_at_a_gateway(
    older_foreign(&json!({"modelName": "llama", "parentRefs": [{"name": "g"}], "rules": to("any")})),
    "model llama, wakes"
)]
#[case::older(older_foreign(&alias("llama", "any")), "model_server models/chat, warns: 1")]
#[case::older_without_rules(older_foreign(&json!({"modelName": "llama", "rules": []})), "model llama, wakes")]
#[case::older_without_weight(
    older_foreign(&json!({"modelName": "llama", "rules": rules(&json!([{"modelServerName": "any", "weight": 0}]))})),
    "model llama, wakes"
)]
#[case::older_for_another_body(
    older_foreign(&json!({"modelName": "llama", "rules": [
        {"modelMatch": {"body": {"model": "other"}}, "targetModels": [{"modelServerName": "any"}]}
    ]})),
    "model llama, wakes"
)]
#[case::older_for_some_requests(older_foreign(&conditional(&json!({"prefix": "/v1/chat"}))), "CannotWakeFromZero")]
#[case::older_for_no_request_to_a_model_server(older_foreign(&conditional(&json!({"prefix": "/v2"}))), "model llama, wakes")]
fn follows_the_precedence_of_the_router(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(outcome(&fixture), expected);
}

/// Listing an adapter does not let a route of another namespace for it stop the model.
#[test]
fn leaves_out_a_name_that_another_namespace_has_taken() {
    let fixture = at_zero(Fixture::model("llama,sql"))
        .server("chat", "chat", &json!({}))
        .route_with(&json!({"modelName": "llama", "loraAdapters": ["sql"], "rules": to("chat")}))
        .server_in("evil", "any")
        .route_in("evil", &alias("sql", "any"));
    assert_eq!(outcome(&fixture), "model llama, wakes, warns: 1");
    let warning = planned(&fixture).warnings.join("");
    assert!(warning.contains("\"sql\"") && warning.contains("evil/route-1"), "{warning}");
}

/// A Gateway of another namespace separates requests that the router counts under one name; it may not exist.
#[rstest]
#[case::counted_by_model_server(1, "model_server models/chat")]
#[case::not_refused_at_zero(0, "model llama, wakes")]
fn separates_requests_at_other_gateways(#[case] min: u8, #[case] expected: &str) {
    let at = |gateway: &str, server: &str| json!({"modelName": "llama", "parentRefs": [{"name": gateway, "namespace": "g"}], "rules": to(server)});
    let fixture = Fixture::model("llama")
        .annotated("min-replicas", &min.to_string())
        .server("chat", "chat", &json!({}))
        .route_with(&at("one", "chat"))
        .server_in("theirs", "any")
        .route_in("theirs", &at("two", "any"));
    assert_eq!(outcome(&fixture), expected);
}

fn weighted(chat: Option<u8>, canary: Option<u8>) -> Fixture {
    let target = |name: &str, weight: Option<u8>| match weight {
        Some(weight) => json!({"modelServerName": name, "weight": weight}),
        None => json!({"modelServerName": name}),
    };
    let targets = json!([target("chat", chat), target("canary", canary)]);
    Fixture::model("llama")
        .other("canary", "llama")
        .server("chat", "chat", &json!({}))
        .server("canary", "canary", &json!({}))
        .route_with(&json!({"modelName": "llama", "rules": rules(&targets)}))
}

/// A target of weight 0 is a destination: both ModelServings follow their own part, and at zero the one with
/// all of the weight wakes.
#[rstest]
#[case::all(weighted(Some(100), Some(0)), "model_server models/chat")]
#[case::all_at_zero(at_zero(weighted(Some(100), Some(0))), "model_server models/chat, wakes")]
#[case::all_by_rate(weighted(Some(100), Some(0)).annotated("signals", "request-rate=1"), "model llama")]
#[case::none(weighted(Some(0), Some(100)), "model_server models/chat")]
#[case::none_at_zero(at_zero(weighted(Some(0), Some(100))), "model_server models/chat, warns: 1")]
#[case::none_by_rate(weighted(Some(0), Some(100)).annotated("signals", "request-rate=1"), "nothing")]
#[case::no_weights(weighted(None, None), "model_server models/chat")]
#[case::no_weights_at_zero(at_zero(weighted(None, None)), "CannotWakeFromZero")]
#[case::all_weights_zero(weighted(Some(0), Some(0)), "model_server models/chat")]
#[case::all_weights_zero_at_zero(at_zero(weighted(Some(0), Some(0))), "model_server models/chat, warns: 1")]
#[case::rule_that_never_applies(
    routed().other("canary", "llama").server("canary", "canary", &json!({})).route_with(&json!({
        "modelName": "llama", "rules": to("canary")
    })),
    "model llama"
)]
fn follows_its_own_part_at_weight_0(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(outcome(&fixture), expected);
}

fn reported(fixture: Fixture) -> Fixture {
    let ready: Condition<'_> = ("Ready", "True", "ScaledObjectReady", "");
    fixture.scaled_object(&[ready]).hpa(&[("ScalingActive", "True", "ValidMetricFound", "")])
}

fn answered(names: &[(&str, NameTraffic)]) -> ProbeResult {
    ProbeResult {
        router: RouterScrape::Succeeds,
        names: names.iter().map(|(name, traffic)| ((*name).to_owned(), *traffic)).collect(),
        ..ProbeResult::default()
    }
}

fn labelled() -> Fixture {
    let role = json!({"name": "engine", "entryTemplate": {"metadata": {"labels": {"app": "chat"}}}});
    reported(Fixture::model("llama").with("/spec/template", &json!({"roles": [role]})))
}

fn selecting(labels: &Value) -> Fixture {
    labelled().server_with("chat", labels, &json!({})).route("llama", &["chat"])
}

#[rstest]
#[case::missing_server(
    labelled().route("llama", &["chta"]),
    r#"the ModelRoute models/route-0 sends requests for "llama" to the ModelServer models/chta, which does not exist, so no"#
)]
#[case::mistyped_label(
    selecting(&json!({"app": "chatt"})).probe(answered(&[("llama", NameTraffic::OnlyNotFound)])),
    "to the ModelServer models/chat, which selects pods by app=chatt, but the pods of this ModelServing have app=chat, so no"
)]
#[case::missing_label(
    selecting(&json!({"team": "a"})).probe(answered(&[])),
    "which selects pods by team=a, but the pods of this ModelServing have no label team, so no"
)]
#[case::provider(
    labelled().route_with(&json!({"modelName": "llama", "rules": rules(&json!([{"externalModelProviderName": "x"}]))})),
    "to a provider outside the cluster, so no"
)]
#[case::no_rule(
    labelled().route_with(&json!({"modelName": "llama", "rules": []})),
    r#"the ModelRoute models/route-0 has no rule with a destination for "llama", so no"#
)]
#[case::older_route_of_another_namespace(
    labelled()
        .server("chat", "chat", &json!({}))
        .server_in("evil", "any")
        .route_in("evil", &alias("llama", "any"))
        .route("llama", &["chat"]),
    r#"the ModelRoute evil/route-0, which kthena-router uses in place of models/route-1, sends requests for "llama" to the ModelServer evil/any, which does not select"#
)]
fn names_the_reason_why_no_request_arrives(#[case] fixture: Fixture, #[case] part: &str) {
    let (plan, explanation) = explained(&fixture);
    let found = &explanation.verdict;
    assert_eq!(
        (found.status.as_str(), found.reason.as_str()),
        ("False", "ModelNotSeen"),
        "{}",
        found.message
    );
    assert!(found.message.contains(part), "{}", found.message);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    assert_eq!(links.last().map(|link| link.state), Some(LinkState::Broken));
}

/// A ModelServer may select pods by labels that the pod templates do not show.
#[rstest]
#[case::not_answered_yet(selecting(&json!({"app": "chatt"})), false)]
#[case::served(selecting(&json!({"app": "chatt"})).probe(answered(&[("llama", NameTraffic::Otherwise)])), true)]
#[case::engine_signals_alone(
    labelled().route("llama", &["chta"]).annotated("signals", "engine-queue=4").annotated("engine", "vllm")
        .with("/status/availableReplicas", &json!(0)),
    true
)]
fn stays_ready_if_pods_may_be_reached(#[case] fixture: Fixture, #[case] warns: bool) {
    assert_eq!(verdict(&fixture).reason, VerdictReason::Idle);
    assert_eq!(planned(&fixture).warnings.len(), usize::from(warns), "{:?}", planned(&fixture).warnings);
}

fn unrouted() -> Fixture {
    reported(Fixture::model("llama"))
}

fn said_before(reason: &str) -> Value {
    json!([{
        "type": "AutoscalingReady", "status": "False", "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }])
}

/// The router may know a name by an `HTTPRoute` and an `InferencePool`, which only Prometheus can tell.
#[rstest]
#[case::not_answered_yet(unrouted(), "Idle")]
#[case::unreachable(unrouted().probe_error("connection refused"), "Idle")]
#[case::not_answered_since_a_restart(unrouted().with("/status/conditions", &said_before("ModelNotSeen")), "ModelNotSeen")]
#[case::answered(unrouted().probe(answered(&[])), "ModelNotSeen")]
#[case::served(unrouted().probe(answered(&[("llama", NameTraffic::Otherwise)])), "Idle")]
#[case::engine_signals_alone(
    unrouted().probe(answered(&[])).annotated("signals", "engine-queue=4").annotated("engine", "vllm")
        .with("/status/availableReplicas", &json!(0)),
    "Idle"
)]
#[case::engine_signals_alone_without_routes(
    unrouted().without_routes().probe(answered(&[])).annotated("signals", "engine-queue=4").annotated("engine", "vllm")
        .with("/status/availableReplicas", &json!(0)),
    "Idle"
)]
fn waits_for_prometheus_before_it_misses_a_route(#[case] fixture: Fixture, #[case] reason: &str) {
    assert_eq!(verdict(&fixture).reason.as_str(), reason, "{}", verdict(&fixture).message);
}

fn custom(query: &str) -> Value {
    json!({"signals": [], "customSignals": [{"name": "slo", "query": query, "target": "5"}]})
}

/// Queries of the engines, and custom ones without the model name, concern one ModelServing already.
#[rstest]
#[case::engines(Fixture::model("llama").annotated("signals", "engine-queue=4").annotated("engine", "vllm"), "")]
#[case::custom_by_name(Fixture::model("llama").profile(&custom("sum(x{name={{name}}})")), "")]
#[case::custom_by_model(Fixture::model("llama").profile(&custom("sum(x{model=~{{model}}})")), "SharedModelName")]
#[case::engines_and_router(
    Fixture::model("llama").annotated("signals", "engine-queue=4,active-requests=1").annotated("engine", "vllm"),
    "SharedModelName"
)]
fn shares_a_name_where_no_signal_depends_on_it(#[case] fixture: Fixture, #[case] reason: &str) {
    let plan = planned(&fixture.other("b", "llama"));
    let reasons: Vec<&str> = plan.findings.iter().map(|finding| finding.reason.as_str()).collect();
    assert_eq!(reasons.join(" "), reason);
}

/// A listed name without a route is named beside one with a route, until requests for it are answered.
#[rstest]
#[case::not_answered_yet(None, 1)]
#[case::rejected(Some(NameTraffic::OnlyNotFound), 1)]
#[case::served(Some(NameTraffic::Otherwise), 0)]
fn warns_of_a_listed_name_without_a_route(#[case] traffic: Option<NameTraffic>, #[case] expected: usize) {
    let fixture =
        Fixture::healthy().with("/metadata/annotations", &json!({"kthena.io/model-name": "llama,lama"}));
    let names: Vec<(&str, NameTraffic)> = traffic.iter().map(|traffic| ("lama", *traffic)).collect();
    let (plan, explanation) = explained(&fixture.probe(answered(&names)));
    assert_eq!((plan.warnings.len(), explanation.verdict.reason), (expected, VerdictReason::Idle));
    assert!(
        plan.warnings.iter().all(|warning| warning.contains(r#""lama" (most similar routed name: "llama")"#))
    );
}

#[test]
fn warns_of_a_listed_name_that_leads_nowhere() {
    let fixture = Fixture::healthy()
        .with("/metadata/annotations", &json!({"kthena.io/model-name": "llama,gpt"}))
        .route("gpt", &["chta"]);
    let warnings = planned(&fixture).warnings.join("");
    assert!(
        warnings.contains(r#"requests for "gpt" to the ModelServer models/chta, which does not exist"#),
        "{warnings}"
    );
}

/// A route cannot take over names that the annotation shares with another ModelServing.
#[test]
fn refuses_a_shared_name_although_another_name_leads_here() {
    let fixture = Fixture::model("llama")
        .other("b", "llama")
        .server("chat", "chat", &json!({}))
        .route("gpt", &["chat"]);
    assert_eq!(outcome(&fixture), "SharedModelName");
}

#[test]
fn names_the_route_that_splits_a_name() {
    let fixture = older_foreign(&conditional(&json!({"prefix": "/v1/chat"})));
    let message = verdict(&fixture).message;
    assert!(message.contains("also go elsewhere by the ModelRoute evil/route-0"), "{message}");
}
