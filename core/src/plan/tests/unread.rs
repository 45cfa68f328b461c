//! Kinds that could not be read: what stays as it is, what is still applied, and what is reported.

use rstest::rstest;
use serde_json::json;

use super::{action, explained, planned, verdict};
use crate::{
    domain::{Capabilities, Status},
    observed::{
        Readability,
        Readable::{self, Forbidden, NotYet},
        fixture::Fixture,
    },
    plan::{LinkState, diagnose},
};

type Set = fn(&mut Readability, Readable);

const PROFILES: Set = |kinds, readable| kinds.profiles = readable;
const SCALED_OBJECTS: Set = |kinds, readable| kinds.scaled_objects = readable;
const ROUTES: Set = |kinds, readable| kinds.routes = readable;
const SERVERS: Set = |kinds, readable| kinds.servers = readable;
const HPAS: Set = |kinds, readable| kinds.hpas = readable;
const POLICIES: Set = |kinds, readable| kinds.policies = readable;
const BINDINGS: Set = |kinds, readable| kinds.bindings = readable;
const POD_MONITORS: Set = |kinds, readable| kinds.pod_monitors = readable;

fn unread(fixture: Fixture, set: Set, readable: Readable) -> Fixture {
    let mut kinds = Readability::default();
    set(&mut kinds, readable);
    fixture.readable(kinds)
}

/// Neither creates nor changes anything while a kind that decides the plan is unknown, and names its rule.
#[rstest]
#[case::profiles(PROFILES, "autoscalingprofiles", "autoscaling.kthena.io")]
#[case::scaled_objects(SCALED_OBJECTS, "scaledobjects", "keda.sh")]
#[case::routes(ROUTES, "modelroutes", "networking.serving.volcano.sh")]
#[case::servers(SERVERS, "modelservers", "networking.serving.volcano.sh")]
fn an_unread_input_holds_the_plan_back(#[case] set: Set, #[case] plural: &str, #[case] group: &str) {
    for fixture in [Fixture::healthy(), Fixture::model("llama").route("llama", &["chat"])] {
        let found = planned(&unread(fixture.clone(), set, Forbidden));
        assert_eq!((action(&found.scaled_object), action(&found.pod_monitor)), ("keep", "keep"));
        let forbidden = verdict(&unread(fixture.clone(), set, Forbidden));
        assert_eq!((forbidden.status, forbidden.reason.as_str()), (Status::Unknown, "MissingPermission"));
        let rule = format!("grant list and watch on {plural} in the API group {group}");
        assert!(forbidden.message.contains(&rule), "{}", forbidden.message);

        let found = planned(&unread(fixture.clone(), set, NotYet));
        assert_eq!(action(&found.scaled_object), "keep");
        let awaited = verdict(&unread(fixture, set, NotYet));
        assert_eq!((awaited.status, awaited.reason.as_str()), (Status::Unknown, "Pending"));
        assert!(awaited.message.starts_with(plural), "{}", awaited.message);
    }
}

/// Another autoscaler may exist, but an owned ScaledObject was applied when it was known that none did.
#[rstest]
#[case::hpas(HPAS)]
#[case::policies(POLICIES)]
#[case::bindings(BINDINGS)]
fn an_unread_conflict_holds_back_creation_alone(
    #[case] set: Set,
    #[values((Forbidden, "MissingPermission"), (NotYet, "Pending"))] (readable, reason): (Readable, &str),
) {
    let created = unread(Fixture::model("llama"), set, readable);
    assert_eq!(action(&planned(&created).scaled_object), "keep");
    assert_eq!(verdict(&created).reason.as_str(), reason);

    let updated = unread(Fixture::healthy().annotated("max-replicas", "4"), set, readable);
    assert_eq!(action(&planned(&updated).scaled_object), "apply");
    let found = verdict(&updated);
    assert_eq!((found.status, found.reason.as_str()), (Status::True, "Idle"));
    assert!(
        found.message.contains("a conflict with another autoscaler is not detected"),
        "{}",
        found.message
    );
}

/// Without permission to read HPAs the model is not taken as one that waits for its HPA.
#[test]
fn an_unread_hpa_does_not_leave_a_model_pending() {
    let fixture = unread(Fixture::healthy().without_hpa(), HPAS, Forbidden);
    assert_eq!(verdict(&fixture).reason.as_str(), "Idle");
}

#[rstest]
#[case::not_needed(Fixture::healthy(), "apply", "keep", "")]
#[case::needed(
    Fixture::healthy().annotated("signals", "engine-queue=5").with("/status/availableReplicas", &json!(0)),
    "apply",
    "keep",
    "the PodMonitor of this model stays as it is"
)]
fn unread_pod_monitors_stay_as_they_are(
    #[case] fixture: Fixture,
    #[case] scaled_object: &str,
    #[case] pod_monitor: &str,
    #[case] warning: &str,
) {
    let plan = planned(&unread(fixture, POD_MONITORS, Forbidden));
    assert_eq!((action(&plan.scaled_object), action(&plan.pod_monitor)), (scaled_object, pod_monitor));
    let warnings = plan.warnings.concat();
    assert_eq!((warnings.contains(warning), warnings.is_empty()), (true, warning.is_empty()));
}

/// A ModelServer changes a plan only where a route carries a name of the model, or where it sets the engine.
#[rstest]
#[case::no_routes(Fixture::model("llama").without_routes(), "apply")]
#[case::routed(Fixture::model("llama").route("llama", &["chat"]), "keep")]
#[case::engine_from_annotations(
    Fixture::model("llama").without_routes().annotated("signals", "engine-queue=5").annotated("engine", "vllm").annotated("engine-port", "9000"),
    "apply"
)]
#[case::engine_from_the_server(
    Fixture::model("llama").without_routes().annotated("signals", "engine-queue=5").annotated("engine", "vllm"),
    "keep"
)]
#[case::routes_of_others(Fixture::model("llama").route("gemma", &["other"]), "apply")]
fn unread_servers_hold_back_only_plans_that_depend_on_them(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(action(&planned(&unread(fixture, SERVERS, Forbidden)).scaled_object), expected);
}

/// A certain problem is the reason, unknown ones are listed after it, and nothing false is said.
#[rstest]
#[case::annotation(Fixture::healthy().annotated("max-replicas", "x"), "InvalidConfiguration")]
#[case::other_autoscaler(Fixture::healthy().competitor("HorizontalPodAutoscaler"), "ConflictingAutoscaler")]
#[case::named_profile(Fixture::healthy().annotated("profile", "gold"), "MissingPermission")]
#[case::shared_name(Fixture::model("llama").other("canary", "llama"), "MissingPermission")]
#[case::more_replicas_than_the_maximum(Fixture::model("llama").replicas(20), "MissingPermission")]
fn a_certain_problem_comes_first(#[case] fixture: Fixture, #[case] reason: &str) {
    let kinds = Readability {
        profiles: Forbidden,
        scaled_objects: Forbidden,
        routes: Forbidden,
        ..Readability::default()
    };
    let found = verdict(&fixture.readable(kinds));
    assert_eq!(found.reason.as_str(), reason, "{}", found.message);
    assert!(!found.message.contains("SharedModelName") && !found.message.contains("does not exist"));
}

/// KEDA may be installed while discovery of its group has not succeeded.
#[test]
fn an_undiscovered_keda_is_not_reported_as_missing() {
    let capabilities = Capabilities { keda: None, ..Capabilities::NEWEST };
    let fixture = unread(Fixture::healthy().capabilities(capabilities), SCALED_OBJECTS, NotYet);
    let found = verdict(&fixture);
    assert_eq!(found.reason.as_str(), "Pending", "{}", found.message);
    assert_eq!(action(&planned(&fixture).scaled_object), "keep");
}

/// The condition of an opted-out model goes with its ScaledObject, which may exist.
#[test]
fn opting_out_waits_until_the_scaled_object_can_be_read() {
    let written = json!([{"type": "AutoscalingReady", "status": "True", "reason": "Idle", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let opted_out = Fixture::opted_out().with("/status/conditions", &written);
    assert_eq!(action(&planned(&opted_out).condition), "remove");
    let plan = planned(&unread(opted_out, SCALED_OBJECTS, Forbidden));
    assert_eq!((action(&plan.condition), action(&plan.scaled_object)), ("keep", "keep"));
}

/// `explain` shows the links that do not depend on what could not be read.
#[test]
fn the_other_links_are_still_shown() {
    let fixture = unread(Fixture::healthy(), PROFILES, Forbidden);
    let (plan, explanation) = explained(&fixture);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let unknown: Vec<&str> =
        links.iter().filter(|link| link.state == LinkState::Unknown).map(|link| link.link.name()).collect();
    assert_eq!(unknown, ["profile", "demand", "cluster"]);
    assert_eq!(links.len(), 10);
}

/// Without the profile named `default` the built-in bounds of 1 to 10 apply, unless they would change the number
/// of ServingGroups at once.
#[rstest]
#[case::would_remove_groups(40, (0, 64), Fixture::healthy(), "ProfileNotFound", "built-in maximum of 10")]
#[case::would_wake(0, (0, 64), Fixture::healthy(), "ProfileNotFound", "built-in minimum of 1")]
#[case::changes_nothing_at_once(5, (0, 64), Fixture::healthy(), "Idle", "from 1 to 10")]
#[case::explicit_maximum(40, (0, 64), Fixture::healthy().annotated("max-replicas", "20"), "Idle", "from 1 to 20")]
#[case::explicit_minimum(0, (0, 64), Fixture::healthy().annotated("min-replicas", "1"), "Idle", "from 1 to 10")]
#[case::stays_at_zero(0, (0, 64), Fixture::healthy().annotated("min-replicas", "0"), "Idle", "from 0 to 10")]
#[case::already_applied(40, (1, 10), Fixture::healthy(), "Idle", "from 1 to 10")]
#[case::scaled_by_hand_to_zero(0, (1, 10), Fixture::healthy(), "Idle", "from 1 to 10")]
#[case::edited_profile(40, (0, 64), Fixture::healthy().profile(&json!({})), "Idle", "from 1 to 10")]
fn the_deletion_of_the_default_profile_changes_no_running_fleet(
    #[case] replicas: i32,
    #[case] (min, max): (i32, i32),
    #[case] fixture: Fixture,
    #[case] reason: &str,
    #[case] text: &str,
) {
    let fixture = fixture.replicas(replicas).applied_bounds(min, max);
    let found = verdict(&fixture);
    assert_eq!(found.reason.as_str(), reason, "{}", found.message);
    assert!(found.message.contains(text), "{}", found.message);
    let expected = if reason == "ProfileNotFound" { "keep" } else { "apply" };
    assert_eq!(action(&planned(&fixture).scaled_object), expected);
}
