//! The service time in force, and doubts about it.

use rstest::rstest;
use serde_json::json;

use super::{Desired, plan};
use crate::{
    api::keda::ScaledObject,
    observed::{
        LiveScaledObject, Measurements, ScaledObjectDigest,
        fixture::{Fixture, applied, applied_scaled_object, decode},
    },
};

const KEY: &str = "autoscaling.kthena.io/measured-service-time";

fn model(setting: &str) -> Fixture {
    Fixture::model("llama")
        .route("llama", &["chat"])
        .server("chat", "chat", &json!({}))
        .annotated("service-time", setting)
}

/// The object that is applied after this time was measured, beside a ScaledObject with this digest.
fn next(fixture: &Fixture, found: Option<ScaledObjectDigest>, measured: Option<&str>) -> Box<ScaledObject> {
    let mut observed = fixture.observed();
    observed.scaled_object = found;
    observed.measured.service_time = measured.map(|time| time.parse().unwrap());
    match plan(&observed, fixture.capabilities, &fixture.defaults).scaled_object {
        Desired::Apply(object) => object,
        Desired::Keep | Desired::Remove => panic!("no ScaledObject is applied"),
    }
}

/// All that the operator writes.
fn content(object: &ScaledObject) -> serde_json::Value {
    serde_json::to_value(object).unwrap()
}

fn kept(object: &ScaledObject) -> Option<&str> {
    Some(object.metadata.annotations.as_ref()?.get(KEY)?.as_str())
}

#[test]
fn counts_all_requests_until_a_time_is_measured() {
    assert_eq!(content(&next(&model("auto"), None, None)), content(&next(&model("off"), None, None)));
    let measured = next(&model("auto"), None, Some("5s"));
    assert_eq!(measured.spec, next(&model("5s"), None, None).spec);
    assert_eq!(kept(&measured), Some("5s"));
    assert_eq!(kept(&next(&model("5s"), None, Some("5s"))), None);
}

#[rstest]
#[case::after_a_restart(None, "5s")]
#[case::little_change(Some("6s"), "5s")]
#[case::more(Some("6100ms"), "6100ms")]
#[case::less(Some("3900ms"), "3900ms")]
fn keeps_a_measured_time_until_it_changes_much(#[case] measured: Option<&str>, #[case] expected: &str) {
    let first = next(&model("auto"), None, Some("5s"));
    let second = next(&model("auto"), Some(applied_scaled_object(&first)), measured);
    assert_eq!(kept(&second), Some(expected));
    assert_eq!(content(&second) == content(&first), expected == "5s", "the object stays as it is");
}

/// Only the operator's own value counts: an edit of another client makes that its field manager.
#[rstest]
#[case::of_another_client(false, "1s", None)]
#[case::not_a_duration(true, "fast", None)]
#[case::out_of_bounds(true, "2h", None)]
#[case::own(true, "7s", Some("7s"))]
fn reads_back_its_own_value(#[case] is_own: bool, #[case] value: &str, #[case] expected: Option<&str>) {
    let first = next(&model("auto"), None, Some("5s"));
    let mut object = applied(&*first);
    if !is_own {
        // The API server takes the field from the operator.
        object["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:annotations"] = json!({});
    }
    object["metadata"]["annotations"][KEY] = json!(value);
    let found = ScaledObjectDigest::from(&decode::<LiveScaledObject>(&object));
    assert_eq!(kept(&next(&model("auto"), Some(found), None)), expected);
}

/// The output of `kubectl get` has no managed fields; `render` reads it.
#[test]
fn renders_the_measured_time_of_a_scaled_object_from_a_file() {
    let first = next(&model("auto"), None, Some("5s"));
    let mut object = applied(&*first);
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    let found = ScaledObjectDigest::from(&decode::<LiveScaledObject>(&object));
    assert_eq!(content(&next(&model("auto"), Some(found), None)), content(&first));
}

#[test]
fn drops_the_measured_time_with_the_setting() {
    let first = next(&model("auto"), None, Some("5s"));
    let off = next(&model("off"), Some(applied_scaled_object(&first)), Some("5s"));
    assert_eq!((kept(&off), &off.spec), (None, &next(&model("off"), None, None).spec));
}

fn warnings(setting: &str, measured: Measurements) -> String {
    let fixture = model(setting);
    let mut observed = fixture.observed();
    observed.measured = measured;
    plan(&observed, fixture.capabilities, &fixture.defaults).warnings.join("; ")
}

#[rstest]
#[case::right("5s", None)]
#[case::little_off("6500ms", None)]
#[case::too_short(
    "10s",
    Some(
        "the service time is 5s, but requests of the last day took 10s without waiting, so requests wait longer; set autoscaling.kthena.io/service-time to 10s or auto"
    )
)]
#[case::too_long(
    "3s",
    Some("so more ServingGroups run than are needed; set autoscaling.kthena.io/service-time to 3s or auto")
)]
fn warns_of_a_wrong_time(#[case] measured: &str, #[case] expected: Option<&str>) {
    let measured = Measurements { service_time: measured.parse().ok(), ..Measurements::default() };
    let found = warnings("5s", measured.clone());
    assert_eq!(found.contains("service time"), expected.is_some(), "{found}");
    assert!(expected.is_none_or(|expected| found.contains(expected)), "{found}");
    assert!(!warnings("auto", measured).contains("service time"));
}

#[rstest]
#[case::fixed("5s", true)]
#[case::auto("auto", true)]
#[case::off("off", false)]
fn warns_of_a_standing_queue(#[case] setting: &str, #[case] expected: bool) {
    let measured =
        Measurements { service_time: "5s".parse().ok(), has_standing_queue: true, ..Measurements::default() };
    let found = warnings(setting, measured);
    let text = "requests waited for most of the last day although more ServingGroups were allowed, so the service time 5s is probably too short; set autoscaling.kthena.io/service-time to a longer time or off, or add an engine signal";
    assert_eq!(found.contains(text), expected, "{found}");
}
