//! A dry run: everything is planned and checked, and nothing is scaled.

use rstest::rstest;
use serde_json::{Value, json};

use super::{action, applied, explained, planned, verdict};
use crate::{
    api::kthena::Unread,
    domain::{Capabilities, Status, VerdictReason},
    observed::{
        ProbeResult, Readability, Readable, RouterScrape, ShadowRange, ShadowState,
        fixture::{Fixture, owned_by},
    },
    plan::{LinkState, PauseChange, diagnose},
};

fn range() -> ShadowState {
    ShadowState::Observed(ShadowRange::of(3, "2026-11-26T05:00:00Z".parse().unwrap()).with(11))
}

/// In shadow, on a router that is scraped and routes that lead to the model.
fn model() -> Fixture {
    Fixture::healthy().without_scaled_object().in_shadow(range())
}

/// Metadata of output of `render` that GitOps applied.
fn rendered() -> Value {
    let mut metadata = owned_by(Fixture::UID);
    metadata.as_object_mut().unwrap().remove("ownerReferences");
    metadata
}

/// Metadata of an object that a user wrote by hand.
fn by_hand() -> Value {
    json!({"name": "chat", "namespace": "models", "uid": "theirs"})
}

#[rstest]
#[case::none(model(), "keep")]
#[case::owned(model().scaled_object(&[]), "remove")]
#[case::by_hand(model().scaled_object_with(&by_hand(), &[]), "keep")]
#[case::of_a_deleted_namesake(model().scaled_object_with(&owned_by("other"), &[]), "keep")]
#[case::rendered(model().scaled_object_with(&rendered(), &[]), "keep")]
#[case::other_annotations_are_invalid(model().scaled_object(&[]).annotated("min-replicas", "two"), "remove")]
#[case::no_profile(model().scaled_object(&[]).annotated("profile", "gold"), "remove")]
#[case::own_value_is_invalid(model().scaled_object(&[]).annotated("shadow", "yes"), "keep")]
#[case::off(model().scaled_object(&[]).annotated("shadow", "false"), "apply")]
#[case::unread_booster(model().scaled_object(&[]).unread_booster(Unread::Forbidden), "keep")]
fn applies_no_scaled_object(#[case] fixture: Fixture, #[case] expected: &str) {
    assert_eq!(action(&planned(&fixture).scaled_object), expected);
}

/// The decisions are those of the object that is applied without the annotation.
#[test]
fn simulates_the_scaled_object_of_the_same_settings() {
    let settings = |fixture: Fixture| fixture.annotated("max-replicas", "4").annotated("min-replicas", "0");
    let plan = planned(&settings(model()));
    let real = applied(&settings(model()).annotated("shadow", "false"));
    assert_eq!(json!(plan.shadow), json!(real));
    assert_eq!(plan.objects().unwrap(), Vec::<Value>::new());
    assert!(planned(&model().annotated("shadow", "false")).shadow.is_none());
    assert!(planned(&model().annotated("min-replicas", "two")).shadow.is_none());
}

#[test]
fn scrapes_the_engines_as_always() {
    let engines = || model().annotated("signals", "engine-queue=4");
    for beside in [engines(), engines().competitor("HorizontalPodAutoscaler")] {
        assert_eq!(action(&planned(&beside).pod_monitor), "apply");
    }
}

/// Another autoscaler may scale the model.
#[rstest]
#[case::hpa("HorizontalPodAutoscaler")]
#[case::policy("AutoscalingPolicy")]
#[case::scaled_object("ScaledObject")]
fn is_no_conflict(#[case] kind: &str) {
    let (plan, explanation) = explained(&model().competitor(kind));
    assert!(plan.findings.is_empty() && plan.shadow.is_some(), "{:?}", plan.findings);
    let message = explanation.verdict.message;
    let expected = format!(
        "; {kind} models/theirs scales it now; delete that and remove the annotation autoscaling.kthena.io/shadow to start scaling"
    );
    assert!(message.contains(&expected), "{message}");
}

/// An object with the generated name is in the way only once the operator needs the name.
#[rstest]
#[case::by_hand(by_hand())]
#[case::rendered(rendered())]
fn runs_beside_an_object_with_the_generated_name(#[case] metadata: Value) {
    let (plan, explanation) = explained(&model().scaled_object_with(&metadata, &[]));
    assert!(plan.findings.is_empty() && plan.shadow.is_some(), "{:?}", plan.findings);
    let message = explanation.verdict.message;
    assert!(message.contains("; ScaledObject models/chat scales it now"), "{message}");
    assert!(message.contains("; ScaledObject chat has the generated name"), "{message}");
}

#[rstest]
#[case::observed(
    model(),
    "in shadow, so nothing is scaled on purpose: it would have held 3 to 11 ServingGroups since 2026-11-26T05:00:00Z; it would scale on active-requests, from 1 to 10 ServingGroups; nothing else scales it; remove the annotation autoscaling.kthena.io/shadow to start scaling"
)]
#[case::beyond_the_limit(
    model().in_shadow(ShadowState::BeyondLimit(50)),
    "in shadow, so nothing is scaled on purpose: it is not observed, since 50 older models in shadow are; end an older one, or raise --shadow-max; nothing else scales it; remove the annotation autoscaling.kthena.io/shadow to start scaling"
)]
fn is_ready_on_purpose(#[case] fixture: Fixture, #[case] message: &str) {
    let found = verdict(&fixture);
    assert_eq!(
        (found.status, found.reason, found.message.as_str()),
        (Status::True, VerdictReason::Shadow, message)
    );
}

/// `explain` shows no broken link without a ScaledObject and an HPA.
#[test]
fn every_link_holds() {
    let fixture = model();
    let (plan, explanation) = explained(&fixture);
    let links = diagnose(&fixture.observed(), &plan, &explanation);
    let not_holding: Vec<_> = links.iter().filter(|link| link.state != LinkState::Holds).collect();
    assert!(not_holding.is_empty() && links.len() == 10, "{not_holding:?}");
    let beside = model().competitor("HorizontalPodAutoscaler");
    let (plan, explanation) = explained(&beside);
    let links = diagnose(&beside.observed(), &plan, &explanation);
    assert!(
        links.iter().any(|link| link.detail == "in shadow beside HorizontalPodAutoscaler models/theirs"),
        "{links:?}"
    );
}

#[test]
fn waits_for_the_first_decision() {
    let found = verdict(&model().in_shadow(ShadowState::Starting));
    assert_eq!((found.status, found.reason), (Status::Unknown, VerdictReason::Pending));
}

/// The reports of KEDA and the HPA, if there are any, are those on objects of others.
#[test]
fn heeds_no_report_on_objects_of_others() {
    let fixture = model().scaled_object_with(&by_hand(), &[("Ready", "False", "Failed", "")]).hpa(&[(
        "ScalingActive",
        "False",
        "FailedGetExternalMetric",
        "",
    )]);
    assert_eq!(verdict(&fixture).reason, VerdictReason::Shadow);
}

/// With each of these the model would not be scaled either.
#[rstest]
#[case::settings(model().annotated("min-replicas", "two"), "InvalidConfiguration")]
#[case::no_prometheus(model().without_prometheus(), "PrometheusNotConfigured")]
#[case::shared_name(Fixture::model("llama").in_shadow(range()).other("rival", "llama"), "SharedModelName")]
#[case::cannot_wake(model().annotated("min-replicas", "0").annotated("signals", "engine-queue=5"), "CannotWakeFromZero")]
#[case::no_keda(model().capabilities(Capabilities { keda: None, ..Capabilities::NEWEST }), "KedaNotInstalled")]
#[case::no_scale(model().capabilities(Capabilities { scale: false, ..Capabilities::NEWEST }), "ScaleSubresourceMissing")]
#[case::router(model().probe(ProbeResult { router: RouterScrape::NoTarget, ..ProbeResult::default() }), "RouterNotScraped")]
#[case::engines(model().annotated("signals", "engine-queue=5"), "EngineNotScraped")]
#[case::not_routed(Fixture::model("llama").in_shadow(range()).probe(ProbeResult { router: RouterScrape::Succeeds, ..ProbeResult::default() }), "ModelNotSeen")]
fn reports_problems_as_always(#[case] fixture: Fixture, #[case] reason: &str) {
    let found = verdict(&fixture);
    assert_eq!((found.status, found.reason.as_str()), (Status::False, reason), "{}", found.message);
}

#[test]
fn a_refused_plan_scales_nothing_either() {
    let message = verdict(&model().annotated("min-replicas", "two")).message;
    let expected = "; autoscaling.kthena.io/shadow is set, so nothing is scaled either way; see ";
    assert!(message.contains(expected), "{message}");
}

/// Kinds that only show other autoscalers hold nothing back, where nothing is created.
#[test]
fn begins_although_other_autoscalers_could_not_be_read() {
    let unread = Readability { hpas: Readable::Forbidden, ..Readability::default() };
    let (plan, explanation) = explained(&model().readable(unread));
    assert!(plan.findings.is_empty(), "{:?}", plan.findings);
    let message = explanation.verdict.message;
    assert!(message.contains("so another autoscaler of this model may not be named"), "{message}");
    let unread = Readability { scaled_objects: Readable::Forbidden, ..Readability::default() };
    assert_eq!(verdict(&model().readable(unread)).reason.as_str(), "MissingPermission");
}

#[rstest]
#[case::zero(model().replicas(0), "kubectl scale modelserving chat -n models --replicas=1")]
#[case::zero_beside_an_hpa(model().replicas(0).competitor("HorizontalPodAutoscaler"), "no request wakes it")]
#[case::pause(
    model().annotated("paused", "scale-in"),
    "the annotation autoscaling.kthena.io/paused has no effect in shadow"
)]
#[case::above_the_maximum(model().replicas(12), "set autoscaling.kthena.io/max-replicas before you remove")]
#[case::prometheus(
    model().probe_error("refused"),
    "its number in shadow does not change meanwhile"
)]
fn warns(#[case] fixture: Fixture, #[case] warning: &str) {
    let found = verdict(&fixture);
    assert_eq!(found.reason, VerdictReason::Shadow);
    assert!(found.message.contains(warning), "{}", found.message);
}

#[rstest]
#[case::woken_by_another_scaled_object(model().replicas(0).competitor("ScaledObject"), "no request wakes it")]
#[case::explicit_maximum(model().replicas(12).annotated("max-replicas", "10"), "before you remove")]
#[case::no_pause(model().annotated("paused", "false"), "has no effect")]
#[case::another_writer(model().second_writer("kubectl"), "set spec.replicas")]
fn warns_of_nothing_else(#[case] fixture: Fixture, #[case] warning: &str) {
    let message = verdict(&fixture).message;
    assert!(!message.contains(warning), "{message}");
}

#[test]
fn a_pause_changes_no_decision() {
    let paused = planned(&model().annotated("paused", "true"));
    let object = paused.shadow.unwrap();
    assert_eq!(json!(object), json!(planned(&model()).shadow));
    assert_eq!(object.metadata.annotations, None);
    let rendered = model().scaled_object_with(&rendered(), &[]).annotated("paused", "true");
    assert_eq!(planned(&rendered).pause, None::<PauseChange>);
}

/// A rewrite of the ModelServing by its ModelBooster begins to scale it.
#[test]
fn warns_of_an_annotation_that_a_rewrite_erases() {
    let fixture = model().booster(&json!({"kthena.io/model-name": "llama"}));
    let message = verdict(&fixture).message;
    assert!(
        message.contains("erases autoscaling.kthena.io/shadow, which ends or begins the dry run"),
        "{message}"
    );
}
