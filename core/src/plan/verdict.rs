//! The condition: status, reason and message.

use std::fmt::Write as _;

use super::{Desired, Finding, roles, shadow};
use crate::{
    api::annotations::{AnnotationKey, PREFIX},
    domain::{Pause, Reason, Status, VerdictReason, cut, printable},
    intent::Intent,
    observed::{
        ConditionDigest, KedaPause, Observed, Ownership, Readable, ShadowState, WaitingPods, find_condition,
    },
};

/// Page with a section for each reason.
pub(super) const HELP: &str = "https://github.com/volcano-sh/kthena-keda/blob/main/docs/troubleshooting.md";

/// Longest message of a condition, in bytes.
const MESSAGE_MAX: usize = 2000;

/// Separator in a message before problems that other controllers report.
const REPORTED: &str = "; also reported: ";

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `True` if the model is being scaled or paused, `False` if not, `Unknown` if not known yet.
    pub status: Status,
    /// Reason of the status.
    pub reason: VerdictReason,
    /// Problem, effect and remedy; or the signals and bounds by which the model is scaled.
    pub message: String,
}

impl Verdict {
    /// Escapes the message and cuts it to 2,000 bytes: it repeats text of others, and the API server rejects a
    /// status with a condition that is too long.
    fn new(status: Status, reason: VerdictReason, message: &str) -> Self {
        Self { status, reason, message: cut(&printable(message), MESSAGE_MAX).into_owned() }
    }

    /// `true` if the model is being scaled, or paused on purpose.
    pub fn is_good(&self) -> bool {
        self.status == Status::True
    }
}

/// Inputs of a verdict.
pub(super) struct VerdictInputs<'a> {
    /// Problems that keep the plan from being applied, the most important first.
    pub(super) findings: &'a [Finding],
    /// Problems that keep the applied plan from working, in the order of the chain.
    pub(super) runtime_findings: &'a [Finding],
    /// Notices that keep nothing from working.
    pub(super) warnings: &'a [String],
    /// Error of the operator's own check of the signals.
    pub(super) probe_error: Option<&'a str>,
    /// Cause for which ServingGroups do not become ready.
    pub(super) waiting: Option<&'a WaitingPods>,
    /// Resolved settings, if they are valid.
    pub(super) intent: Option<&'a Intent>,
    /// Pause that the annotation asks for.
    pub(super) pause: Option<Pause>,
    /// An annotation asks for a dry run.
    pub(super) is_shadowed: bool,
}

/// `true` for the reasons of a written condition that depend on the load alone: Scaling and Idle.
pub fn is_load_reason(reason: &str) -> bool {
    [VerdictReason::Scaling, VerdictReason::Idle].iter().any(|load| load.as_str() == reason)
}

/// The verdict as condition; [`Desired::Keep`] if the ModelServing carries the same already.
pub(super) fn condition(observed: &Observed, verdict: &Verdict) -> Desired<Verdict> {
    let is_written = observed.model_serving.condition().is_some_and(|found| {
        found.status == verdict.status.as_str()
            && found.reason == verdict.reason.as_str()
            && found.message.is(&verdict.message)
    });
    if is_written { Desired::Keep } else { Desired::Apply(verdict.clone()) }
}

/// Judges in the order findings, pause, reported problems, state.
pub(super) fn verdict(observed: &Observed, inputs: &VerdictInputs<'_>) -> Verdict {
    if let [first, others @ ..] = inputs.findings {
        let message = not_applied(observed, first, others, inputs);
        return problem(first, &message, inputs.runtime_findings, inputs);
    }
    if inputs.is_shadowed {
        return in_shadow(observed, inputs);
    }
    if let Some(message) = pause(observed, inputs.intent) {
        return good(VerdictReason::Paused, message, inputs);
    }
    let views = inputs.intent.map(|intent| roles::views(observed, intent)).unwrap_or_default();
    let has_reported = if views.is_empty() {
        has_reported(observed)
    } else {
        views.iter().all(|(_, view)| has_reported(view))
    };
    if let [first, others @ ..] = inputs.runtime_findings
        && (has_reported || matches!(first.reason, Reason::ScaledObjectNotReady | Reason::HpaNotScaling))
    {
        return problem(first, &first.message, others, inputs);
    }
    if !has_reported {
        let message = "waiting for KEDA to report on the ScaledObject and to create its HPA; if this lasts, check that KEDA's operator runs";
        let message = with_notices(message.to_owned(), inputs.runtime_findings, inputs);
        return Verdict::new(Status::Unknown, VerdictReason::Pending, &message);
    }
    let scales = scales_on(inputs.intent);
    let is_active = |observed: &Observed| {
        keda_condition(observed, "Active").is_some_and(|active| active.status == "True")
    };
    if is_active(observed) || views.iter().any(|(_, view)| is_active(view)) {
        good(VerdictReason::Scaling, scales, inputs)
    } else {
        good(VerdictReason::Idle, format!("KEDA reports no activity; {scales}"), inputs)
    }
}

/// A dry run depends on no report of KEDA and the HPA.
fn in_shadow(observed: &Observed, inputs: &VerdictInputs<'_>) -> Verdict {
    if let [first, others @ ..] = inputs.runtime_findings {
        return problem(first, &first.message, others, inputs);
    }
    if observed.shadow == ShadowState::Starting {
        let message = "in shadow, so nothing is scaled on purpose: waiting for the first values of the signals; if this lasts, check that the operator leads";
        let message = with_notices(message.to_owned(), &[], inputs);
        return Verdict::new(Status::Unknown, VerdictReason::Pending, &message);
    }
    good(VerdictReason::Shadow, shadow::message(observed, inputs.intent), inputs)
}

/// `true` once KEDA has reported on the ScaledObject and created its HPA.
pub(super) fn has_reported(observed: &Observed) -> bool {
    let has_hpa = observed.hpa.is_some() || observed.readable.hpas != Readable::Yes;
    keda_condition(observed, "Ready").is_some() && has_hpa
}

fn keda_condition<'a>(observed: &'a Observed, kind: &str) -> Option<&'a ConditionDigest> {
    observed.scaled_object.as_ref().and_then(|found| find_condition(&found.conditions, kind))
}

/// All findings, and the state of the ScaledObject until they are resolved.
fn not_applied(
    observed: &Observed,
    first: &Finding,
    others: &[Finding],
    inputs: &VerdictInputs<'_>,
) -> String {
    let mut message = first.message.clone();
    for other in others {
        // Writing to a String cannot fail.
        let _ = write!(message, "; also {}: {}", other.reason.as_str(), other.message);
    }
    if inputs.is_shadowed {
        // Writing to a String cannot fail.
        let _ = write!(message, "; {} is set, so nothing is scaled either way", AnnotationKey::Shadow);
        return message;
    }
    if !observed.competing_autoscalers.is_empty() {
        return message;
    }
    if observed.roles.iter().any(|role| role.scaled_object.is_some()) {
        let effect = if observed.may_scale_roles && observed.role_autoscalers.is_empty() {
            "the ScaledObjects of the roles keep their last valid settings"
        } else {
            "the roles keep their numbers, and the operator scales nothing"
        };
        // Writing to a String cannot fail.
        let _ = write!(message, "; until then {effect}");
        return message;
    }
    match observed.scaled_object_ownership() {
        Ownership::Owned => {
            message.push_str("; until then the ScaledObject keeps its last valid settings");
            if let Some(pause) = inputs.pause {
                let _ = write!(message, ", and is paused by {PREFIX}paused: {}", <&str>::from(pause));
            }
        }
        Ownership::Absent if observed.readable.scaled_objects != Readable::Yes => {
            message.push_str("; until then the operator neither creates nor changes the ScaledObject");
        }
        Ownership::Absent => message.push_str("; until then no ScaledObject is created"),
        Ownership::Terminating | Ownership::Orphaned | Ownership::Foreign => {}
    }
    message
}

/// Signals and bounds, as a predicate.
fn scales_on(intent: Option<&Intent>) -> String {
    intent.map_or_else(|| "scales".to_owned(), |intent| format!("scales on {}", basis(intent)))
}

/// Signals and bounds of settings.
pub(super) fn basis(intent: &Intent) -> String {
    if let Some(roles) = &intent.roles {
        return roles::basis(roles);
    }
    let names: Vec<&str> = intent.signals.iter().map(|signal| signal.source.name()).collect();
    let (min, max) = (intent.replicas.min(), intent.replicas.max());
    format!("{}, from {min} to {max} ServingGroups", joined(&names))
}

/// Names as a sentence lists them: `a`, `a and b`, `a, b and c`.
pub(super) fn joined(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        names => names.concat(),
    }
}

/// Cause and effect of a pause of all scaling; a pause of one direction leaves the model scaled.
pub(super) fn pause(observed: &Observed, intent: Option<&Intent>) -> Option<String> {
    if intent.is_some_and(|intent| intent.pause == Some(Pause::All)) {
        return Some(format!(
            "paused by the annotation {PREFIX}paused, so replicas do not change; remove it to resume"
        ));
    }
    let owned =
        observed.scaled_object.as_ref().filter(|_| observed.scaled_object_ownership() == Ownership::Owned);
    let KedaPause { annotation, replicas } = owned?.pause?;
    let effect = match replicas {
        Some(replicas) => format!("KEDA holds the model at {replicas} ServingGroups"),
        None => "replicas do not change".to_owned(),
    };
    Some(format!(
        "paused by the annotation {annotation} on the ScaledObject, which another user set, so {effect}; remove it to resume"
    ))
}

fn good(reason: VerdictReason, message: String, inputs: &VerdictInputs<'_>) -> Verdict {
    Verdict::new(Status::True, reason, &with_notices(message, &[], inputs))
}

fn problem(first: &Finding, message: &str, others: &[Finding], inputs: &VerdictInputs<'_>) -> Verdict {
    let status = if first.is_certain { Status::False } else { Status::Unknown };
    let link = format!("; see {HELP}#{}", first.reason.as_str().to_lowercase());
    let message = format!("{}{link}", cut(message, MESSAGE_MAX - link.len()));
    Verdict::new(status, first.reason.into(), &with_notices(message, others, inputs))
}

/// Warnings first; then what other controllers report, which may change at any time.
fn with_notices(mut message: String, others: &[Finding], inputs: &VerdictInputs<'_>) -> String {
    for warning in inputs.warnings {
        let _ = write!(message, "; {warning}");
    }
    for other in others {
        let _ = write!(message, "{REPORTED}{}: {}", other.reason.as_str(), other.message);
    }
    if let Some(waiting) = inputs.waiting
        && let Some(words) = waiting.words()
    {
        let _ = write!(message, "{REPORTED}{}: {words}", waiting.cause());
    }
    if let Some(error) = inputs.probe_error {
        let _ = write!(message, "{REPORTED}PrometheusUnreachable: {error}");
    }
    message
}
