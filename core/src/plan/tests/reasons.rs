//! Each reason: status, broken link and message.

use std::fmt::Write as _;

use serde_json::{Value, json};
use strum::VariantArray as _;

use super::explained;
use crate::{
    domain::{
        Capabilities, ChainLink, Keda,
        Reason::{self, *},
        Status, VerdictReason,
    },
    observed::{
        EngineScrape, NameTraffic, ProbeResult, Readability, Readable, RouterProblem, RouterScrape,
        fixture::{Condition, Fixture, owned_by},
    },
    plan::{LinkState, diagnose},
};

/// A case and the reason that it leads to.
type Case = (&'static str, Reason, Fixture);

fn cases() -> Vec<Case> {
    [settings(), sharing(), cluster(), unread(), keda(), hpa(), scraping(), traffic()].concat()
}

fn with_metric_type(metric_type: &str, query: &str) -> Value {
    let signal = json!({"name": "latency", "query": query, "target": "5", "metricType": metric_type});
    json!({"signals": [], "customSignals": [signal]})
}

fn with_keda(keda: Option<Keda>) -> Fixture {
    Fixture::model("llama").capabilities(Capabilities { keda, ..Capabilities::NEWEST })
}

const OLD_KEDA: Keda = Keda { initial_cooldown: false, fallback_behavior: false, directional_pause: false };

fn settings() -> Vec<Case> {
    let model = || Fixture::model("llama");
    let one_name = with_metric_type("AverageValue", "sum(x{model={{model}}})");
    let engine = json!({"inferenceEngine": "vLLM"});
    let disagreeing = model().server("chat", "chat", &engine).server(
        "other",
        "chat",
        &json!({"inferenceEngine": "SGLang"}),
    );
    vec![
        (
            "annotations",
            InvalidConfiguration,
            model().annotated("min-replicas", "two").annotated("max-replica", "4"),
        ),
        ("profile", InvalidConfiguration, model().profile(&json!({"replicas": {"min": 3, "max": 2}}))),
        (
            "profile of a newer release",
            InvalidConfiguration,
            model().profile(&json!({"scaleUp": {"select": "Average"}})),
        ),
        (
            "minimum above the profile's maximum",
            InvalidConfiguration,
            model().annotated("min-replicas", "11"),
        ),
        ("more ServingGroups than the maximum", InvalidConfiguration, model().replicas(12)),
        (
            "pause of one direction before KEDA 2.18",
            InvalidConfiguration,
            with_keda(Some(OLD_KEDA)).annotated("paused", "scale-in"),
        ),
        (
            "minimum of 0 before KEDA 2.14",
            InvalidConfiguration,
            with_keda(Some(OLD_KEDA)).annotated("min-replicas", "0"),
        ),
        ("custom signal for one name", InvalidConfiguration, Fixture::model("llama,lora").profile(&one_name)),
        (
            "misspelt custom signal",
            InvalidConfiguration,
            model().profile(&one_name).annotated("signals", "latenc=7"),
        ),
        ("no ModelServer", InvalidConfiguration, model().annotated("signals", "engine-queue=5")),
        (
            "unknown engine",
            InvalidConfiguration,
            model().annotated("signals", "engine-queue=5").server(
                "chat",
                "chat",
                &json!({"inferenceEngine": "tgi"}),
            ),
        ),
        (
            "ModelServers that disagree",
            InvalidConfiguration,
            disagreeing.annotated("signals", "engine-queue=5"),
        ),
        (
            "profile of other namespaces",
            ProfileNotFound,
            model().annotated("profile", "gold").profile(&json!({"allowedNamespaces": ["team-*"]})),
        ),
        (
            "default profile of other namespaces",
            ProfileNotFound,
            model().scaled_object(&[]).profile(&json!({"allowedNamespaces": ["team-*", "model"]})),
        ),
        ("profile that does not exist", ProfileNotFound, model().annotated("profile", "gold")),
        ("no Prometheus", PrometheusNotConfigured, model().without_prometheus()),
        (
            "only engine signals at zero",
            CannotWakeFromZero,
            model()
                .annotated("min-replicas", "0")
                .annotated("signals", "engine-queue=5")
                .server("chat", "chat", &engine),
        ),
    ]
}

/// Two ModelServings that a ModelRoute splits requests between.
fn split() -> Fixture {
    let none = json!({});
    Fixture::model("llama")
        .other("canary", "llama")
        .server("chat", "chat", &none)
        .server("canary", "canary", &none)
        .route("llama", &["chat", "canary"])
}

fn sharing() -> Vec<Case> {
    let claimed = Fixture::model("llama").other("a", "llama").other("b", "x,llama");
    let six = (0..6).fold(Fixture::model("llama"), |fixture, i| fixture.other(&format!("m{i}"), "llama"));
    let one_server = Fixture::model("llama")
        .other("canary", "llama")
        .server_with("both", &json!({"modelserving.volcano.sh/entry": "true"}), &json!({}))
        .route("llama", &["both"]);
    vec![
        ("name of others", SharedModelName, claimed),
        ("name of many others", SharedModelName, six),
        ("ModelServer of several ModelServings", SharedModelName, one_server),
        (
            "signal that is not counted by ModelServer",
            SharedModelName,
            split().annotated("signals", "request-rate=2,output-tokens=5"),
        ),
        ("split requests at zero", CannotWakeFromZero, split().annotated("min-replicas", "0")),
    ]
}

fn cluster() -> Vec<Case> {
    let healthy = Fixture::healthy;
    let owner = json!([{"apiVersion": "x/v1", "kind": "LeaderWorkerSet", "name": "set", "uid": "l"}]);
    let foreign = json!({"name": "chat", "namespace": "models", "uid": "f"});
    let no_scale = Capabilities { scale: false, ..Capabilities::NEWEST };
    vec![
        ("HPA", ConflictingAutoscaler, healthy().competitor("HorizontalPodAutoscaler")),
        ("ScaledObject", ConflictingAutoscaler, healthy().competitor("ScaledObject")),
        (
            "AutoscalingPolicy and binding",
            ConflictingAutoscaler,
            healthy().competitor("AutoscalingPolicy").competitor("AutoscalingPolicyBinding"),
        ),
        ("LeaderWorkerSet", ConflictingAutoscaler, healthy().with("/metadata/ownerReferences", &owner)),
        ("foreign ScaledObject", NameConflict, Fixture::model("llama").scaled_object_with(&foreign, &[])),
        (
            "foreign PodMonitor",
            NameConflict,
            healthy().annotated("signals", "engine-queue=5").pod_monitor(&foreign),
        ),
        (
            "ScaledObject of a deleted ModelServing",
            OwnerDeleted,
            Fixture::model("llama").scaled_object_with(&owned_by("earlier"), &[]),
        ),
        (
            "PodMonitor of a deleted ModelServing",
            OwnerDeleted,
            healthy().annotated("signals", "engine-queue=5").pod_monitor(&owned_by("earlier")),
        ),
        ("no KEDA", KedaNotInstalled, with_keda(None)),
        ("no scale subresource", ScaleSubresourceMissing, Fixture::model("llama").capabilities(no_scale)),
        (
            "fewer pods than ServingGroups",
            SelectorMismatch,
            healthy().profile(&with_metric_type("Value", "max(x)")).mismatch(2, 3),
        ),
        (
            "more pods than ServingGroups",
            SelectorMismatch,
            healthy().profile(&with_metric_type("Value", "max(x)")).mismatch(3, 2),
        ),
    ]
}

fn unread() -> Vec<Case> {
    use Readable::{Forbidden, NotYet};
    let readable = |readable| Fixture::healthy().readable(readable);
    let none = Readability::default;
    vec![
        ("profiles", MissingPermission, readable(Readability { profiles: Forbidden, ..none() })),
        ("ScaledObjects", MissingPermission, readable(Readability { scaled_objects: Forbidden, ..none() })),
        ("ModelRoutes", MissingPermission, readable(Readability { routes: Forbidden, ..none() })),
        ("ModelServers", MissingPermission, readable(Readability { servers: Forbidden, ..none() })),
        (
            "HPAs before creation",
            MissingPermission,
            Fixture::model("llama").readable(Readability { hpas: Forbidden, ..none() }),
        ),
        ("profiles not listed yet", NotListed, readable(Readability { profiles: NotYet, ..none() })),
    ]
}

fn not_ready<'a>(status: &'a str, reason: &'a str, message: &'a str) -> [Condition<'a>; 1] {
    [("Ready", status, reason, message)]
}

fn keda() -> Vec<Case> {
    let case = |name, reason, message| {
        (name, ScaledObjectNotReady, Fixture::healthy().scaled_object(&not_ready("False", reason, message)))
    };
    let unknown = Fixture::healthy().scaled_object(&not_ready("Unknown", "Initializing", "still starting."));
    vec![
        case("KEDA without permission", "ScaledObjectCheckFailed", "modelservings \"chat\" is forbidden"),
        case("KEDA without ModelServings", "ScaledObjectCheckFailed", "no matches for kind ModelServing"),
        case("KEDA without scale subresource", "ScaledObjectCheckFailed", "could not find scale subresource"),
        case("KEDA without data", "TriggerError", "dial tcp 10.0.0.7:9090: connection refused"),
        case(
            "KEDA without credentials",
            "TriggerError",
            "prometheus query api returned error. status: 401 response: x",
        ),
        case(
            "KEDA with wrong credentials",
            "TriggerError",
            "prometheus query api returned error. status: 403",
        ),
        case("KEDA with a long query", "TriggerError", "prometheus query api returned error. status: 414"),
        case("unknown error of KEDA", "ScaledObjectCheckFailed", "something else happened."),
        ("KEDA not certain", ScaledObjectNotReady, unknown),
        (
            "rejection",
            ScaledObjectNotReady,
            Fixture::model("llama").rejected("ScaledObject chat was rejected: not before Monday, 2026-11-30"),
        ),
    ]
}

fn hpa() -> Vec<Case> {
    let case = |name, reason, message| {
        (name, HpaNotScaling, Fixture::healthy().hpa(&[("ScalingActive", "False", reason, message)]))
    };
    let unable = [("AbleToScale", "False", "FailedGetScale", "modelservings.workload \"chat\" is forbidden")];
    vec![
        case("HPA without selector", "InvalidSelector", "the HPA target's scale is missing a selector"),
        case("two HPAs", "AmbiguousSelector", "pods by selector are controlled by multiple HPAs"),
        case(
            "HPA disabled",
            "ScalingDisabled",
            "scaling is disabled since the replica count of the target is zero",
        ),
        case(
            "no metrics server",
            "FailedGetExternalMetric",
            "the server is currently unable to handle the request",
        ),
        case(
            "KEDA's operator down",
            "FailedGetExternalMetric",
            "rpc error: timeout while waiting to establish gRPC connection",
        ),
        case("HPA without data", "FailedGetExternalMetric", "unable to get external metric"),
        ("HPA without permission", HpaNotScaling, Fixture::healthy().hpa(&unable)),
    ]
}

fn probe(router: RouterScrape) -> ProbeResult {
    ProbeResult { router, ..ProbeResult::default() }
}

fn in_namespace(router: &str) -> Fixture {
    Fixture::healthy().profile(&json!({"router": {"namespace": router}}))
}

fn scraping() -> Vec<Case> {
    let engines = |targets: &[(&str, EngineScrape)]| {
        let engines =
            targets.iter().map(|(name, up)| (("models".to_owned(), (*name).to_owned()), *up)).collect();
        let signals =
            Fixture::healthy().annotated("signals", "engine-queue=5").annotated("engine-port", "9000");
        signals.probe(ProbeResult { engines, ..probe(RouterScrape::Succeeds) })
    };
    let failing = not_ready("False", "TriggerError", "no data");
    vec![
        ("router", RouterNotScraped, Fixture::healthy().probe(probe(RouterScrape::NoTarget))),
        (
            "cause before symptom",
            RouterNotScraped,
            Fixture::healthy().probe(probe(RouterScrape::NoTarget)).scaled_object(&failing),
        ),
        (
            "router without gauges",
            RouterNotScraped,
            Fixture::healthy().probe(probe(RouterScrape::WithoutGauges)),
        ),
        (
            "router that does not answer",
            RouterNotScraped,
            Fixture::healthy().probe(probe(RouterScrape::Fails)),
        ),
        (
            "router with a known problem",
            RouterNotScraped,
            Fixture::healthy()
                .probe(probe(RouterScrape::NoTarget))
                .router_problem(RouterProblem::Unscraped("the port is wrong; correct it".to_owned())),
        ),
        (
            "router that declares TLS",
            RouterNotScraped,
            Fixture::healthy()
                .probe(probe(RouterScrape::Fails))
                .router_problem(RouterProblem::UndeclaredTls("the port serves TLS; say so".to_owned())),
        ),
        (
            "router of another namespace",
            RouterNotScraped,
            in_namespace("routers").probe_at("routers", probe(RouterScrape::NoTarget)),
        ),
        ("engines without target", EngineNotScraped, engines(&[("other", EngineScrape::Scraped)])),
        ("engines that do not answer", EngineNotScraped, engines(&[("chat", EngineScrape::Unreachable)])),
        ("engines without gauges", EngineNotScraped, engines(&[("chat", EngineScrape::WithoutGauges)])),
        (
            "SGLang without gauges",
            EngineNotScraped,
            engines(&[("chat", EngineScrape::WithoutGauges)]).annotated("engine", "sglang"),
        ),
        (
            "SGLang without metrics",
            EngineNotScraped,
            engines(&[("chat", EngineScrape::Unreachable)]).annotated("engine", "sglang"),
        ),
    ]
}

fn traffic() -> Vec<Case> {
    let requested = |names: &[(&str, NameTraffic)]| {
        let names = names.iter().map(|(name, traffic)| ((*name).to_owned(), *traffic)).collect();
        ProbeResult { names, ..probe(RouterScrape::Succeeds) }
    };
    let others = [("gemma", NameTraffic::Otherwise), ("typo", NameTraffic::OnlyNotFound)];
    let misspelt =
        || Fixture::healthy().with("/metadata/annotations", &json!({"kthena.io/model-name": "lama"}));
    let no_routes = || Fixture::healthy().without_routes();
    let no_server = || {
        let reported = Fixture::model("llama").scaled_object(&not_ready("True", "ScaledObjectReady", ""));
        reported.hpa(&[("ScalingActive", "True", "ValidMetricFound", "")]).route("llama", &["chta"])
    };
    vec![
        ("misspelt name", ModelNotSeen, misspelt()),
        (
            "misspelt name of requests",
            ModelNotSeen,
            misspelt().probe(requested(&[("lama", NameTraffic::OnlyNotFound)])),
        ),
        (
            "route without ModelServer, Prometheus down",
            ModelNotSeen,
            no_server().probe_error("connection refused"),
        ),
        (
            "no similar route",
            ModelNotSeen,
            Fixture::healthy().with("/metadata/annotations", &json!({"kthena.io/model-name": "a,bbbbbbbb"})),
        ),
        ("no routes, no requests", ModelNotSeen, no_routes()),
        ("no routes, other requests", ModelNotSeen, no_routes().probe(requested(&others))),
        (
            "no routes, similar requests",
            ModelNotSeen,
            no_routes().probe(requested(&[("lama", NameTraffic::Otherwise)])),
        ),
    ]
}

#[test]
fn has_a_case_for_every_reason() {
    let cases = cases();
    let missing: Vec<_> = Reason::VARIANTS
        .iter()
        .filter(|reason| !cases.iter().any(|(_, found, _)| found == *reason))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn gives_every_reason_its_status_link_and_message() {
    let mut text = String::new();
    for (name, reason, fixture) in cases() {
        let (plan, explanation) = explained(&fixture);
        let verdict = &explanation.verdict;
        assert_eq!(verdict.reason, VerdictReason::from(reason), "{name}: {}", verdict.message);
        let is_unknown = reason.is_unknown() || name == "KEDA not certain";
        let status = if is_unknown { Status::Unknown } else { Status::False };
        assert_eq!(verdict.status, status, "{name}");
        let broken: Vec<_> = diagnose(&fixture.observed(), &plan, &explanation)
            .into_iter()
            .filter(|link| link.state == LinkState::Broken)
            .collect();
        let expected: &[ChainLink] = if reason.is_unknown() { &[] } else { &[reason.link()] };
        assert_eq!(broken.iter().map(|link| link.link).collect::<Vec<_>>(), expected, "{name}");
        let (reason, status, link) = (reason.as_str(), status.as_str(), reason.link().name());
        writeln!(text, "{reason}: {name} ({status}, {link})\n  {}\n", verdict.message).unwrap();
    }
    insta::assert_snapshot!("messages", text);
}
