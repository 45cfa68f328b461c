//! Fields of the ScaledObject.

use rstest::rstest;
use serde_json::{Value, json};

use super::applied;
use crate::{
    domain::{Capabilities, Keda},
    observed::fixture::Fixture,
};

fn json_of(fixture: &Fixture) -> Value {
    serde_json::to_value(applied(fixture)).unwrap()
}

fn with_profile(spec: &Value) -> Value {
    json_of(&Fixture::model("llama").profile(spec))
}

fn keda(initial_cooldown: bool, fallback_behavior: bool, directional_pause: bool) -> Capabilities {
    let keda = Keda { initial_cooldown, fallback_behavior, directional_pause };
    Capabilities { keda: Some(keda), ..Capabilities::NEWEST }
}

#[test]
fn has_all_fields_from_the_built_in_defaults() {
    insta::assert_yaml_snapshot!("defaults", json_of(&Fixture::model("llama")));
}

#[test]
fn has_all_fields_from_the_profile() {
    let profile = json!({
        "prometheus": {
            "url": "https://mimir.example.com/prometheus",
            "authenticationRef": {"kind": "TriggerAuthentication", "name": "mimir"},
            "authModes": ["tls", "basic"],
            "headers": {"X-Scope-OrgID": "team-a", "X-B": "c"},
            "unsafeSsl": true,
        },
        "router": {"namespace": "ingress"},
        "replicas": {"min": 2, "max": 7},
        "signals": [{"name": "active-requests", "target": "4"}],
        "pollingInterval": "30s",
        "scaleUp": {"stabilizationWindow": "30s", "policies": [{"type": "Pods", "value": 8, "period": "45s"}], "select": "Min"},
        "scaleDown": {"stabilizationWindow": "1h", "policies": [{"type": "Percent", "value": 25, "period": "5m"}], "select": "Disabled"},
        "scaleToZero": {"cooldown": "20m", "initialCooldown": "2m"},
        "fallback": {"behavior": "currentReplicasIfHigher", "failureThreshold": 10, "replicas": 3},
    });
    insta::assert_yaml_snapshot!("profile", with_profile(&profile));
}

#[rstest]
#[case::all("true", json!({"autoscaling.keda.sh/paused": "true"}))]
#[case::none("false", json!(null))]
#[case::scale_in("scale-in", json!({"autoscaling.keda.sh/paused-scale-in": "true"}))]
#[case::scale_out("scale-out", json!({"autoscaling.keda.sh/paused-scale-out": "true"}))]
fn pauses_by_an_annotation_of_keda(#[case] value: &str, #[case] expected: Value) {
    let found = json_of(&Fixture::model("llama").annotated("paused", value));
    assert_eq!(found["metadata"]["annotations"], expected);
}

/// KEDA 2.19 counts a fallback as activity, which would wake every model at zero when Prometheus is down.
#[rstest]
#[case::above_zero(1, Capabilities::NEWEST, true)]
#[case::at_zero(0, Capabilities::NEWEST, false)]
#[case::old_keda(1, keda(true, false, true), false)]
fn has_a_fallback_only_above_zero(
    #[case] min: i32,
    #[case] capabilities: Capabilities,
    #[case] expected: bool,
) {
    let fallback = json!({"behavior": "static", "failureThreshold": 3, "replicas": 2});
    let profile = json!({"replicas": {"min": min}, "fallback": fallback});
    let found = json_of(&Fixture::model("llama").profile(&profile).capabilities(capabilities));
    let wanted = if expected { fallback } else { json!(null) };
    assert_eq!(found["spec"]["fallback"], wanted);
}

/// KEDA would report the pause again after the resume: <https://github.com/kedacore/keda/issues/6421>.
#[rstest]
#[case::all("true", false)]
#[case::none("false", true)]
#[case::scale_in("scale-in", true)]
#[case::scale_out("scale-out", true)]
fn has_no_fallback_while_all_scaling_is_paused(#[case] pause: &str, #[case] expected: bool) {
    let fallback = json!({"behavior": "static", "failureThreshold": 3, "replicas": 2});
    let profile = json!({"replicas": {"min": 1}, "fallback": fallback});
    let found = json_of(&Fixture::model("llama").profile(&profile).annotated("paused", pause));
    let wanted = if expected { fallback } else { json!(null) };
    assert_eq!(found["spec"]["fallback"], wanted);
}

/// KEDA warns at each write of a cooldown that it does not use, and still refreshes its conditions by the interval.
#[rstest]
#[case::at_zero("0", json!(1800))]
#[case::above_zero("1", json!(null))]
fn has_a_cooldown_only_at_zero(#[case] min: &str, #[case] expected: Value) {
    let spec = &json_of(&Fixture::model("llama").annotated("min-replicas", min))["spec"];
    assert_eq!((&spec["cooldownPeriod"], &spec["pollingInterval"]), (&expected, &json!(15)));
}

#[rstest]
#[case::newest(Capabilities::NEWEST, json!(900))]
#[case::before_2_14(keda(false, false, false), json!(null))]
fn leaves_out_fields_that_keda_does_not_have(#[case] capabilities: Capabilities, #[case] expected: Value) {
    let found = json_of(&Fixture::model("llama").capabilities(capabilities));
    assert_eq!(found["spec"]["initialCooldownPeriod"], expected);
}

#[rstest]
#[case::annotations(&[("min-replicas", "2"), ("max-replicas", "3")], json!([2, 3]))]
#[case::profile_and_annotation(&[("max-replicas", "3")], json!([1, 3]))]
#[case::profile(&[], json!([1, 5]))]
fn takes_bounds_from_annotations_before_the_profile(
    #[case] annotations: &[(&str, &str)],
    #[case] expected: Value,
) {
    let fixture = Fixture::model("llama").profile(&json!({"replicas": {"min": 1, "max": 5}}));
    let fixture = annotations.iter().fold(fixture, |fixture, (name, value)| fixture.annotated(name, value));
    let spec = &json_of(&fixture)["spec"];
    assert_eq!(json!([spec["minReplicaCount"], spec["maxReplicaCount"]]), expected);
}

/// KEDA limits the name of its HPA to 63 bytes.
#[test]
fn shortens_a_long_name_but_not_the_target() {
    let long = "m".repeat(60);
    let found = json_of(&Fixture::model("llama").with("/metadata/name", &json!(long)));
    assert_eq!(found["metadata"]["name"].as_str().unwrap().len(), 54);
    assert_eq!(found["spec"]["scaleTargetRef"]["name"], json!(long));
}

#[test]
fn carries_settings_of_the_connection_to_keda() {
    let prometheus = json!({
        "url": "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1", "awsRegion": "eu-central-1",
        "queryParameters": {"dedup": "true", "max_source_resolution": "auto"}, "timeout": "30s",
    });
    let metadata = &with_profile(&json!({"prometheus": prometheus}))["spec"]["triggers"][0]["metadata"];
    assert_eq!(
        json!([metadata["awsRegion"], metadata["queryParameters"], metadata["timeout"]]),
        json!(["eu-central-1", "dedup=true,max_source_resolution=auto", "30000"])
    );
}

#[test]
fn has_no_credentials_without_a_setting() {
    let trigger = &with_profile(&json!({"prometheus": {"url": "http://p:9090"}}))["spec"]["triggers"][0];
    let metadata = trigger["metadata"].as_object().unwrap();
    let optional = ["authModes", "awsRegion", "customHeaders", "queryParameters", "timeout", "unsafeSsl"];
    assert!(optional.iter().all(|key| !metadata.contains_key(*key)), "{trigger}");
    assert_eq!(
        (&trigger["authenticationRef"], &metadata["serverAddress"]),
        (&json!(null), &json!("http://p:9090"))
    );
}
