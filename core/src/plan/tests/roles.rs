//! Roles: their objects, the numbers that are carried over, and what is refused.

use std::fmt::Write as _;

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, explained, planned, verdict};
use crate::{
    domain::{Capabilities, ChainLink, Reason, Status, VerdictReason},
    observed::{
        Readability, Readable,
        fixture::{Fixture, owned_by},
    },
    plan::{Desired, LinkState, Plan, RoleChange, RoleStatus, diagnose},
};

const READY: (&str, &str, &str, &str) = ("Ready", "True", "ScaledObjectReady", "ready");
const ACTIVE: (&str, &str, &str, &str) = ("Active", "True", "ScalerActive", "");
const SCALING: (&str, &str, &str, &str) = ("ScalingActive", "True", "ValidMetricFound", "");

fn scaled(prefill: i32, decode: i32) -> Fixture {
    let keda = [READY, ACTIVE];
    let fixture = Fixture::with_roles().role("prefill", prefill).role_scaled(&keda, &[SCALING]);
    fixture.role("decode", decode).role_scaled(&keda, &[SCALING])
}

/// Role, and the actions for its scale target, its status and its ScaledObject.
fn actions(plan: &Plan) -> Vec<(&str, [&str; 3])> {
    let of = |role: &crate::plan::RolePlan| {
        [action(&role.object), action(&role.status), action(&role.scaled_object)]
    };
    plan.roles.roles.iter().map(|role| (role.name.as_str(), of(role))).collect()
}

fn changes(fixture: &Fixture) -> Vec<(usize, String, i32)> {
    let changes = planned(fixture).roles.changes;
    changes.into_iter().map(|RoleChange { index, name, replicas }| (index, name, replicas)).collect()
}

fn objects(fixture: &Fixture) -> Vec<Value> {
    planned(fixture).objects().unwrap()
}

#[test]
fn makes_a_scale_target_and_a_scaled_object_for_each_role() {
    let plan = planned(&Fixture::with_roles());
    assert_eq!(plan.findings, []);
    let made = ["apply"; 3];
    assert_eq!(actions(&plan), [("prefill", made), ("decode", made)]);
    assert_eq!(action(&plan.scaled_object), "keep", "no ScaledObject of the ServingGroups");
    insta::assert_snapshot!(serde_json::to_string_pretty(&objects(&Fixture::with_roles())).unwrap());
}

#[test]
fn scopes_signals_by_role_and_multiplies_targets_by_the_groups() {
    let fixture = Fixture::with_roles().replicas(3);
    let (_, explanation) = explained(&fixture);
    let triggers = explanation.resolved.unwrap().triggers.triggers;
    let read: Vec<_> =
        triggers.iter().map(|trigger| (trigger.name.as_str(), trigger.threshold.as_str())).collect();
    assert_eq!(read, [("prefill/ttft-p90", "1.5"), ("decode/kv-cache", "2.4")]);
    assert!(triggers[0].query.contains(r#"modelserving_volcano_sh_role="prefill""#), "{}", triggers[0].query);
    assert!(triggers[1].query.contains(r#"modelserving_volcano_sh_role="decode""#), "{}", triggers[1].query);
    assert!(triggers[1].query.contains("chat-([0-9]+-decode-[0-9]+)-.+"), "{}", triggers[1].query);
}

#[test]
fn scopes_signals_of_sglang_by_role() {
    let fixture = Fixture::with_roles().annotated("engine", "sglang");
    let triggers = explained(&fixture).1.resolved.unwrap().triggers.triggers;
    let query = &triggers[1].query;
    assert!(query.contains("sglang:token_usage") && query.contains(r#"role="decode""#), "{query}");
}

#[test]
fn the_pod_monitor_keeps_the_role_as_a_label() {
    let labels = |fixture: &Fixture| match planned(fixture).pod_monitor {
        Desired::Apply(monitor) => monitor.spec.pod_target_labels.clone(),
        other => panic!("{}", action(&other)),
    };
    let role = "modelserving.volcano.sh/role".to_owned();
    assert!(labels(&Fixture::with_roles()).contains(&role));
    let groups = Fixture::model("llama").annotated("signals", "kv-cache=0.8").server(
        "chat",
        "chat",
        &json!({"inferenceEngine": "vLLM"}),
    );
    assert!(!labels(&groups).contains(&role), "PodMonitors of other models stay as they are");
}

#[test]
fn carries_over_only_numbers_that_differ() {
    assert_eq!(changes(&scaled(2, 3)), []);
    assert_eq!(changes(&scaled(2, 7)), [(1, "decode".to_owned(), 7)]);
    assert_eq!(changes(&scaled(1, 2)), [(0, "prefill".to_owned(), 1), (1, "decode".to_owned(), 2)]);
    // A number that another client sets on the scale target leaves the bounds no more than the HPA could.
    assert_eq!(changes(&scaled(2, 99)), [(1, "decode".to_owned(), 16)]);
}

#[test]
fn carries_nothing_over_before_all_targets_exist() {
    assert_eq!(changes(&Fixture::with_roles().role("decode", 9)), []);
}

#[test]
fn finds_a_role_by_its_name() {
    let reordered = json!([{"name": "decode", "replicas": 3}, {"name": "prefill", "replicas": 2}]);
    let fixture = scaled(2, 7).with("/spec/template/roles", &reordered);
    assert_eq!(changes(&fixture), [(0, "decode".to_owned(), 7)]);
}

#[test]
fn keeps_the_ratio_by_adding_instances() {
    let fixture = scaled(2, 12).annotated(
        "roles",
        "prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 min=2 max=16; ratio: min=0.5 max=1",
    );
    assert_eq!(changes(&fixture), [(0, "prefill".to_owned(), 6), (1, "decode".to_owned(), 12)]);
}

fn status(fixture: &Fixture, role: &str) -> RoleStatus {
    let plan = planned(fixture);
    let role = plan.roles.roles.into_iter().find(|found| found.name == role).unwrap();
    match role.status {
        Desired::Apply(status) => *status,
        other => panic!("{}", action(&other)),
    }
}

#[test]
fn the_status_is_what_exists_and_not_what_is_asked_for() {
    let fixture = scaled(2, 7).replicas(2).role_pods("chat-1", &[("prefill", 2), ("decode", 1)]);
    let status = status(&fixture, "decode");
    assert_eq!((status.replicas, status.applied.0), (1, Status::Unknown));
    assert_eq!(
        status.selector,
        "modelserving.volcano.sh/entry=true,modelserving.volcano.sh/name=chat,modelserving.volcano.sh/role=decode"
    );
}

/// A number of 0 would make the HPA compute with no instance.
#[test]
fn instances_that_are_not_counted_stay_as_they_were() {
    let written = json!({"replicas": 2, "selector": "a=b"});
    let uncounted = || scaled(2, 3).role_status("prefill", &written).without_permission_for_pods();
    let (state, reason, _) = status(&uncounted(), "prefill").applied;
    assert_eq!((state, reason), (Status::False, "MissingPermission"));
    assert_eq!(status(&uncounted(), "prefill").replicas, 2);
    // The other one has no status yet.
    assert_eq!(actions(&planned(&uncounted()))[1].1, ["keep"; 3]);
}

/// 41 ServingGroups of 8 prefill and 16 decode instances at most.
#[test]
fn accepts_a_thousand_instances() {
    let fixture = Fixture::with_roles().replicas(41);
    assert_eq!(planned(&fixture).findings, []);
}

#[test]
fn a_rejected_number_is_in_the_status() {
    let (state, reason, message) = status(&scaled(2, 7).rejected("the webhook says no"), "decode").applied;
    assert_eq!((state, reason, message.as_str()), (Status::False, "Rejected", "the webhook says no"));
}

#[test]
fn writes_nothing_where_everything_is_as_planned() {
    let fixture = scaled(2, 3);
    let both = ["prefill", "decode"].map(|role| (role, status(&fixture, role)));
    let written = |status: &RoleStatus| {
        let (state, reason, message) = &status.applied;
        let condition = json!({"type": "Applied", "status": state.as_str(), "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        json!({"replicas": status.replicas, "selector": status.selector, "conditions": [condition]})
    };
    let fixture =
        both.iter().fold(fixture, |fixture, (role, status)| fixture.role_status(role, &written(status)));
    let plan = planned(&fixture);
    let statuses: Vec<_> = actions(&plan).iter().map(|(_, actions)| actions[1]).collect();
    assert_eq!(statuses, ["keep", "keep"]);
}

#[rstest]
#[case::healthy(scaled(2, 3), VerdictReason::Scaling)]
#[case::paused(scaled(2, 3).annotated("paused", "true"), VerdictReason::Paused)]
#[case::one_not_reported(Fixture::with_roles().role("prefill", 2).role_scaled(&[READY], &[SCALING]), VerdictReason::Pending)]
#[case::one_hpa_stopped(
    Fixture::with_roles()
        .role("prefill", 2).role_scaled(&[READY], &[SCALING])
        .role("decode", 3).role_scaled(&[READY], &[("ScalingActive", "False", "FailedGetExternalMetric", "no")]),
    VerdictReason::Problem(Reason::HpaNotScaling)
)]
fn the_condition_follows_all_roles(#[case] fixture: Fixture, #[case] expected: VerdictReason) {
    let verdict = verdict(&fixture);
    assert_eq!(verdict.reason, expected, "{}", verdict.message);
}

#[test]
fn the_condition_names_roles_and_their_bounds() {
    assert_eq!(
        verdict(&scaled(2, 3)).message,
        "scales on the roles of each ServingGroup: prefill on ttft-p90, from 1 to 8; decode on kv-cache, from 2 to 16"
    );
}

#[test]
fn a_problem_of_one_role_names_it() {
    let fixture = Fixture::with_roles()
        .role("prefill", 2)
        .role_scaled(&[READY], &[SCALING])
        .role("decode", 3)
        .role_scaled(&[("Ready", "False", "ScaledObjectCheckFailed", "no")], &[SCALING]);
    let (plan, explanation) = explained(&fixture);
    assert!(
        explanation.verdict.message.starts_with("role decode: KEDA reports"),
        "{:?}",
        explanation.verdict
    );
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let states: Vec<_> = links
        .iter()
        .filter(|link| link.link == ChainLink::ScaledObject)
        .map(|link| (link.state, link.detail.split(':').next().unwrap()))
        .collect();
    assert_eq!(states, [(LinkState::Holds, "role prefill"), (LinkState::Broken, "role decode")]);
}

#[test]
fn warns_of_another_writer() {
    let message = verdict(&scaled(2, 3).roles_writer("argocd")).message;
    assert!(message.contains("argocd set spec.template.roles"), "{message}");
}

#[test]
fn warns_of_a_pause_that_keda_reports_for_a_role_after_its_end() {
    const PAUSED: (&str, &str, &str, &str) = ("Paused", "True", "ScaledObjectPaused", "");
    let prefill = Fixture::with_roles().role("prefill", 2).role_scaled(&[READY, ACTIVE, PAUSED], &[SCALING]);
    let fixture = prefill.role("decode", 3).role_scaled(&[READY, ACTIVE], &[SCALING]).pause_is_outdated();
    let message = verdict(&fixture).message;
    assert!(message.contains("run: kubectl annotate scaledobject chat-prefill-"), "{message}");
    assert!(!message.contains("scaledobject chat-decode-"), "{message}");
}

/// Two HPAs that select the same pods stop each other, so one has to be gone before the other is made.
#[test]
fn roles_wait_for_the_end_of_the_groups_hpa_and_back() {
    let groups = Fixture::with_roles().scaled_object(&[READY]).hpa(&[SCALING]);
    let plan = planned(&groups);
    assert_eq!((action(&plan.scaled_object), actions(&plan)[0].1[2]), ("remove", "keep"));
    assert_eq!(verdict(&groups).reason, VerdictReason::Pending);
    assert!(
        verdict(&groups).message.contains("wait for the end of the ScaledObject"),
        "{}",
        verdict(&groups).message
    );
    let hpa_alone = Fixture::with_roles().hpa(&[SCALING]);
    assert_eq!(actions(&planned(&hpa_alone))[0].1, ["apply", "apply", "keep"]);

    let back =
        |fixture: Fixture| fixture.with("/metadata/annotations", &json!({"kthena.io/model-name": "llama"}));
    let plan = planned(&back(scaled(2, 3)));
    assert_eq!(action(&plan.scaled_object), "keep");
    assert_eq!(actions(&plan)[0].1, ["keep", "keep", "remove"], "the target stays until the HPA is gone");
    let without_hpa = back(Fixture::with_roles().role("prefill", 2));
    let plan = planned(&without_hpa);
    assert_eq!((action(&plan.scaled_object), actions(&plan)[0].1[0]), ("keep", "remove"));
    assert_eq!(action(&planned(&back(Fixture::with_roles())).scaled_object), "apply");
}

#[test]
fn opting_out_removes_the_objects_of_roles() {
    let plan = planned(&scaled(2, 3).with("/metadata/annotations", &json!({})));
    assert_eq!(actions(&plan)[1], ("decode", ["keep", "keep", "remove"]));
    assert_eq!(plan.roles.changes, []);
}

#[test]
fn a_role_that_is_not_scaled_any_more_loses_its_objects() {
    let plan = planned(&scaled(2, 3).annotated("roles", "prefill: ttft-p90=2s max=8"));
    assert_eq!(actions(&plan)[1], ("decode", ["keep", "keep", "remove"]));
}

#[test]
fn objects_go_and_numbers_stay_where_the_operator_may_not_scale_roles() {
    let fixture = scaled(5, 9).without_permission_for_roles();
    let plan = planned(&fixture);
    assert_eq!(actions(&plan)[0], ("prefill", ["keep", "keep", "remove"]));
    assert_eq!((plan.roles.changes, plan.findings[0].reason), (Vec::new(), Reason::InvalidConfiguration));
}

#[test]
fn invalid_settings_keep_everything_and_carry_nothing_over() {
    let plan = planned(&scaled(5, 9).annotated("roles", "prefill"));
    assert_eq!(actions(&plan)[0].1, ["keep", "apply", "keep"], "the HPA still needs what exists");
    assert_eq!(plan.roles.changes, []);
}

#[test]
fn a_pause_is_carried_out_while_other_settings_are_invalid() {
    let plan = planned(&scaled(2, 3).annotated("paused", "true").annotated("engine-port", "0"));
    assert!(plan.roles.roles.iter().all(|role| role.pause.is_some()));
}

#[test]
fn another_owner_keeps_its_object() {
    let foreign = json!({"namespace": "models", "uid": "theirs"});
    let target = json!({"modelServing": "chat", "role": "prefill", "replicas": 2});
    let fixture = Fixture::with_roles().role_with("prefill", &foreign, &target);
    let plan = planned(&fixture);
    assert_eq!((actions(&plan)[0].1[0], plan.findings[0].reason), ("keep", Reason::NameConflict));
    let gone = planned(&fixture.with("/metadata/annotations", &json!({})));
    assert_eq!(actions(&gone)[0].1[0], "keep");
    let orphaned = Fixture::with_roles().role_with("prefill", &owned_by("earlier"), &target);
    assert_eq!(planned(&orphaned).findings[0].reason, Reason::OwnerDeleted);
}

#[test]
fn a_profile_has_roles_scaled() {
    let roles = json!([
        {"name": "prefill", "min": 1, "max": 8, "signals": [{"name": "ttft-p90", "target": "2s"}]},
        {"name": "decode", "max": 16, "signals": [{"name": "kv-cache", "target": "0.8"}]},
    ]);
    let without =
        Fixture::with_roles().with("/metadata/annotations", &json!({"kthena.io/model-name": "llama"}));
    let fixture = without.profile(&json!({"roles": roles, "roleRatio": {"max": "1"}}));
    assert_eq!(actions(&planned(&fixture)), [("prefill", ["apply"; 3]), ("decode", ["apply"; 3])]);
    let both = fixture.annotated("min-replicas", "2");
    assert_eq!(planned(&both).findings[0].reason, Reason::InvalidConfiguration);
    assert!(planned(&both).findings[0].message.contains("spec.roles of the AutoscalingProfile"));
}

fn gang(min: i32) -> Fixture {
    Fixture::with_roles().with("/spec/template/gangPolicy", &json!({"minRoleReplicas": {"decode": min}}))
}

fn prefill(fields: &Value) -> Fixture {
    let mut role = json!({"name": "prefill", "replicas": 2});
    role.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Fixture::with_roles().with("/spec/template/roles", &json!([role, {"name": "decode", "replicas": 3}]))
}

fn disaggregated() -> Fixture {
    let spec = json!({"disaggregatedTarget": {"targetRef": {"name": "chat"}, "roles": {"decode": {}}}});
    Fixture::with_roles().competitor_with("AutoscalingPolicy", "models", &spec)
}

/// The product of the numbers alone fits into 64 bits, and the sum over the roles does not.
fn countless() -> Fixture {
    let role = |name: &str| json!({"name": name, "replicas": i32::MAX});
    let roles = ["prefill", "decode", "third", "fourth"].map(role);
    Fixture::with_roles().with("/spec/template/roles", &json!(roles)).replicas(i32::MAX)
}

fn partition(partition: &Value) -> Fixture {
    let configuration = json!({"rollingUpdateConfiguration": {"partition": partition}});
    Fixture::with_roles().with("/spec/rolloutStrategy", &configuration)
}

fn without_api() -> Fixture {
    Fixture::with_roles().capabilities(Capabilities { roles: false, ..Capabilities::NEWEST })
}

/// Refusals by reason; the messages are in the snapshot.
#[test]
fn refuses_roles_that_cannot_be_scaled() {
    use Reason::{ConflictingAutoscaler, InvalidConfiguration, MissingPermission, ScaleSubresourceMissing};
    let groups = |name: &str, value: &str| Fixture::with_roles().annotated(name, value);
    let unreadable = Readability { roles: Readable::Forbidden, ..Readability::default() };
    let cases = vec![
        ("not enabled", InvalidConfiguration, Fixture::with_roles().without_permission_for_roles()),
        ("no CRD", ScaleSubresourceMissing, without_api()),
        ("unreadable", MissingPermission, Fixture::with_roles().readable(unreadable)),
        ("unreadable pods", MissingPermission, Fixture::with_roles().without_permission_for_pods()),
        ("too many instances", InvalidConfiguration, Fixture::with_roles().replicas(42)),
        ("most instances of any number", InvalidConfiguration, countless()),
        ("gang", InvalidConfiguration, gang(3)),
        ("partition", InvalidConfiguration, partition(&json!(1))),
        ("partition in percent", InvalidConfiguration, partition(&json!("10%"))),
        ("partition of a role", InvalidConfiguration, prefill(&json!({"partition": 1}))),
        ("maxUnavailable above the minimum", InvalidConfiguration, prefill(&json!({"maxUnavailable": 2}))),
        ("maxUnavailable of 0", InvalidConfiguration, prefill(&json!({"maxUnavailable": "50%"}))),
        (
            "ModelBooster",
            InvalidConfiguration,
            Fixture::with_roles().booster(&json!({"kthena.io/model-name": "llama"})),
        ),
        ("disaggregatedTarget", ConflictingAutoscaler, disaggregated()),
        (
            "another autoscaler of the groups",
            ConflictingAutoscaler,
            Fixture::with_roles().competitor("HorizontalPodAutoscaler"),
        ),
        ("minimum of groups", InvalidConfiguration, groups("min-replicas", "1")),
        ("signals of groups", InvalidConfiguration, groups("signals", "active-requests=1")),
        ("dry run", InvalidConfiguration, groups("shadow", "true")),
        (
            "renamed role",
            InvalidConfiguration,
            Fixture::with_roles()
                .with("/spec/template/roles", &json!([{"name": "prefill"}, {"name": "generate"}])),
        ),
    ];
    let mut messages = String::new();
    for (name, reason, fixture) in cases {
        let plan = planned(&fixture);
        assert_eq!(plan.findings.first().map(|finding| finding.reason), Some(reason), "{name}");
        assert_eq!(plan.roles.changes, [], "{name}");
        assert!(objects(&fixture).iter().all(|object| object["kind"] == "PodMonitor"), "{name}");
        writeln!(messages, "{name}: {}\n", verdict(&fixture).message).unwrap();
    }
    insta::assert_snapshot!(messages);
}

#[rstest]
#[case::no_gang(gang(2))]
#[case::no_partition(partition(&json!(0)))]
#[case::no_partition_in_percent(partition(&json!("0%")))]
#[case::one_unavailable(prefill(&json!({"maxUnavailable": 1})))]
#[case::all_unavailable(prefill(&json!({"maxUnavailable": "100%"})))]
#[case::policy_of_another(Fixture::with_roles().competitor_with("AutoscalingPolicy", "models", &json!({"disaggregatedTarget": {"targetRef": {"name": "other"}}})))]
fn accepts_roles_that_kthena_accepts(#[case] fixture: Fixture) {
    assert_eq!(planned(&fixture).findings, []);
}

/// Nothing of a model without scaled roles depends on what only roles need.
#[test]
fn other_models_are_as_before() {
    let healthy = Fixture::healthy();
    let without = healthy
        .clone()
        .without_permission_for_roles()
        .capabilities(Capabilities { roles: false, ..Capabilities::NEWEST })
        .readable(Readability { roles: Readable::Forbidden, ..Readability::default() });
    assert_eq!(objects(&healthy), objects(&without));
    assert_eq!(verdict(&healthy), verdict(&without));
    assert!(actions(&planned(&healthy)).is_empty());
}
