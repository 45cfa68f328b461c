//! A pause is carried out also where nothing else is applied.

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, applied, planned, verdict};
use crate::{
    api::kthena::Unread,
    domain::{Capabilities, Keda, Pause},
    observed::{
        Readability, Readable,
        fixture::{self, Fixture, edited, owned_by},
        with_pause,
    },
    plan::PauseChange,
};

/// Opted in, with a ScaledObject that the operator applied with this pause.
fn paused_by_operator(pause: Option<Pause>) -> Fixture {
    let mut metadata = owned_by(Fixture::UID);
    if let Some(pause) = pause {
        let key = crate::api::keda::pause_annotation(pause);
        metadata["annotations"] = json!({key: "true"});
        metadata["managedFields"] = json!([{"manager": "kthena-keda", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": {format!("f:{key}"): {}}}}}]);
    }
    Fixture::model("llama").scaled_object_with(&metadata, &[])
}

fn change(fixture: &Fixture) -> Option<PauseChange> {
    let plan = planned(fixture);
    assert_eq!(action(&plan.scaled_object), "keep");
    plan.pause
}

#[rstest]
#[case::all("true", Pause::All)]
#[case::scale_in("scale-in", Pause::ScaleIn)]
#[case::scale_out("scale-out", Pause::ScaleOut)]
fn pauses_a_scaled_object_that_is_kept(#[case] value: &str, #[case] pause: Pause) {
    let refused = [
        ("invalid annotation", paused_by_operator(None).annotated("min-replicas", "perhaps")),
        ("unread ModelBooster", paused_by_operator(None).unread_booster(Unread::Forbidden)),
        ("missing profile", paused_by_operator(None).annotated("profile", "gold")),
        ("invalid profile", paused_by_operator(None).profile(&json!({"pollingInterval": "soon"}))),
        ("shared name", paused_by_operator(None).other("rival", "llama")),
        ("no Prometheus", paused_by_operator(None).without_prometheus()),
        (
            "cannot wake",
            paused_by_operator(None).annotated("min-replicas", "0").annotated("signals", "engine-queue=5"),
        ),
        (
            "no selector",
            paused_by_operator(None)
                .with("/status/labelSelector", &json!(""))
                .with("/spec/template", &json!({"roles": []})),
        ),
        (
            "unread profile",
            paused_by_operator(None)
                .readable(Readability { profiles: Readable::Forbidden, ..Readability::default() }),
        ),
    ];
    for (note, fixture) in refused {
        assert_eq!(change(&fixture.annotated("paused", value)), Some(PauseChange(Some(pause))), "{note}");
    }
}

#[rstest]
#[case::resumed(Some(Pause::All), None, Some(PauseChange(None)))]
#[case::turned_off(Some(Pause::ScaleIn), Some("false"), Some(PauseChange(None)))]
#[case::other_direction(Some(Pause::ScaleIn), Some("scale-out"), Some(PauseChange(Some(Pause::ScaleOut))))]
#[case::as_requested(Some(Pause::ScaleIn), Some("scale-in"), None)]
#[case::invalid_value(Some(Pause::All), Some("perhaps"), None)]
fn changes_a_pause_to_what_the_annotation_asks_for(
    #[case] before: Option<Pause>,
    #[case] value: Option<&str>,
    #[case] expected: Option<PauseChange>,
) {
    let fixture = paused_by_operator(before).annotated("profile", "gold");
    let fixture = value.into_iter().fold(fixture, |fixture, value| fixture.annotated("paused", value));
    assert_eq!(change(&fixture), expected);
}

fn keda_without_directional_pause() -> Capabilities {
    let Some(keda) = Capabilities::NEWEST.keda else { panic!() };
    Capabilities { keda: Some(Keda { directional_pause: false, ..keda }), ..Capabilities::NEWEST }
}

#[rstest]
#[case::not_supported(paused_by_operator(None).annotated("paused", "scale-in").capabilities(keda_without_directional_pause()))]
#[case::no_keda(paused_by_operator(None).annotated("paused", "true").capabilities(Capabilities { keda: None, ..Capabilities::NEWEST }))]
#[case::no_scaled_object(Fixture::model("llama").annotated("paused", "true").annotated("profile", "gold"))]
#[case::foreign(Fixture::model("llama").annotated("paused", "true").scaled_object_with(&owned_by("other"), &[]))]
#[case::unread_booster(paused_by_operator(Some(Pause::All)).unread_booster(Unread::Forbidden))]
#[case::dropped_annotations(paused_by_operator(Some(Pause::All)).annotated("signals", &"x".repeat(20_000)))]
fn leaves_other_scaled_objects_alone(#[case] fixture: Fixture) {
    assert_eq!(change(&fixture), None);
}

#[test]
fn pauses_a_valid_plan_by_the_whole_object() {
    let plan = planned(&paused_by_operator(None).annotated("paused", "true"));
    assert_eq!((action(&plan.scaled_object), plan.pause), ("apply", None));
}

#[test]
fn reports_the_pause_of_a_refused_plan() {
    let fixture = paused_by_operator(None).annotated("profile", "gold").annotated("paused", "scale-in");
    let message = verdict(&fixture).message;
    let expected = "until then the ScaledObject keeps its last valid settings, and is paused by autoscaling.kthena.io/paused: scale-in";
    assert!(message.contains(expected), "{message}");
}

/// A live object with a finalizer, a label, a pause and a field of other clients.
fn live() -> Value {
    let wanted = applied(&Fixture::model("llama").annotated("paused", "scale-out"));
    let mut live = fixture::applied(&*wanted);
    live["metadata"]["resourceVersion"] = json!("7");
    live["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
    let live = edited(live, "/metadata/labels/team", &json!("a"), Some("kubectl"));
    let live = edited(live, "/metadata/annotations/note", &json!("mine"), Some("kubectl"));
    edited(live, "/spec/idleReplicaCount", &json!(0), Some("kubectl"))
}

/// The object that is applied differs from what the operator applied last in the pause alone.
#[rstest]
#[case::none(None, json!(null))]
#[case::all(Some(Pause::All), json!({"autoscaling.keda.sh/paused": "true"}))]
fn applies_its_own_fields_again(#[case] pause: Option<Pause>, #[case] annotations: Value) {
    let (live, mut expected) = (live(), serde_json::to_value(applied(&Fixture::model("llama"))).unwrap());
    let found = with_pause(&live, pause);
    assert_eq!(found["metadata"]["annotations"], annotations);
    expected["metadata"]["annotations"] = annotations;
    expected["metadata"]["uid"] = json!("generated");
    expected["metadata"]["resourceVersion"] = json!("7");
    if expected["metadata"]["annotations"].is_null() {
        expected["metadata"].as_object_mut().unwrap().remove("annotations");
    }
    assert_eq!(found, expected);
}

/// An adopted object that the operator never applied.
#[test]
fn applies_the_pause_alone_without_own_fields() {
    let live = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7"}, "spec": {"maxReplicaCount": 3}});
    let mut expected = live.clone();
    expected.as_object_mut().unwrap().remove("spec");
    expected["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused": "true"});
    assert_eq!(with_pause(&live, Some(Pause::All)), expected);
}
