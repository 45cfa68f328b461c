//! A ModelServing that a ModelBooster controls.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Desired, action, applied, explained, planned};
use crate::{
    api::{
        annotations::{MODEL_NAME, PREFIX},
        kthena::Unread,
    },
    domain::{Reason, Status, VerdictReason},
    observed::fixture::{Fixture, applied_scaled_object},
    plan::{LinkState, Plan, diagnose, plan},
};

fn annotations(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| {
            let prefix = if *name == MODEL_NAME { "" } else { PREFIX };
            (format!("{prefix}{name}"), json!(value))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

const OPT_IN: (&str, &str) = (MODEL_NAME, "llama");

#[test]
fn annotations_of_the_booster_count_for_its_model_serving() {
    let fixture = Fixture::opted_out().booster(&annotations(&[OPT_IN, ("max-replicas", "4")]));
    assert_eq!(applied(&fixture).spec.max_replica_count, Some(4));
}

#[test]
fn annotations_of_the_model_serving_override_those_of_the_booster_key_by_key() {
    let booster = annotations(&[OPT_IN, ("min-replicas", "2"), ("max-replicas", "4")]);
    let fixture = Fixture::opted_out().annotated("max-replicas", "6").booster(&booster);
    let spec = applied(&fixture).spec;
    assert_eq!((spec.min_replica_count, spec.max_replica_count), (Some(2), Some(6)));
}

#[test]
fn the_profile_is_below_the_booster() {
    let booster = annotations(&[OPT_IN, ("min-replicas", "2"), ("profile", "profile")]);
    let fixture = Fixture::opted_out().booster(&booster).profile(&json!({"replicas": {"min": 3, "max": 7}}));
    let spec = applied(&fixture).spec;
    assert_eq!((spec.min_replica_count, spec.max_replica_count), (Some(2), Some(7)));
}

#[test]
fn an_invalid_annotation_of_the_booster_is_reported() {
    let fixture = Fixture::opted_out().booster(&annotations(&[OPT_IN, ("max-replicas", "many")]));
    assert_eq!(planned(&fixture).findings.len(), 1);
}

#[test]
fn a_rewrite_of_the_model_serving_keeps_what_the_booster_opted_in() {
    let own = Fixture::model("llama").booster(&annotations(&[OPT_IN]));
    let rewritten = Fixture::opted_out().booster(&annotations(&[OPT_IN]));
    assert_eq!(applied(&rewritten).spec, applied(&own).spec);
}

/// A scaled ModelServing whose own annotations are gone.
fn erased(fixture: &Fixture) -> Plan {
    let scaled = applied_scaled_object(&applied(&Fixture::model("llama")));
    let mut observed = fixture.observed();
    observed.scaled_object = Some(scaled);
    plan(&observed, fixture.capabilities, &fixture.defaults)
}

#[test]
fn opts_out_once_its_booster_is_read_without_the_annotation() {
    let read = erased(&Fixture::opted_out().booster(&json!({})));
    assert_eq!(action(&read.scaled_object), "remove");
}

#[rstest]
#[case(Unread::NotListed, VerdictReason::Pending)]
#[case(Unread::Forbidden, VerdictReason::Problem(Reason::MissingPermission))]
#[case(Unread::Absent, VerdictReason::Pending)]
fn keeps_everything_while_its_booster_is_not_read(#[case] cause: Unread, #[case] reason: VerdictReason) {
    let unread = erased(&Fixture::opted_out().unread_booster(cause));
    assert_eq!((action(&unread.scaled_object), action(&unread.pod_monitor)), ("keep", "keep"));
    let Desired::Apply(verdict) = &unread.condition else { panic!("a condition reports it") };
    assert_eq!((verdict.status, verdict.reason), (Status::Unknown, reason));
    assert!(verdict.message.contains(r#"ModelBooster "demo""#), "{}", verdict.message);
}

#[test]
fn does_not_apply_an_incomplete_set_of_annotations() {
    let fixture = Fixture::model("llama").unread_booster(Unread::Forbidden);
    let (plan, explanation) = explained(&fixture);
    assert_eq!(action(&plan.scaled_object), "keep");
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    assert_eq!(links.first().map(|link| link.state), Some(LinkState::Unknown));
}

#[test]
fn writes_nothing_for_a_model_serving_that_never_opted_in() {
    let plan = planned(&Fixture::opted_out().unread_booster(Unread::Forbidden));
    assert!(plan.explanation.is_none());
    assert_eq!(plan.condition, Desired::Keep);
}

#[rstest]
#[case::opt_in(&[], &[], Some("erases kthena.io/model-name, which ends autoscaling"))]
#[case::pause(&[("paused", "true")], &[OPT_IN], Some("erases autoscaling.kthena.io/paused, which ends the pause"))]
#[case::bound(&[("max-replicas", "3")], &[OPT_IN, ("max-replicas", "4")], Some("which changes how it is scaled"))]
#[case::same(&[], &[OPT_IN], None)]
fn warns_of_annotations_that_the_booster_erases(
    #[case] own: &[(&str, &str)],
    #[case] booster: &[(&str, &str)],
    #[case] expected: Option<&str>,
) {
    let fixture =
        own.iter().fold(Fixture::model("llama"), |fixture, (name, value)| fixture.annotated(name, value));
    let (plan, explanation) = explained(&fixture.booster(&annotations(booster)));
    match expected {
        None => assert_eq!(plan.warnings, Vec::<String>::new()),
        Some(expected) => {
            assert!(plan.warnings.iter().any(|warning| warning.contains(expected)), "{:?}", plan.warnings);
            assert!(explanation.verdict.message.contains(expected), "{}", explanation.verdict.message);
        }
    }
}

#[test]
fn names_the_booster_that_resets_replicas() {
    let fixture = Fixture::opted_out().booster(&annotations(&[OPT_IN]));
    let warnings = |manager: &str| planned(&fixture.clone().second_writer(manager)).warnings.join("\n");
    assert!(warnings("kthena-controller-manager").contains("modelBooster.keepScaling"));
    assert!(warnings("argocd").contains("make argocd ignore that field"));
}

#[test]
fn the_limit_of_annotations_holds_for_a_booster_too() {
    let huge = "a,".repeat(10_000);
    let fixture = Fixture::opted_out().booster(&annotations(&[(MODEL_NAME, &huge)]));
    let plan = planned(&fixture);
    assert!(plan.findings[0].message.contains("16 KiB"), "{:?}", plan.findings);
}
