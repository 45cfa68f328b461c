//! Verdicts without a problem, combinations of findings, and warnings.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;

use super::{action, explained, planned, verdict};
use crate::{
    domain::{Capabilities, ChainLink, Keda, Status, VerdictReason},
    observed::{
        NameTraffic, ProbeResult, Readability, Readable, RouterProblem, RouterSamples, RouterScrape, Sample,
        ServerSamples, WaitingPods,
        fixture::{Condition, Fixture, owned_by},
    },
    plan::{LinkState, diagnose},
};

const READY: Condition<'_> = ("Ready", "True", "ScaledObjectReady", "");
const ACTIVE: Condition<'_> = ("Active", "True", "ScalerActive", "");
const INACTIVE: Condition<'_> = ("Active", "False", "ScalerNotActive", "");
/// A condition as KEDA creates it, before it reports.
const NOT_REPORTED: Condition<'_> = ("Ready", "Unknown", "", "");

fn paused_by_keda(annotation: &str, value: &str) -> Fixture {
    let mut metadata = owned_by(Fixture::UID);
    metadata["annotations"] = json!({annotation: value});
    Fixture::healthy().scaled_object_with(&metadata, &[READY, INACTIVE])
}

#[rstest]
#[case::scaling(Fixture::healthy().scaled_object(&[READY, ACTIVE]), VerdictReason::Scaling, "scales on active-requests, from 1 to 10 ServingGroups")]
#[case::several_signals(
    Fixture::healthy().scaled_object(&[READY, ACTIVE]).annotated("signals", "active-requests=5,request-rate=2").annotated("max-replicas", "4"),
    VerdictReason::Scaling,
    "scales on active-requests and request-rate, from 1 to 4 ServingGroups"
)]
#[case::idle(
    Fixture::healthy(),
    VerdictReason::Idle,
    "KEDA reports no activity; scales on active-requests, from 1 to 10 ServingGroups"
)]
#[case::activity_not_reported(Fixture::healthy().scaled_object(&[READY]), VerdictReason::Idle, "KEDA reports no activity; scales on active-requests, from 1 to 10 ServingGroups")]
#[case::half_paused(Fixture::healthy().annotated("paused", "scale-in"), VerdictReason::Idle, "KEDA reports no activity; scales on active-requests, from 1 to 10 ServingGroups")]
#[case::not_paused(Fixture::healthy().annotated("paused", "false"), VerdictReason::Idle, "KEDA reports no activity; scales on active-requests, from 1 to 10 ServingGroups")]
#[case::keda_not_paused(
    paused_by_keda("autoscaling.keda.sh/paused", "false"),
    VerdictReason::Idle,
    "KEDA reports no activity; scales on active-requests, from 1 to 10 ServingGroups"
)]
#[case::paused(
    Fixture::healthy().annotated("paused", "true"),
    VerdictReason::Paused,
    "paused by the annotation autoscaling.kthena.io/paused, so replicas do not change; remove it to resume"
)]
#[case::paused_by_keda(
    paused_by_keda("autoscaling.keda.sh/paused", "true"),
    VerdictReason::Paused,
    "paused by the annotation autoscaling.keda.sh/paused on the ScaledObject, which another user set, so replicas do not change; remove it to resume"
)]
#[case::paused_at_a_number(
    paused_by_keda("autoscaling.keda.sh/paused-replicas", "3"),
    VerdictReason::Paused,
    "paused by the annotation autoscaling.keda.sh/paused-replicas on the ScaledObject, which another user set, so KEDA holds the model at 3 ServingGroups; remove it to resume"
)]
#[case::paused_at_no_number(
    paused_by_keda("autoscaling.keda.sh/paused-replicas", "false"),
    VerdictReason::Paused,
    "paused by the annotation autoscaling.keda.sh/paused-replicas on the ScaledObject, which another user set, so replicas do not change; remove it to resume"
)]
fn calls_a_model_ready(#[case] fixture: Fixture, #[case] reason: VerdictReason, #[case] message: &str) {
    let (plan, explanation) = explained(&fixture);
    let found = &explanation.verdict;
    assert_eq!((found.status, found.reason, found.message.as_str()), (Status::True, reason, message));
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let not_holding: Vec<_> = links.iter().filter(|link| link.state != LinkState::Holds).collect();
    assert!(not_holding.is_empty(), "{not_holding:?}");
}

#[rstest]
#[case::nothing_there(Fixture::model("llama").without_routes())]
#[case::not_reported(Fixture::healthy().scaled_object(&[NOT_REPORTED]))]
#[case::no_hpa(Fixture::healthy().without_hpa())]
fn waits_for_keda(#[case] fixture: Fixture) {
    let found = verdict(&fixture);
    assert_eq!((found.status, found.reason), (Status::Unknown, VerdictReason::Pending));
    assert_eq!(
        found.message,
        "waiting for KEDA to report on the ScaledObject and to create its HPA; if this lasts, check that KEDA's operator runs"
    );
}

/// KEDA's operator may be down, or limited to other namespaces.
#[test]
fn reports_that_keda_is_silent_for_minutes() {
    let silent = || Fixture::healthy().scaled_object(&[NOT_REPORTED]).without_hpa();
    assert_eq!(verdict(&silent()).reason, VerdictReason::Pending);
    let found = verdict(&silent().keda_is_silent());
    assert_eq!((found.status, found.reason.as_str()), (Status::False, "ScaledObjectNotReady"));
    assert!(found.message.contains("WATCH_NAMESPACE"), "{}", found.message);
    let reported = Fixture::healthy().keda_is_silent();
    assert_eq!(verdict(&reported).reason, VerdictReason::Idle, "a report counts");
}

/// Reports about routes count only once KEDA scales; a rejection counts at once.
#[test]
fn lists_other_problems_while_it_waits_for_keda() {
    let found = verdict(&Fixture::model("llama"));
    assert_eq!(found.reason, VerdictReason::Pending);
    assert!(found.message.contains("; also reported: ModelNotSeen: no ModelRoute"), "{}", found.message);
    let rejected = verdict(&Fixture::model("llama").rejected("ScaledObject chat was rejected"));
    assert_eq!(rejected.reason.as_str(), "ScaledObjectNotReady");
}

#[test]
fn lists_all_findings_in_the_order_of_the_chain() {
    let fixture = Fixture::model("llama")
        .capabilities(Capabilities { keda: None, scale: false, ..Capabilities::NEWEST })
        .without_prometheus()
        .annotated("min-replicas", "0")
        .annotated("signals", "engine-queue=5")
        .competitor("HorizontalPodAutoscaler");
    let plan = planned(&fixture);
    let reasons: Vec<&str> = plan.findings.iter().map(|finding| finding.reason.as_str()).collect();
    let expected = [
        "InvalidConfiguration",
        "PrometheusNotConfigured",
        "CannotWakeFromZero",
        "ConflictingAutoscaler",
        "KedaNotInstalled",
        "ScaleSubresourceMissing",
    ];
    assert_eq!(reasons, expected);
    let message = verdict(&fixture).message;
    assert!(expected[1..].iter().all(|reason| message.contains(&format!("; also {reason}: "))), "{message}");
    assert_eq!((action(&plan.scaled_object), action(&plan.pod_monitor)), ("keep", "keep"));
}

#[test]
fn explains_one_broken_link_and_the_links_before_it() {
    let fixture =
        Fixture::healthy().annotated("profile", "gold").scaled_object(&[("Ready", "False", "X", "y")]);
    let (plan, explanation) = explained(&fixture);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let states: Vec<_> = links.iter().map(|link| (link.link.name(), link.state)).collect();
    assert_eq!(states, [("annotations", LinkState::Holds), ("profile", LinkState::Broken)]);
}

/// The reason is the cause; the symptom comes earlier in the chain and is shown as affected.
#[test]
fn explains_symptoms_as_affected() {
    let probe = ProbeResult { router: RouterScrape::NoTarget, ..ProbeResult::default() };
    let fixture =
        Fixture::healthy().probe(probe).scaled_object(&[("Ready", "False", "TriggerError", "no data")]);
    let (plan, explanation) = explained(&fixture);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let not_holding: Vec<_> = links
        .iter()
        .filter(|link| link.state != LinkState::Holds)
        .map(|link| (link.link.name(), link.state))
        .collect();
    assert_eq!(not_holding, [("ScaledObject", LinkState::Affected), ("scraping", LinkState::Broken)]);
}

#[rstest]
#[case::owned(Fixture::healthy(), "; until then the ScaledObject keeps its last valid settings")]
#[case::absent(Fixture::model("llama"), "; until then no ScaledObject is created")]
fn names_the_effect_of_an_invalid_plan(#[case] fixture: Fixture, #[case] effect: &str) {
    let message = verdict(&fixture.annotated("paused", "perhaps")).message;
    assert!(message.contains(effect), "{message}");
}

#[rstest]
#[case::certain("False", Status::False)]
#[case::uncertain("Unknown", Status::Unknown)]
fn is_as_certain_as_the_report(#[case] status: &str, #[case] expected: Status) {
    assert_eq!(verdict(&Fixture::healthy().scaled_object(&[("Ready", status, "X", "y")])).status, expected);
}

/// The HPA is disabled for a model at zero, from where KEDA wakes it.
#[rstest]
#[case::at_zero(0, "Idle")]
#[case::above_zero(1, "HpaNotScaling")]
fn accepts_a_disabled_hpa_at_zero(#[case] replicas: i32, #[case] reason: &str) {
    let hpa = [("ScalingActive", "False", "ScalingDisabled", "")];
    assert_eq!(verdict(&Fixture::healthy().replicas(replicas).hpa(&hpa)).reason.as_str(), reason);
}

/// One name is enough: the others may be aliases that are not in use yet.
#[rstest]
#[case::one_of_two_is_routed(Fixture::healthy().with("/metadata/annotations", &json!({"kthena.io/model-name": "llama,alias"})))]
#[case::served_without_route(Fixture::model("other").scaled_object(&[READY]).hpa(&[]).probe(ProbeResult {
    router: RouterScrape::Succeeds,
    names: [("other".to_owned(), NameTraffic::Otherwise)].into(),
    ..ProbeResult::default()
}))]
#[case::hpa_of_keda(Fixture::healthy().competitor_of_keda())]
#[case::engines_not_started(Fixture::healthy().annotated("signals", "engine-queue=5").with("/status/availableReplicas", &json!(0)))]
fn reports_nothing(#[case] fixture: Fixture) {
    assert_eq!(verdict(&fixture).reason.as_str(), "Idle", "{}", verdict(&fixture).message);
}

#[test]
fn stays_ready_if_the_operator_cannot_query_prometheus() {
    let found = verdict(&Fixture::healthy().probe_error("connection refused after 3.2s"));
    assert_eq!(found.reason, VerdictReason::Idle);
    assert!(
        found.message.contains("; also reported: PrometheusUnreachable: Prometheus could not be queried (connection refused after …s), so"),
        "{}",
        found.message
    );
}

/// Routers of these namespaces have served requests for the model, and one more for another model.
fn served_elsewhere(namespaces: &[&str]) -> ProbeResult {
    let sample = |(model, namespace): (&str, &str)| Sample {
        labels: [("model", model), ("namespace", namespace)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        value: 1.0,
    };
    let elsewhere = namespaces.iter().map(|namespace| ("llama", *namespace)).chain([("gemma", "other")]);
    let router = RouterSamples {
        scrape: RouterScrape::Succeeds,
        elsewhere: elsewhere.map(sample).collect(),
        ..RouterSamples::default()
    };
    ProbeResult::read(router, ServerSamples::default(), Duration::from_secs(3))
}

fn with_flag_defaults() -> Fixture {
    Fixture::healthy()
        .profile(&json!({"fallback": {"behavior": "static", "failureThreshold": 3, "replicas": 2}}))
}

#[rstest]
#[case::second_writer(
    Fixture::healthy().second_writer("argocd"),
    "argocd set spec.replicas after autoscaling began, which reverts the HPA's changes; make argocd ignore that field, see https://github.com/volcano-sh/kthena-keda/blob/main/docs/troubleshooting.md#replicas-reset-by-another-writer"
)]
#[case::outdated_pause(
    Fixture::healthy().pause_is_outdated(),
    "KEDA still reports the condition Paused on ScaledObject chat although no annotation pauses it, so kubectl and other clients show a pause while this model is scaled; to clear the condition, run: kubectl annotate scaledobject chat -n models --overwrite autoscaling.keda.sh/paused=false"
)]
#[case::persistent_field(
    Fixture::healthy().persistent_field("/spec/idleReplicaCount"),
    "ScaledObject chat has fields that a webhook, a default of the CRD or another client keeps setting, so the operator leaves them alone although they may change how the model scales: spec.idleReplicaCount; remove them at their source"
)]
#[case::signed_queries(
    Fixture::healthy().profile(&json!({"prometheus": {"url": "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1", "awsRegion": "eu-central-1"}})),
    "queries to eu-central-1 need a signature for AWS, which the operator cannot make, so it does not check the signals; check them with kthena-keda explain --prometheus-url and the address of a proxy that signs"
)]
#[case::value_metric(
    Fixture::healthy().profile(&json!({"signals": [], "customSignals": [{"name": "latency", "query": "max(x)", "target": "5", "metricType": "Value"}]})),
    "signal latency has metricType Value, so the HPA reads it as 0 and goes to the minimum while no ServingGroup is ready; use AverageValue if the query is a total"
)]
#[case::fallback(
    with_flag_defaults().capabilities(Capabilities { keda: Some(Keda { initial_cooldown: true, fallback_behavior: false, directional_pause: true }), ..Capabilities::NEWEST }),
    "the profile's fallback requires KEDA 2.17 or later, so it is left out; upgrade KEDA"
)]
#[case::pod_monitors(
    Fixture::healthy().annotated("signals", "engine-queue=5").with("/status/availableReplicas", &json!(0)).capabilities(Capabilities { pod_monitors: false, ..Capabilities::NEWEST }),
    "the cluster does not serve PodMonitors, so the operator cannot have the engines scraped; install the Prometheus Operator, or scrape them yourself"
)]
#[case::harmless_mismatch(
    Fixture::healthy().mismatch(2, 3),
    "status.labelSelector matches fewer pods than status.replicas counts ServingGroups, which affects no signal of this model; restart Kthena's controller manager if the status is stale, or delete the other pods of a ServingGroup that lost instance 0 of its first role, which Kthena up to 1.0 does not recreate"
)]
#[case::other_router(
    Fixture::healthy().probe(served_elsewhere(&["tenant-b", "bad\u{1b}"])),
    "kthena-router in namespace bad\\u{1b}, tenant-b serves requests for this model name too, which the signals do not count; if they are for this model, send them through the router in kthena-system, or set router.namespace of the AutoscalingProfile"
)]
#[case::unfit_monitor(
    Fixture::healthy().router_problem(RouterProblem::UnfitMonitor("the monitor is slow; correct it".to_owned())),
    "the monitor is slow; correct it"
)]
#[case::several_clusters(
    Fixture::healthy().probe(ProbeResult { router: RouterScrape::Succeeds, ambiguous_labels: ["cluster".to_owned()].into(), ..ProbeResult::default() }),
    r#"the router's series in Prometheus have several values of the label "cluster", so this model is scaled for the requests of all of them; if they are of different clusters, set prometheus.matchers of the AutoscalingProfile to the value of this one"#
)]
#[case::slow(
    Fixture::healthy().probe(ProbeResult { router: RouterScrape::Succeeds, is_slow: true, ..ProbeResult::default() }),
    "Prometheus took more than 3 s for a small query, after which KEDA gives up by default, so replicas may stay as they are; give Prometheus more resources, or raise prometheus.timeout of the AutoscalingProfile"
)]
#[case::one_shard(
    Fixture::healthy().probe(ProbeResult { router: RouterScrape::Succeeds, is_shard: true, ..ProbeResult::default() }),
    "prometheus.url leads to one of several Prometheus shards, each of which has only a part of the targets, so queries miss routers or engines; set prometheus.url to a store that holds the series of all shards, such as Thanos Query"
)]
#[case::overwritten_entry(
    overwriting("entry", "false").annotated("signals", "kv-cache=0.8"),
    r#"the entryTemplate of role "engine" overwrites the pod label modelserving.volcano.sh/entry, so Prometheus does not find its engines and the engine signals have no data; remove the label from the template"#
)]
#[case::latency_that_scales_down_fast(
    Fixture::healthy().profile(&json!({"scaleDown": {"stabilizationWindow": "5m"}})).annotated("signals", "active-requests=10,ttft-p90=2s").annotated("engine", "vllm").with("/status/availableReplicas", &json!(0)),
    "scaleDown.stabilizationWindow is shorter than 10 minutes, so ttft-p90 may remove ServingGroups and add them again all the time; raise it in the AutoscalingProfile to twice the time that a ServingGroup takes to load"
)]
#[case::latency_beside_a_bounded_backlog(
    Fixture::healthy().annotated("service-time", "5s").annotated("signals", "active-requests=10,ttft-p90=2s").annotated("engine", "vllm").with("/status/availableReplicas", &json!(0)),
    "the requests that wait in the engines after a burst keep ttft-p90 high until they are served, so the model may grow to its maximum although the service time bounds the backlog; remove ttft-p90, or set autoscaling.kthena.io/service-time to off"
)]
fn warns(#[case] fixture: Fixture, #[case] warning: &str) {
    let plan = planned(&fixture);
    assert_eq!(plan.warnings, [warning]);
    let verdict = verdict(&fixture);
    assert_eq!(verdict.status, Status::True);
    assert!(verdict.message.ends_with(&format!("; {warning}")), "{}", verdict.message);
}

/// A role's name is text of a tenant.
#[test]
fn cuts_the_name_of_a_role_in_a_warning() {
    let labels = json!({"modelserving.volcano.sh/entry": "false"});
    let role = json!({"name": "r".repeat(1000), "entryTemplate": {"metadata": {"labels": labels}}});
    let fixture = overwriting("entry", "false").annotated("signals", "kv-cache=0.8");
    let [warning] =
        planned(&fixture.with("/spec/template/roles", &json!([role]))).warnings.try_into().unwrap();
    let expected = format!("the entryTemplate of role \"{}...\" overwrites", "r".repeat(64));
    assert!(warning.starts_with(&expected), "{warning}");
}

/// A model whose pod template sets one of Kthena's labels, before its pods are available.
fn overwriting(label: &str, value: &str) -> Fixture {
    let labels = json!({format!("modelserving.volcano.sh/{label}"): value});
    let role = json!({"name": "engine", "entryTemplate": {"metadata": {"labels": labels}}});
    Fixture::healthy()
        .with("/spec/template/roles", &json!([role]))
        .with("/status/availableReplicas", &json!(0))
        .annotated("engine", "vllm")
}

/// No signal reads the group from its label, and a copy of Kthena's own value changes nothing.
#[rstest]
#[case::group("group-name", "group-0")]
#[case::same_name("name", "chat")]
#[case::same_entry("entry", "true")]
#[case::role("role", "other")]
fn ignores_overwritten_labels_that_no_signal_depends_on(#[case] label: &str, #[case] value: &str) {
    assert_eq!(planned(&overwriting(label, value).annotated("signals", "kv-cache=0.8")).warnings, [""; 0]);
}

/// The ModelServer of the fixture does not select the pods either.
#[test]
fn warns_that_engine_signals_need_the_name_of_the_model_serving() {
    let warning =
        planned(&overwriting("name", "other").annotated("signals", "engine-queue=5")).warnings.join("; ");
    let expected = [
        "but the pods of this ModelServing have modelserving.volcano.sh/name=other,",
        "overwrites the pod label modelserving.volcano.sh/name, so Prometheus does not find its engines",
    ];
    assert!(expected.iter().all(|part| warning.contains(part)), "{warning}");
}

#[rstest]
#[case("name")]
#[case("entry")]
#[case("role")]
#[case("role-id")]
fn warns_that_value_metrics_need_the_labels_of_the_selector(#[case] label: &str) {
    let latency = json!({"name": "latency", "query": "max(x)", "target": "5", "metricType": "Value"});
    let fixture = overwriting(label, "x").profile(&json!({"signals": [], "customSignals": [latency]}));
    let warning = planned(&fixture).warnings.join("; ");
    assert!(
        warning.contains(&format!("modelserving.volcano.sh/{label}, so status.labelSelector")),
        "{warning}"
    );
}

/// `models/chat` with its own ModelServer, and this number of names of 200 bytes.
fn with_long_names(count: usize) -> Fixture {
    (1..count).fold(Fixture::healthy(), |fixture, number| {
        let name = format!("{number:0>200}");
        let rules = json!([{"targetModels": [{"modelServerName": "chat"}]}]);
        fixture.route_with(&json!({"modelName": name, "rules": rules}))
    })
}

/// Nothing that Prometheus answers is refused for its length.
#[rstest]
#[case::one_name(with_long_names(1).annotated("min-replicas", "0"), None)]
#[case::some_names(with_long_names(10), None)]
#[case::activation(with_long_names(10).annotated("min-replicas", "0"), Some(("activation (", false)))]
#[case::signals(
    with_long_names(17).annotated("signals", "active-requests=1,queued-requests=1"),
    Some(("queued-requests (", true))
)]
#[case::custom(
    with_long_names(12).profile(&json!({"signals": [], "customSignals": [
        {"name": "slo", "query": "sum(a or b or c or d)".replace(" or", "{model=~{{model}}} or"), "target": "5"}
    ]})),
    Some(("slo (", true))
)]
fn warns_of_long_queries(#[case] fixture: Fixture, #[case] expected: Option<(&str, bool)>) {
    let (plan, explanation) = explained(&fixture);
    let applied = (action(&plan.scaled_object), explanation.verdict.status);
    assert_eq!(applied, ("apply", Status::True), "{:?}", plan.findings);
    let Some((signal, has_rule)) = expected else {
        assert_eq!(plan.warnings, [""; 0]);
        return;
    };
    let [warning] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
    assert!(warning.contains(&format!("after URL encoding: {signal}")), "{warning}");
    assert_eq!(warning.contains("recording rule"), has_rule, "{warning}");
    assert!(explanation.verdict.message.contains(warning), "{}", explanation.verdict.message);
}

#[test]
fn warns_only_about_plans_that_are_applied() {
    assert_eq!(
        planned(&Fixture::healthy().second_writer("argocd").annotated("profile", "gold")).warnings,
        [""; 0]
    );
}

#[test]
fn writes_a_condition_only_if_it_changes() {
    let found = verdict(&Fixture::healthy());
    let written = json!([{
        "type": "AutoscalingReady", "status": found.status.as_str(), "reason": found.reason.as_str(), "message": found.message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    let fixture = Fixture::healthy().with("/status/conditions", &written);
    assert_eq!(action(&planned(&fixture).condition), "keep");
    assert_eq!(action(&planned(&fixture.annotated("max-replicas", "4")).condition), "apply");
}

#[test]
fn says_that_a_pause_of_keda_does_nothing_on_a_model_serving() {
    let annotations = json!({"kthena.io/model-name": "llama", "autoscaling.keda.sh/paused-replicas": "2"});
    let verdict = verdict(&Fixture::healthy().with("/metadata/annotations", &annotations));
    assert!(
        verdict.is_good() && verdict.message.contains("\"autoscaling.keda.sh/paused-replicas\" pauses nothing on a ModelServing; use autoscaling.kthena.io/paused"),
        "{}",
        verdict.message
    );
}

/// Annotations, profile, pod template and the routes of the namespace are what users write; conditions, results of
/// queries and what tenants of other namespaces do are not.
#[test]
fn the_input_of_users_changes_with_what_they_write_alone() {
    let input = |fixture: &Fixture| fixture.observed().user_input(None);
    let before = input(&Fixture::healthy());
    let by_users = [
        Fixture::healthy().annotated("max-replicas", "4"),
        Fixture::healthy().with("/metadata/annotations", &json!({"kthena.io/model-name": "other"})),
        Fixture::healthy().profile(&json!({"replicas": {"max": 4}})),
        Fixture::healthy().route("other", &["chat"]),
        Fixture::healthy().server("more", "chat", &json!({})),
        overwriting("role", "x"),
        Fixture::healthy().readable(Readability { profiles: Readable::NotYet, ..Readability::default() }),
        Fixture::healthy().competitor("HorizontalPodAutoscaler"),
        Fixture::healthy().scaled_object_with(&json!({"name": "chat", "uid": "theirs"}), &[]),
        Fixture::healthy().persistent_field("/spec/idleReplicaCount"),
        Fixture::healthy().pause_is_outdated(),
    ];
    let by_others = [
        Fixture::healthy().scaled_object(&[("Ready", "False", "TriggerError", "")]),
        Fixture::healthy().without_hpa(),
        Fixture::healthy().pod_monitor(&owned_by(Fixture::UID)),
        Fixture::healthy().probe_error("timeout"),
        Fixture::healthy().replicas(7),
        Fixture::healthy().second_writer("argocd"),
        Fixture::healthy().other_in("other-team", "thief", "llama"),
        Fixture::healthy().route_in(
            "other-team",
            &json!({"modelName": "llama", "rules": [{"targetModels": [{"modelServerName": "x"}]}]}),
        ),
    ];
    assert_eq!(by_others.map(|fixture| input(&fixture) == before), [true; 8]);
    assert_eq!(by_users.map(|fixture| input(&fixture) == before), [false; 11]);
    let installed = Fixture::healthy().observed().user_input(Some(Capabilities::NEWEST));
    assert_ne!(installed, before, "the platform team installed an API");
}

#[rstest]
#[case(WaitingPods::Unschedulable("Unschedulable: no node".to_owned()), "pods of this ModelServing cannot be scheduled", "; also reported: Unschedulable: Unschedulable: no node")]
#[case(WaitingPods::NoScheduler("volcano".to_owned()), "no scheduler has taken the pods", "; also reported: NoScheduler: volcano")]
#[case(WaitingPods::ImagePull("ErrImagePull: x".to_owned()), "an image of this ModelServing cannot be pulled", "; also reported: ImagePull: ErrImagePull: x")]
#[case(
    WaitingPods::NotReady,
    "ServingGroups of this ModelServing do not become ready",
    "#servinggroups-that-do-not-become-ready"
)]
fn warns_of_serving_groups_that_do_not_become_ready(
    #[case] waiting: WaitingPods,
    #[case] warning: &str,
    #[case] end: &str,
) {
    let verdict = verdict(&Fixture::healthy().waiting(waiting));
    assert!(verdict.is_good(), "{verdict:?}");
    assert!(verdict.message.contains(warning) && verdict.message.ends_with(end), "{}", verdict.message);
}

#[test]
fn a_pause_explains_the_missing_hpa() {
    let fixture = Fixture::healthy().annotated("paused", "true").without_hpa();
    let (plan, explanation) = explained(&fixture);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let hpa = links.iter().find(|link| link.link == ChainLink::Hpa).unwrap();
    assert_eq!(hpa.state, LinkState::Holds);
    assert!(hpa.detail.starts_with("paused by the annotation autoscaling.kthena.io/paused, so"), "{hpa:?}");
}
