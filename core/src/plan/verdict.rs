//! The condition: whether a model is being scaled, and if not, why and what to do.

use std::fmt::Write as _;

use super::{Desired, Finding};
use crate::domain::{Reason, Status, VerdictReason};
use crate::{
    api::annotations::PREFIX,
    domain::Pause,
    intent::Intent,
    observed::{Observed, Ownership, find_condition},
};

/// What the condition says, its times aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is being scaled.
    pub status: Status,
    /// Why, in one word.
    pub reason: VerdictReason,
    /// What was seen and what to do.
    pub message: String,
}

/// `true` for the reasons of a written condition that depend on the requests in flight alone: Scaling and Idle.
pub fn is_load_reason(reason: &str) -> bool {
    [VerdictReason::Scaling, VerdictReason::Idle].iter().any(|load| load.as_str() == reason)
}

impl Verdict {
    /// Whether the model is being scaled, or held back on purpose.
    pub fn is_good(&self) -> bool {
        self.status == Status::True
    }
}

/// Everything that a verdict goes by.
pub(super) struct VerdictInputs<'a> {
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

/// Where each reason has an entry.
pub(super) const HELP: &str = "https://github.com/volcano-sh/kthena-keda/blob/main/docs/troubleshooting.md";

/// What stands in a message between what users caused and what others say.
const BESIDES: &str = "; besides ";

/// The part of a message that changes only when somebody changes something.
pub fn stable_part(message: &str) -> &str {
    message.split(BESIDES).next().unwrap_or_default()
}

/// Writes the verdict as condition, where that does not say so already.
pub(super) fn condition(observed: &Observed, verdict: &Verdict) -> Desired<Verdict> {
    let says_so = observed.model_serving.condition().is_some_and(|found| {
        found.status == verdict.status.as_str()
            && found.reason == verdict.reason.as_str()
            && found.message == verdict.message
    });
    if says_so { Desired::Keep } else { Desired::Apply(verdict.clone()) }
}

/// What the report leads to.
pub(super) fn verdict(observed: &Observed, report: &VerdictInputs<'_>) -> Verdict {
    if let [first, others @ ..] = report.findings {
        let mut own = first.message.clone();
        for other in others {
            // Writing to a String cannot fail.
            let _ = write!(own, "; also {}: {}", other.reason.as_str(), other.message);
        }
        if observed.ownership() == Ownership::Owned && observed.competing_autoscalers.is_empty() {
            own.push_str("; until then the ScaledObject stays as it was last valid");
        }
        return problem(first, &own, report.troubles, report);
    }
    if let Some(who) = paused(observed, report.intent) {
        return good(VerdictReason::Paused, format!("nothing is scaled: paused by {who}"), report);
    }
    let told =
        |kind| observed.scaled_object.as_ref().and_then(|found| find_condition(&found.conditions, kind));
    let has_reported = told("Ready").is_some() && observed.hpa.is_some();
    if let [first, others @ ..] = report.troubles
        && (has_reported || matches!(first.reason, Reason::ScaledObjectNotReady | Reason::HpaNotScaling))
    {
        return problem(first, &first.message, others, report);
    }
    match (told("Ready"), told("Active"), &observed.hpa) {
        (Some(_), Some(active), Some(_)) if active.status == "True" => {
            good(VerdictReason::Scaling, format!("scaled {}", how(report.intent)), report)
        }
        (Some(_), _, Some(_)) => good(
            VerdictReason::Idle,
            format!("nobody asks for it; scaled {} when somebody does", how(report.intent)),
            report,
        ),
        (None, ..) | (.., None) => {
            let own = "the ScaledObject is being applied; KEDA has not reported yet".to_owned();
            Verdict {
                status: Status::Unknown,
                reason: VerdictReason::Pending,
                message: with_the_rest(own, report.troubles, report),
            }
        }
    }
}

/// By what, and within which bounds.
fn how(intent: Option<&Intent>) -> String {
    let Some(intent) = intent else { return String::new() };
    let names: Vec<&str> = intent.signals.iter().map(|wanted| wanted.measure.name()).collect();
    format!(
        "by {}, from {} to {} ServingGroups",
        names.join(", "),
        intent.replicas.min(),
        intent.replicas.max()
    )
}

/// Who holds everything back, if anybody does; half a pause goes on scaling.
fn paused(observed: &Observed, intent: Option<&Intent>) -> Option<String> {
    if intent.is_some_and(|intent| intent.pause == Some(Pause::All)) {
        return Some(format!("the annotation {PREFIX}paused"));
    }
    let by =
        observed.scaled_object.as_ref().filter(|_| observed.ownership() == Ownership::Owned)?.paused_by?;
    Some(format!("the annotation {by} on the ScaledObject, which somebody else set"))
}

fn good(reason: VerdictReason, own: String, report: &VerdictInputs<'_>) -> Verdict {
    Verdict { status: Status::True, reason, message: with_the_rest(own, &[], report) }
}

fn problem(first: &Finding, own: &str, others: &[Finding], report: &VerdictInputs<'_>) -> Verdict {
    let status = if first.is_certain { Status::False } else { Status::Unknown };
    let own = format!("{own}; see {HELP}#{}", first.reason.as_str().to_lowercase());
    Verdict {
        status,
        reason: VerdictReason::Problem(first.reason),
        message: with_the_rest(own, others, report),
    }
}

/// What users caused themselves first; what others say, which may change at any time, last.
fn with_the_rest(mut own: String, others: &[Finding], report: &VerdictInputs<'_>) -> String {
    for warning in report.warnings {
        let _ = write!(own, "; {warning}");
    }
    for other in others {
        let _ = write!(own, "{BESIDES}{}: {}", other.reason.as_str(), other.message);
    }
    if let Some(check) = report.check {
        let _ = write!(own, "{BESIDES}PrometheusUnreachable: {check}");
    }
    own
}
