//! The condition: whether a model is being scaled, and if not, why and what to do.

use std::fmt::Write as _;

use super::{Desired, Finding, Reason};
use crate::{
    intent::{Intent, PREFIX, Pause},
    observed::{Existing, Observed, about},
};

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being scaled.
    True,
    /// It is not.
    False,
    /// Nobody can tell yet.
    Unknown,
}

impl Status {
    /// The word as conditions carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What the condition says, its times aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is being scaled.
    pub status: Status,
    /// Why, in one word.
    pub reason: &'static str,
    /// What was seen and what to do.
    pub message: String,
}

/// Whether a reason tells no more than whether anybody asks for the model just now.
pub fn is_of_load(reason: &str) -> bool {
    reason == SCALING || reason == IDLE
}

impl Verdict {
    /// Whether the model is being scaled, or held back on purpose.
    pub fn is_good(&self) -> bool {
        self.status == Status::True
    }
}

/// Everything that a verdict goes by.
pub(super) struct Report<'a> {
    /// What keeps anything from being applied, the most important first.
    pub(super) findings: &'a [Finding],
    /// What keeps what is applied from working, in the order of the chain.
    pub(super) troubles: &'a [Finding],
    /// What is worth knowing although it does neither.
    pub(super) warnings: &'a [String],
    /// Why the operator itself could not look at the signals.
    pub(super) check: Option<&'a str>,
    /// What was asked for, where that is valid.
    pub(super) intent: Option<&'a Intent>,
}

/// The reason of a condition that KEDA has still to report for.
pub const PENDING: &str = "Pending";
/// The reason while somebody asks for the model.
const SCALING: &str = "Scaling";
/// The reason while nobody does.
const IDLE: &str = "Idle";
/// The reason while it is held back on purpose.
const PAUSED: &str = "Paused";

/// Writes the verdict as condition, where that does not say so already.
pub(super) fn condition(observed: &Observed, verdict: &Verdict) -> Desired<Verdict> {
    let says_so =
        observed.model_serving.status.autoscaling_ready.as_ref().is_some_and(|found| {
            found.status == verdict.status.as_str() && found.reason == verdict.reason && found.message == verdict.message
        });
    if says_so { Desired::Keep } else { Desired::Apply(verdict.clone()) }
}

/// What the report leads to.
pub(super) fn judge(observed: &Observed, report: &Report<'_>) -> Verdict {
    if let [first, others @ ..] = report.findings {
        let stays = (observed.existing() == Existing::Ours && observed.rivals.is_empty())
            .then_some("until then the ScaledObject stays as it was last valid");
        return problem(first, others.iter().chain(report.troubles), stays);
    }
    if let Some(who) = paused(observed, report.intent) {
        return verdict(Status::True, PAUSED, &format!("nothing is scaled: paused by {who}"), report);
    }
    let told = |kind| observed.scaled_object.as_ref().and_then(|found| about(&found.told, kind));
    let has_reported = told("Ready").is_some() && observed.hpa.is_some();
    if let [first, others @ ..] = report.troubles
        && (has_reported || matches!(first.reason, Reason::ScaledObjectNotReady | Reason::HpaNotScaling))
    {
        return problem(first, others.iter(), report.check);
    }
    match (told("Ready"), told("Active"), &observed.hpa) {
        (Some(_), Some(active), Some(_)) if active.status == "True" => {
            verdict(Status::True, SCALING, &format!("scaled {}", how(report.intent)), report)
        }
        (Some(_), _, Some(_)) => {
            verdict(Status::True, IDLE, &format!("nobody asks for it; scaled {} when somebody does", how(report.intent)), report)
        }
        (None, ..) | (.., None) => {
            let mut message = "the ScaledObject is being applied; KEDA has not reported yet".to_owned();
            append(&mut message, report.troubles.iter());
            verdict(Status::Unknown, PENDING, &message, report)
        }
    }
}

/// By what, and within which bounds.
fn how(intent: Option<&Intent>) -> String {
    let Some(intent) = intent else { return String::new() };
    let names: Vec<&str> = intent.signals.iter().map(|wanted| wanted.measure.name()).collect();
    format!("by {}, from {} to {} ServingGroups", names.join(", "), intent.replicas.min(), intent.replicas.max())
}

/// Who holds everything back, if anybody does; half a pause goes on scaling.
fn paused(observed: &Observed, intent: Option<&Intent>) -> Option<String> {
    if intent.is_some_and(|intent| intent.pause == Some(Pause::All)) {
        return Some(format!("the annotation {PREFIX}paused"));
    }
    let by = observed.scaled_object.as_ref().filter(|_| observed.existing() == Existing::Ours)?.paused_by?;
    Some(format!("the annotation {by} on the ScaledObject, which somebody else set"))
}

fn verdict(status: Status, reason: &'static str, message: &str, report: &Report<'_>) -> Verdict {
    let parts = [message].into_iter().chain(report.warnings.iter().map(String::as_str)).chain(report.check);
    let message = parts.collect::<Vec<_>>().join("; ");
    Verdict { status, reason, message }
}

fn append<'a>(message: &mut String, others: impl Iterator<Item = &'a Finding>) {
    for other in others {
        // Writing to a String cannot fail.
        let _ = write!(message, "; also {}: {}", other.reason.as_str(), other.message);
    }
}

fn problem<'a>(first: &Finding, others: impl Iterator<Item = &'a Finding>, more: Option<&str>) -> Verdict {
    let mut message = first.message.clone();
    append(&mut message, others);
    if let Some(more) = more {
        let _ = write!(message, "; {more}");
    }
    let status = if first.is_certain { Status::False } else { Status::Unknown };
    Verdict { status, reason: first.reason.as_str(), message }
}
