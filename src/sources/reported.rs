//! The status and reason of each model, for metrics.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;

use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Status, VerdictReason},
    plan::Verdict,
};

/// Status and reason of a model's last plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReported {
    /// Status of the condition.
    pub status: Status,
    /// Reason of the condition.
    pub reason: VerdictReason,
}

/// The last report of each model, by uid.
#[derive(Debug, Default)]
pub struct LastReports(RwLock<HashMap<Box<str>, LastReported>>);

impl LastReports {
    /// Records the verdict on a model; `None` if it is not opted in, or gone.
    pub fn record(&self, model_serving: &ModelServing, verdict: Option<&Verdict>) {
        let mut reports = self.0.write();
        match verdict {
            Some(Verdict { status, reason, message: _ }) => {
                reports.insert(uid(model_serving).into(), LastReported { status: *status, reason: *reason });
            }
            None => drop(reports.remove(uid(model_serving))),
        }
    }

    /// Drops every model that a new list lacks.
    pub fn retain_listed(&self, listed: &HashSet<String>) {
        self.0.write().retain(|uid, _| listed.contains(&**uid));
    }

    pub(super) fn get(&self, model_serving: &ModelServing) -> Option<LastReported> {
        self.0.read().get(uid(model_serving)).copied()
    }
}

fn uid(model_serving: &ModelServing) -> &str {
    model_serving.metadata.uid.as_deref().unwrap_or_default()
}
