//! The stand-in of a model at zero: its objects, its readiness gate, and each cause for which there is none.

use k8s_openapi::api::core::v1::{Pod, Service};
use rstest::rstest;
use serde_json::{Value, json};

use super::{action, planned};
use crate::{
    api::stand_in::TAKES_REQUESTS,
    domain::ChainLink,
    observed::{
        ObservedStandIn, Readability, Readable, ShadowState,
        fixture::{Fixture, applied_stand_in, applied_stand_in_service, edited},
    },
    plan::{Desired, GateChange, LinkState, StandInState, diagnose},
};

fn pod(fixture: &Fixture) -> Pod {
    match planned(fixture).stand_in.pod {
        Desired::Apply(pod) => *pod,
        other => panic!("no pod is created: {other:?}"),
    }
}

fn service(fixture: &Fixture) -> Service {
    match planned(fixture).stand_in.service {
        Desired::Apply(service) => *service,
        other => panic!("no Service is created: {other:?}"),
    }
}

/// Status of a pod whose gate has this status since the given time.
fn gate(status: &str) -> Value {
    json!({"phase": "Running", "conditions": [
        {"type": TAKES_REQUESTS, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "True"},
        {"type": "Ready", "status": status},
    ]})
}

/// The stand-in and its Service as they were created while the model slept.
fn existing(fixture: Fixture, status: &Value) -> Fixture {
    let (made, served) = (pod(&Fixture::asleep()), service(&Fixture::asleep()));
    fixture.stand_in(|stand_in| {
        stand_in.pod = Some(applied_stand_in(&made, status));
        stand_in.service = Some(applied_stand_in_service(&served));
    })
}

/// Actions on pod and Service, and the change of the gate.
fn actions(fixture: &Fixture) -> (&'static str, &'static str, Option<bool>) {
    let plan = planned(fixture).stand_in;
    (action(&plan.pod), action(&plan.service), plan.gate.map(|GateChange(is_open)| is_open))
}

#[test]
fn the_objects_of_a_sleeping_model() {
    let (pod, service) = (pod(&Fixture::asleep()), service(&Fixture::asleep()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&json!([pod, service])).unwrap());
}

#[rstest]
#[case::no_group(Fixture::asleep(), ("apply", "apply", Some(true)))]
#[case::waking(Fixture::holding().replicas(2).available(0), ("apply", "apply", Some(true)))]
#[case::serving(Fixture::holding(), ("keep", "keep", None))]
#[case::groups_are_deleted(Fixture::holding().replicas(0), ("apply", "apply", Some(true)))]
#[case::created(existing(Fixture::asleep(), &json!({})), ("apply", "apply", Some(true)))]
#[case::holds(existing(Fixture::asleep(), &gate("True")), ("apply", "apply", None))]
#[case::sleeps_again(existing(Fixture::asleep(), &gate("False")), ("apply", "apply", Some(true)))]
#[case::woken(existing(Fixture::holding(), &gate("True")), ("keep", "apply", Some(false)))]
#[case::out_of_the_way(existing(Fixture::holding(), &gate("False")), ("keep", "apply", None))]
#[case::over(existing(Fixture::holding(), &gate("False")).stand_in(is_over), ("remove", "apply", None))]
#[case::only_the_service_left(existing(Fixture::holding(), &gate("False")).stand_in(|found| found.pod = None), ("keep", "remove", None))]
#[case::needed_again(existing(Fixture::asleep(), &gate("False")).stand_in(is_over), ("apply", "apply", Some(true)))]
#[case::failed(existing(Fixture::asleep(), &json!({"phase": "Failed"})), ("remove", "apply", None))]
#[case::minimum_is_one(existing(Fixture::asleep(), &gate("True")).annotated("min-replicas", "1"), ("remove", "keep", None))]
#[case::new_image_asleep(existing(Fixture::asleep(), &gate("True")).stand_in(new_image), ("remove", "apply", None))]
#[case::new_image_waking(existing(Fixture::holding().available(0), &gate("True")).stand_in(new_image), ("keep", "apply", None))]
#[case::opted_out(existing(Fixture::opted_out().replicas(0), &gate("True")), ("remove", "keep", None))]
#[case::opted_out_long_ago(existing(Fixture::opted_out(), &gate("True")).stand_in(|found| found.pod = None), ("keep", "remove", None))]
#[case::not_asked(existing(Fixture::asleep().profile(&json!({})), &gate("True")), ("remove", "keep", None))]
fn comes_and_goes_with_the_groups(#[case] fixture: Fixture, #[case] expected: (&str, &str, Option<bool>)) {
    assert_eq!(actions(&fixture), expected);
}

fn is_over(found: &mut ObservedStandIn) {
    found.is_over = true;
}

fn new_image(found: &mut ObservedStandIn) {
    found.image = Some("registry/kthena-keda:2".to_owned());
}

/// A model without a ServingGroup whose roles are scaled, with a profile that asks for a stand-in.
fn scaling_roles() -> Fixture {
    let profile = json!({"replicas": {"min": 0}, "scaleToZero": {"hold": {}}});
    Fixture::with_roles().profile(&profile).replicas(0).available(0).stand_in(new_image)
}

/// The pod goes, and the condition says why unless it does so already.
#[rstest]
#[case::not_enabled("not enabled", Fixture::asleep().stand_in(|found| found.image = None))]
#[case::no_server("no ModelServer", Fixture::asleep().without_servers().route("other", &["none"]))]
#[case::no_port("no port", Fixture::asleep().only_server(&by_name(), &json!({})))]
#[case::disaggregated("pdGroup", Fixture::asleep().only_server(&by_name(), &json!({"pdGroup": {}, "workloadPort": {"port": 8000}})))]
#[case::tls("TLS", Fixture::asleep().only_server(&by_name(), &json!({"workloadPort": {"port": 8000, "protocol": "https"}})))]
#[case::group_label("group label", Fixture::asleep().only_server(&json!({"modelserving.volcano.sh/group-name": "chat-0"}), &port()))]
#[case::role_label("role label", Fixture::asleep().only_server(&json!({"modelserving.volcano.sh/role": "engine"}), &port()))]
#[case::several_roles("several roles", two_roles().only_server(&json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": "true"}), &port()))]
#[case::labels_differ("different roles", two_roles().only_server(&json!({"tier": "a"}), &port()).server_with("second", &json!({"tier": "b"}), &port()))]
#[case::paused("paused", Fixture::asleep().annotated("paused", "true"))]
#[case::paused_scale_out("paused scale-out", Fixture::asleep().annotated("paused", "scale-out"))]
#[case::shadow("shadow", Fixture::asleep().in_shadow(ShadowState::Starting))]
#[case::roles("roles", scaling_roles())]
#[case::conflict("conflict", Fixture::asleep().competitor("HorizontalPodAutoscaler"))]
#[case::refused("refused", Fixture::asleep().other("second", "llama").server("chat", "second", &port()))]
fn refusals(#[case] name: &str, #[case] fixture: Fixture) {
    let fixture = existing(fixture, &gate("True"));
    assert_eq!(actions(&fixture), ("remove", "keep", None), "{name}");
    let plan = planned(&fixture);
    let StandInState::Refused(refusal) = &plan.stand_in.state else { panic!("{:?}", plan.stand_in.state) };
    let warned = plan.warnings.iter().find(|warning| warning.starts_with("requests at zero"));
    insta::assert_snapshot!(
        format!("refusal_{}", name.replace(' ', "_")),
        format!("{}\ncondition: {}", refusal.message(), warned.map_or("-", String::as_str))
    );
}

fn by_name() -> Value {
    json!({"modelserving.volcano.sh/name": "chat"})
}

fn port() -> Value {
    json!({"inferenceEngine": "vLLM", "workloadPort": {"port": 8000}})
}

fn two_roles() -> Fixture {
    let role = |name: &str, tier: &str| json!({"name": name, "entryTemplate": {"metadata": {"labels": {"tier": tier}}}});
    Fixture::asleep().with("/spec/template/roles", &json!([role("one", "a"), role("two", "b")]))
}

/// The gate depends on the model alone.
#[test]
fn the_gate_follows_the_model_while_model_servers_cannot_be_read() {
    let unread = Readability { servers: Readable::NotYet, ..Readability::default() };
    let closed = existing(Fixture::asleep(), &gate("False"));
    assert_eq!(actions(&closed.readable(unread)), ("keep", "keep", Some(true)));
    let unread = Readability { stand_ins: Readable::Forbidden, ..Readability::default() };
    let closed = existing(Fixture::asleep(), &gate("False"));
    assert_eq!(actions(&closed.readable(unread)), ("keep", "keep", None));
}

#[rstest]
#[case::usual("100", "128Mi")]
#[case::most("10000", "409Mi")]
fn memory_grows_with_the_requests(#[case] requests: &str, #[case] expected: &str) {
    let hold = json!({"replicas": {"min": 0}, "scaleToZero": {"hold": {"maxRequests": requests.parse::<i32>().unwrap()}}});
    let pod = pod(&Fixture::asleep().profile(&hold));
    let container = &pod.spec.unwrap().containers[0];
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!(limits["memory"].0, expected);
}

/// The pod and the requests that it holds stay while a kind cannot be read.
#[rstest]
#[case::pods(Readability { stand_ins: Readable::Forbidden, ..Readability::default() })]
#[case::services(Readability { stand_in_services: Readable::NotYet, ..Readability::default() })]
#[case::profiles(Readability { profiles: Readable::NotYet, ..Readability::default() })]
#[case::servers(Readability { servers: Readable::NotYet, ..Readability::default() })]
fn unread_kinds_keep_it(#[case] readable: Readability) {
    let fixture = existing(Fixture::asleep(), &gate("True")).readable(readable);
    let actions = actions(&fixture);
    assert!(actions == ("keep", "keep", None) || actions == ("apply", "apply", None), "{actions:?}");
    let absent = Fixture::asleep().readable(readable);
    if readable.stand_ins != Readable::Yes {
        let plan = planned(&absent);
        assert_eq!(action(&plan.stand_in.pod), "keep");
        let warning = plan.warnings.iter().find(|warning| warning.contains("stand-in pod"));
        assert_eq!(
            warning.map(String::as_str),
            Some(
                "no permission to list pods, so the stand-in pod that holds requests at zero stays as it is; grant list and watch on pods in the API group core"
            )
        );
    }
}

#[test]
fn an_object_of_another_owner_stays() {
    let foreign = |wanted: Value| {
        edited(
            wanted,
            "/metadata/ownerReferences",
            &json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n", "controller": true}]),
            None,
        )
    };
    let other =
        serde_json::from_value(foreign(serde_json::to_value(pod(&Fixture::asleep())).unwrap())).unwrap();
    let fixture =
        Fixture::asleep().stand_in(|found| found.pod = Some(applied_stand_in(&other, &gate("False"))));
    assert_eq!(actions(&fixture), ("keep", "keep", None));
    let warnings = planned(&fixture).warnings;
    let expected = "requests at zero are not held: Pod chat-stand-in exists and has another owner, so the operator does not change it; rename or delete it";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

/// A rejected write is tried again.
#[test]
fn a_rejection_is_reported() {
    let fixture = Fixture::asleep()
        .stand_in(|found| found.rejection = Some("Pod chat-stand-in was rejected: no".to_owned()));
    assert_eq!(actions(&fixture), ("apply", "apply", Some(true)));
    let warnings = planned(&fixture).warnings;
    let expected = "requests at zero are not held: Pod chat-stand-in was rejected: no; correct the cause, and the operator tries again";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

#[rstest]
#[case::off(Fixture::healthy(), None)]
#[case::making(Fixture::asleep(), Some((LinkState::Unknown, "there is no pod chat-stand-in yet")))]
#[case::starting(existing(Fixture::asleep(), &json!({})), Some((LinkState::Unknown, "the pod chat-stand-in does not run yet")))]
#[case::holding(existing(Fixture::asleep(), &gate("True")), Some((LinkState::Holds, "the pod chat-stand-in holds requests until a ServingGroup is ready")))]
#[case::idle(Fixture::holding(), Some((LinkState::Holds, "ServingGroups serve the requests")))]
#[case::going(existing(Fixture::holding(), &gate("False")), Some((LinkState::Holds, "ServingGroups serve the requests, and the pod chat-stand-in goes soon")))]
#[case::refused(
    Fixture::asleep().stand_in(|found| found.image = None),
    Some((LinkState::Affected, "requests at zero are not held: this operator makes no stand-in pods, which scaleToZero.hold of the AutoscalingProfile needs; set the chart value standIns.enabled"))
)]
fn explain_has_a_link(#[case] fixture: Fixture, #[case] expected: Option<(LinkState, &str)>) {
    let (observed, plan) = (fixture.observed(), planned(&fixture));
    let links = diagnose(&observed, &plan, plan.explanation.as_ref().unwrap());
    let link = links.iter().find(|link| link.link == ChainLink::StandIn);
    assert_eq!(link.map(|link| (link.state, link.detail.as_str())), expected);
}

#[test]
fn finds_the_engines_by_labels_that_it_lacks() {
    let roles = two_roles().only_server(&json!({"tier": "b"}), &port());
    let entry = Fixture::asleep().only_server(
        &json!({"modelserving.volcano.sh/name": "chat", "modelserving.volcano.sh/entry": "true"}),
        &port(),
    );
    for fixture in [Fixture::asleep(), roles, entry] {
        let (pod, service) = (pod(&fixture), service(&fixture));
        let labels = pod.metadata.labels.unwrap();
        let selector = service.spec.unwrap().selector.unwrap();
        assert!(selector.iter().any(|(key, value)| labels.get(key) != Some(value)), "{selector:?}");
        assert!(
            !labels.keys().any(|key| key.ends_with("/group-name") || key.ends_with("/role")),
            "{labels:?}"
        );
    }
}

/// Names of clients reach the pod as they are: the kubelet expands `$(NAME)` in arguments.
#[test]
fn takes_only_requests_for_its_model() {
    let fixture = Fixture::asleep()
        .only_server(&by_name(), &json!({"model": "served-$(HOME)", "workloadPort": {"port": 80}}));
    let spec = pod(&fixture).spec.unwrap();
    let args = spec.containers[0].args.clone().unwrap();
    let models: Vec<&str> = args.iter().filter_map(|arg| arg.strip_prefix("--model=")).collect();
    assert_eq!(models, ["llama", "served-$$(HOME)"]);
    let sysctls = spec.security_context.unwrap().sysctls.unwrap();
    assert_eq!(
        (sysctls[0].name.as_str(), sysctls[0].value.as_str()),
        ("net.ipv4.ip_unprivileged_port_start", "0")
    );
}
