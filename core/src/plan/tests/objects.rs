//! Which objects are applied, kept or removed: by ownership, capabilities and opting out.

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, applied, planned};
use crate::{
    api::keda::ScaledObject,
    domain::Capabilities,
    observed::{
        Fingerprint, LiveObject as _, LivePodMonitor, LiveScaledObject, MonitorDigest, Ownership,
        ScaledObjectDigest, desired_spec,
        fixture::{self, Fixture, applied_pod_monitor, applied_scaled_object, decode, edited, owned_by},
    },
    plan::Desired,
};

const DELETED: &str = "2026-01-01T00:00:00Z";

/// Metadata that the operator owns, changed by its JSON pointer.
fn owned_but(field: &str, value: &Value) -> Value {
    let mut metadata = owned_by(Fixture::UID);
    metadata[field] = value.clone();
    metadata
}

fn owned_by_other() -> Value {
    let mut metadata = owned_by("other");
    metadata["ownerReferences"][0]["name"] = json!("other");
    metadata
}

fn foreign() -> Value {
    json!({"name": "chat", "namespace": "models", "uid": "f", "labels": {"app.kubernetes.io/managed-by": "helm"}})
}

/// Rendered output that came through GitOps: marked, without a controller.
fn marked() -> Value {
    owned_but("ownerReferences", &json!([]))
}

/// Written by the operator and controlled by the ModelServing, but without the label.
fn touched() -> Value {
    let mut metadata = owned_but("labels", &json!({}));
    metadata["managedFields"] =
        json!([{"manager": "kthena-keda", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]);
    metadata
}

/// Plans for the object as ScaledObject of a ModelServing that is opted in, opted out, and in conflict with
/// an HPA.
#[rstest]
#[case::absent(None, Ownership::Absent, ["apply", "keep", "keep"])]
#[case::owned(Some(owned_by(Fixture::UID)), Ownership::Owned, ["apply", "remove", "remove"])]
#[case::touched(Some(touched()), Ownership::Owned, ["apply", "remove", "remove"])]
#[case::marked(Some(marked()), Ownership::Owned, ["apply", "keep", "keep"])]
#[case::terminating(Some(owned_but("deletionTimestamp", &json!(DELETED))), Ownership::Terminating, ["keep", "keep", "keep"])]
#[case::of_a_deleted_model_serving(Some(owned_by("earlier")), Ownership::Orphaned, ["keep", "keep", "keep"])]
#[case::of_another_model_serving(Some(owned_by_other()), Ownership::Foreign, ["keep", "keep", "keep"])]
#[case::unmarked(Some(owned_but("labels", &json!({}))), Ownership::Foreign, ["keep", "keep", "keep"])]
#[case::foreign(Some(foreign()), Ownership::Foreign, ["keep", "keep", "keep"])]
fn writes_only_owned_scaled_objects(
    #[case] metadata: Option<Value>,
    #[case] ownership: Ownership,
    #[case] expected: [&str; 3],
) {
    let situations = [
        Fixture::model("llama"),
        Fixture::opted_out(),
        Fixture::model("llama").competitor("HorizontalPodAutoscaler"),
    ];
    let actions = situations.map(|fixture| {
        let fixture =
            metadata.iter().fold(fixture, |fixture, metadata| fixture.scaled_object_with(metadata, &[]));
        assert_eq!(fixture.observed().scaled_object_ownership(), ownership);
        action(&planned(&fixture).scaled_object)
    });
    assert_eq!(actions, expected);
}

fn engine_signals() -> Fixture {
    Fixture::model("llama").annotated("signals", "engine-queue=5").server(
        "chat",
        "chat",
        &json!({"inferenceEngine": "vLLM", "workloadPort": {"port": 8080}}),
    )
}

/// Plans for the object as PodMonitor with engine signals, without them, and opted out.
#[rstest]
#[case::absent(None, ["apply", "keep", "keep"])]
#[case::owned(Some(owned_by(Fixture::UID)), ["apply", "remove", "remove"])]
#[case::marked(Some(marked()), ["apply", "keep", "keep"])]
#[case::terminating(Some(owned_but("deletionTimestamp", &json!(DELETED))), ["keep", "keep", "keep"])]
#[case::of_a_deleted_model_serving(Some(owned_by("earlier")), ["keep", "keep", "keep"])]
#[case::foreign(Some(foreign()), ["keep", "keep", "keep"])]
fn writes_only_owned_pod_monitors(#[case] metadata: Option<Value>, #[case] expected: [&str; 3]) {
    let actions = [engine_signals(), Fixture::model("llama"), Fixture::opted_out()].map(|fixture| {
        let fixture = metadata.iter().fold(fixture, Fixture::pod_monitor);
        action(&planned(&fixture).pod_monitor)
    });
    assert_eq!(actions, expected);
}

#[rstest]
#[case::no_pod_monitors_served(engine_signals().capabilities(Capabilities { pod_monitors: false, ..Capabilities::NEWEST }), "keep")]
#[case::monitors_turned_off(engine_signals().pod_monitor(&owned_by(Fixture::UID)).profile(&json!({"monitors": {"create": false}})), "remove")]
#[case::invalid_settings(engine_signals().pod_monitor(&owned_by(Fixture::UID)).annotated("profile", "gold"), "keep")]
#[case::competing_autoscaler(engine_signals().pod_monitor(&owned_by(Fixture::UID)).competitor("ScaledObject"), "keep")]
#[case::invalid_and_opted_out(Fixture::opted_out().pod_monitor(&owned_by(Fixture::UID)).annotated("paused", "perhaps"), "remove")]
fn needs_a_pod_monitor(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(action(&planned(&fixture).pod_monitor), expected);
}

#[test]
fn conflicts_with_a_foreign_pod_monitor_only_if_one_is_needed() {
    let unneeded = planned(&Fixture::model("llama").pod_monitor(&foreign()));
    assert_eq!((unneeded.findings.len(), action(&unneeded.scaled_object)), (0, "apply"));
    let needed = planned(&engine_signals().pod_monitor(&foreign()));
    assert_eq!((needed.findings.len(), action(&needed.scaled_object)), (1, "keep"));
}

#[test]
fn scrapes_the_entry_pods_on_the_port_of_the_engine() {
    let profile = json!({"monitors": {"labels": {"release": "stack"}, "interval": "5s"}});
    let Desired::Apply(monitor) = planned(&engine_signals().profile(&profile)).pod_monitor else { panic!() };
    insta::assert_yaml_snapshot!("pod_monitor", monitor);
}

/// A PodMonitor keeps the metrics of the model's own queries, in both spellings, and none of the router.
#[rstest]
#[case::vllm("engine-queue=5,active-requests=3", "vllm", "vllm[:_]num_requests_waiting")]
#[case::sglang("engine-running=5", "sglang", "sglang[:_]num_running_reqs")]
#[case::latency(
    "active-requests=3,ttft-p90=2s",
    "vllm",
    "vllm[:_]num_requests_running|vllm[:_]num_requests_waiting|vllm[:_]time_to_first_token_seconds_bucket"
)]
#[case::other_latency(
    "active-requests=3,itl-p90=50ms",
    "sglang",
    "sglang[:_]inter_token_latency_seconds_bucket|sglang[:_]num_queue_reqs|sglang[:_]num_running_reqs"
)]
#[case::custom("engine-queue=5,slo=3", "vllm", "vllm[:_]e2e_request_latency_seconds_bucket")]
fn keeps_only_the_metrics_that_queries_read(
    #[case] signals: &str,
    #[case] engine: &str,
    #[case] expected: &str,
) {
    let query = "histogram_quantile(0.9, sum by (le) (rate(vllm:e2e_request_latency_seconds_bucket[5m])))";
    let profile = json!({"customSignals": [{"name": "slo", "query": query, "target": "5"}]});
    let fixture =
        engine_signals().profile(&profile).annotated("signals", signals).annotated("engine", engine);
    let Desired::Apply(monitor) = planned(&fixture).pod_monitor else { panic!() };
    assert_eq!(monitor.spec.sample_limit, Some(2000));
    let [keep] = monitor.spec.pod_metrics_endpoints[0].metric_relabelings.as_slice() else { panic!() };
    let pattern = keep.regex.as_deref().unwrap();
    assert_eq!(
        (keep.action.as_str(), keep.source_labels.as_slice()),
        ("keep", ["__name__".to_owned()].as_slice())
    );
    assert!(expected.split('|').all(|name| pattern.split('|').any(|kept| kept == name)), "{pattern}");
    assert!(!pattern.contains("kthena_router") && !pattern.split('|').any(|name| name == "up"), "{pattern}");
}

fn fingerprint(scaled_object: &ScaledObject) -> Fingerprint {
    Fingerprint::of_desired(&scaled_object.metadata, &scaled_object.spec)
}

/// An object as the operator applied it has the fingerprint of the plan, so that no second write follows.
#[test]
fn recognizes_its_own_objects() {
    let fixture = engine_signals().annotated("paused", "scale-in");
    let scaled_object = applied(&fixture);
    let live = applied_scaled_object(&scaled_object);
    assert_eq!(live.owned.fingerprint, fingerprint(&scaled_object));
    assert_eq!(live.owned.ownership(Some(Fixture::UID)), Ownership::Owned);
    let Desired::Apply(monitor) = planned(&fixture).pod_monitor else { panic!() };
    assert_eq!(
        applied_pod_monitor(&monitor).fingerprint,
        Fingerprint::of_desired(&monitor.metadata, &monitor.spec)
    );
    assert_ne!(fingerprint(&applied(&fixture.annotated("max-replicas", "4"))), fingerprint(&scaled_object));
}

fn live(object: &Value) -> LiveScaledObject {
    decode(object)
}

/// Every field of the spec is the operator's, also one that it never sets.
#[rstest]
#[case::idle_replicas("/spec/idleReplicaCount", json!(0))]
#[case::formula("/spec/advanced/scalingModifiers", json!({"formula": "1"}))]
#[case::name_of_the_hpa("/spec/advanced/horizontalPodAutoscalerConfig/name", json!("mine"))]
#[case::tolerance("/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/tolerance", json!("0.5"))]
#[case::replicas_on_deletion("/spec/advanced/restoreToOriginalReplicaCount", json!(true))]
#[case::container("/spec/scaleTargetRef/envSourceContainerName", json!("engine"))]
#[case::fallback("/spec/fallback", json!({"failureThreshold": 1, "replicas": 9}))]
#[case::unknown("/spec/unheardOf", json!(1))]
fn detects_fields_that_another_client_added(#[case] pointer: &str, #[case] value: Value) {
    let wanted = applied(&Fixture::model("llama"));
    let live = live(&edited(fixture::applied(&wanted), pointer, &value, Some("kubectl-edit")));
    let digest = ScaledObjectDigest::from(&live).owned;
    assert_ne!(digest.fingerprint, fingerprint(&wanted));
    let difference = live.spec().difference(&desired_spec(&wanted.spec));
    assert_eq!((difference.added, difference.changed), (vec![pointer.to_owned()], vec![]));
}

#[rstest]
#[case::maximum("/spec/maxReplicaCount", json!(99))]
#[case::triggers("/spec/triggers", json!([{"type": "cron", "metadata": {"desiredReplicas": "9"}}]))]
#[case::key_of_a_trigger("/spec/triggers", json!([{"type": "prometheus", "metadata": {"ignoreNullValues": "true"}}]))]
fn detects_fields_that_another_client_changed(#[case] pointer: &str, #[case] value: Value) {
    let wanted = applied(&Fixture::model("llama"));
    let live = live(&edited(fixture::applied(&wanted), pointer, &value, Some("kubectl-edit")));
    assert_ne!(ScaledObjectDigest::from(&live).owned.fingerprint, fingerprint(&wanted));
    let difference = live.spec().difference(&desired_spec(&wanted.spec));
    assert_eq!((difference.added, difference.changed), (vec![], vec![pointer.to_owned()]));
}

/// KEDA's own updates write empty values into every ScaledObject.
#[rstest]
#[case::modifiers("/spec/advanced/scalingModifiers", json!({}))]
#[case::nested("/spec/advanced/scalingModifiers", json!({"formula": ""}))]
#[case::null("/spec/fallback", json!(null))]
fn counts_empty_values_as_absent(#[case] pointer: &str, #[case] value: Value) {
    let wanted = applied(&Fixture::model("llama"));
    let live = live(&edited(fixture::applied(&wanted), pointer, &value, Some("keda")));
    assert_eq!(ScaledObjectDigest::from(&live).owned.fingerprint, fingerprint(&wanted));
}

/// A default of the CRD or a webhook would set such a field again after each removal.
#[test]
fn leaves_fields_without_a_manager_alone() {
    let wanted = applied(&Fixture::model("llama"));
    let object = edited(fixture::applied(&wanted), "/spec/advanced/byWebhook", &json!(3), None);
    let digest = ScaledObjectDigest::from(&live(&object)).owned;
    assert_eq!(digest.fingerprint, fingerprint(&wanted));
    assert_eq!(*digest.defaulted_fields, ["/spec/advanced/byWebhook".to_owned()]);
}

#[rstest]
#[case::own_label("/metadata/labels/app.kubernetes.io~1managed-by", json!("helm"))]
#[case::pause_turned_off("/metadata/annotations/autoscaling.keda.sh~1paused", json!("false"))]
fn detects_changes_of_its_own_metadata(#[case] pointer: &str, #[case] value: Value) {
    let wanted = applied(&Fixture::model("llama").annotated("paused", "true"));
    let mut object = fixture::applied(&wanted);
    *object.pointer_mut(pointer).unwrap() = value;
    assert_ne!(ScaledObjectDigest::from(&live(&object)).owned.fingerprint, fingerprint(&wanted));
}

#[test]
fn detects_added_fields_of_a_pod_monitor() {
    let Desired::Apply(wanted) = planned(&engine_signals()).pod_monitor else { panic!() };
    let endpoint = json!([{"path": "/metrics", "metricRelabelings": [{"action": "drop"}]}]);
    for (pointer, value) in [("/spec/sampleLimit", json!(1)), ("/spec/podMetricsEndpoints", endpoint)] {
        let object = edited(fixture::applied(&*wanted), pointer, &value, Some("kubectl-edit"));
        let digest = MonitorDigest::from(&decode::<LivePodMonitor>(&object)).owned;
        assert_ne!(digest.fingerprint, Fingerprint::of_desired(&wanted.metadata, &wanted.spec), "{pointer}");
    }
}

fn selector(fixture: &Fixture) -> Desired<String> {
    planned(fixture).selector
}

fn written_by_the_operator(selector: &str) -> Fixture {
    let fields = json!([{"manager": "kthena-keda", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:labelSelector": {}}}}]);
    with_selector(&json!(selector)).with("/metadata/managedFields", &fields)
}

fn with_selector(selector: &Value) -> Fixture {
    Fixture::opted_out().with("/status/labelSelector", selector)
}

#[rstest]
#[case::missing(with_selector(&json!(null)))]
#[case::empty(with_selector(&json!("")))]
#[case::no_status(Fixture::opted_out().with("/status", &json!(null)))]
#[case::outdated(written_by_the_operator("a=b"))]
fn fills_the_selector(#[case] fixture: Fixture) {
    assert_eq!(selector(&fixture), Desired::Apply(Fixture::SELECTOR.to_owned()));
}

#[rstest]
#[case::of_kthena(Fixture::opted_out())]
#[case::of_another_writer(with_selector(&json!("a=b")))]
#[case::of_the_operator(written_by_the_operator(Fixture::SELECTOR))]
#[case::no_scale_subresource(with_selector(&json!("")).capabilities(Capabilities { scale: false, ..Capabilities::NEWEST }))]
#[case::no_role(with_selector(&json!("")).with("/spec/template", &json!({"roles": []})))]
#[case::unreadable_role(written_by_the_operator("a=b").with("/spec/template", &json!({"roles": [{"name": 3}]})))]
fn keeps_the_selector(#[case] fixture: Fixture) {
    assert_eq!(selector(&fixture), Desired::Keep);
}

/// The HPA stops without a selector; one that is about to be written is enough.
#[rstest]
#[case::about_to_be_written(Fixture::model("llama").with("/status/labelSelector", &json!("")), "apply")]
#[case::none(Fixture::model("llama").with("/status/labelSelector", &json!("")).with("/spec/template", &json!({"roles": []})), "keep")]
fn applies_a_scaled_object_only_with_a_selector(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(action(&planned(&fixture).scaled_object), expected);
}

#[rstest]
#[case::never_opted_in(json!([]), "keep")]
#[case::foreign_conditions(json!([{"type": "Available", "status": "True"}]), "keep")]
#[case::own_condition(json!([{"type": "Available"}, {"type": "AutoscalingReady", "status": "True"}]), "remove")]
fn removes_the_condition_on_opting_out(#[case] conditions: Value, #[case] expected: &str) {
    let plan = planned(&Fixture::opted_out().with("/status/conditions", &conditions));
    assert_eq!(action(&plan.condition), expected);
    assert!(plan.explanation.is_none() && plan.findings.is_empty());
}

/// Opting in must not cut a running fleet, unless the user sets the maximum; a fleet that is scaled already
/// may shrink.
#[rstest]
#[case::above_the_maximum(Fixture::model("llama").replicas(12), "keep")]
#[case::at_the_maximum(Fixture::model("llama").replicas(10), "apply")]
#[case::explicit_maximum(Fixture::model("llama").replicas(12).annotated("max-replicas", "10"), "apply")]
#[case::scaled_already(Fixture::healthy().replicas(12), "apply")]
fn does_not_cut_a_running_fleet_on_opting_in(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(action(&planned(&fixture).scaled_object), expected);
}

#[test]
fn a_profile_of_other_namespaces_keeps_what_it_made() {
    for (allowed, scaled_object) in
        [(json!(["team-*"]), "keep"), (json!(["models"]), "apply"), (json!(["mod*"]), "apply")]
    {
        let profile = json!({"allowedNamespaces": allowed, "replicas": {"min": 1, "max": 7}});
        let plan = planned(&Fixture::model("llama").profile(&profile).scaled_object(&[]));
        assert_eq!(action(&plan.scaled_object), scaled_object, "{allowed}");
    }
}

fn scaling(reference: &Value) -> Value {
    json!({"policyRef": {"name": "theirs"}, "homogeneousTarget": {"target": {"targetRef": reference}}})
}

fn hpa_of(api_version: &str, name: &str) -> Value {
    json!({"scaleTargetRef": {"apiVersion": api_version, "kind": "ModelServing", "name": name}})
}

/// Objects that scale the ModelServing, and objects that name it without effect.
#[rstest]
#[case::binding(
    |chat: Fixture| chat.competitor("AutoscalingPolicyBinding").competitor_with("AutoscalingPolicy", "models", &json!({})),
    &["AutoscalingPolicyBinding models/theirs"]
)]
#[case::binding_without_policy(|chat: Fixture| chat.competitor("AutoscalingPolicyBinding"), &[])]
#[case::binding_to_a_policy_elsewhere(
    |chat: Fixture| chat.competitor("AutoscalingPolicyBinding").competitor_with("AutoscalingPolicy", "evil", &json!({})),
    &[]
)]
#[case::binding_of_another_namespace_without_policy(
    |chat: Fixture| chat.competitor_with("AutoscalingPolicyBinding", "evil", &scaling(&json!({"name": "chat", "namespace": "models"}))),
    &[]
)]
#[case::binding_that_names_no_policy(
    |chat: Fixture| chat
        .competitor_with("AutoscalingPolicyBinding", "models", &json!({"homogeneousTarget": {"target": {"targetRef": {"name": "chat"}}}}))
        .competitor_with("AutoscalingPolicy", "models", &json!({})),
    &[]
)]
#[case::policy_of_another_namespace(
    |chat: Fixture| chat.competitor_with("AutoscalingPolicy", "ops", &scaling(&json!({"name": "chat", "namespace": "models"}))),
    &["AutoscalingPolicy ops/theirs"]
)]
#[case::policy_for_its_own_namespace(
    |chat: Fixture| chat.competitor_with("AutoscalingPolicy", "evil", &scaling(&json!({"name": "chat"}))),
    &[]
)]
#[case::policy_for_another_api_group(
    |chat: Fixture| chat.competitor_with("AutoscalingPolicy", "models", &scaling(&json!({"apiVersion": "apps/v1", "kind": "ModelServing", "name": "chat"}))),
    &[]
)]
#[case::hpa_of_another_version(
    |chat: Fixture| chat.competitor_with("HorizontalPodAutoscaler", "models", &hpa_of("workload.serving.volcano.sh/v9", "chat")),
    &["HorizontalPodAutoscaler models/theirs"]
)]
#[case::hpa_of_another_group(
    |chat: Fixture| chat.competitor_with("HorizontalPodAutoscaler", "models", &hpa_of("apps/v1", "chat")),
    &[]
)]
#[case::hpa_of_a_missing_target(
    |chat: Fixture| chat.competitor_with("HorizontalPodAutoscaler", "models", &hpa_of("workload.serving.volcano.sh/v1alpha1", "chta")),
    &[]
)]
#[case::hpa_of_another_namespace(
    |chat: Fixture| chat.competitor_with("HorizontalPodAutoscaler", "evil", &hpa_of("workload.serving.volcano.sh/v1alpha1", "chat")),
    &[]
)]
fn yields_only_to_autoscalers_that_act(#[case] add: fn(Fixture) -> Fixture, #[case] expected: &[&str]) {
    let observed = add(Fixture::model("llama")).observed();
    let found: Vec<String> = observed
        .competing_autoscalers
        .iter()
        .map(|competing| format!("{} {}", competing.kind, competing.name))
        .collect();
    assert_eq!(found, expected);
}
