//! The condition: whether a model is being scaled, and if not, why and what to do.

use std::fmt::Write as _;

use super::{Desired, Finding};
use crate::observed::{Existing, Observed};

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

const PENDING: &str = "the ScaledObject is being applied; KEDA has not reported yet";

/// The condition that the findings lead to; kept where it already says so.
pub(super) fn condition(observed: &Observed, findings: &[Finding], warnings: &[String]) -> Desired<Verdict> {
    let verdict = match findings {
        [] => {
            let message = [PENDING].into_iter().chain(warnings.iter().map(String::as_str)).collect::<Vec<_>>().join("; ");
            Verdict { status: Status::Unknown, reason: "Pending", message }
        }
        [first, others @ ..] => Verdict { status: Status::False, reason: first.reason.as_str(), message: message(observed, first, others) },
    };
    let says_so =
        observed.model_serving.status.autoscaling_ready.as_ref().is_some_and(|found| {
            found.status == verdict.status.as_str() && found.reason == verdict.reason && found.message == verdict.message
        });
    if says_so { Desired::Keep } else { Desired::Apply(verdict) }
}

fn message(observed: &Observed, first: &Finding, others: &[Finding]) -> String {
    let mut message = first.message.clone();
    for other in others {
        // Writing to a String cannot fail.
        let _ = write!(message, "; also {}: {}", other.reason.as_str(), other.message);
    }
    if observed.existing() == Existing::Ours {
        message.push_str("; until then the ScaledObject stays as it was last valid");
    }
    message
}
