//! The status and reason of each model, for metrics.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt as _;
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
pub struct LastReports(RwLock<HashMap<String, LastReported>>);

impl LastReports {
    /// Records the verdict on a model; `None` if it is not opted in, or gone.
    pub fn record(&self, model_serving: &ModelServing, verdict: Option<&Verdict>) {
        let Some(uid) = model_serving.uid() else { return };
        let mut reports = self.0.write();
        match verdict {
            Some(Verdict { status, reason, message: _ }) => {
                reports.insert(uid, LastReported { status: *status, reason: *reason });
            }
            None => drop(reports.remove(&uid)),
        }
    }

    /// Drops every model that a new list lacks.
    pub fn retain_listed(&self, listed: &HashSet<String>) {
        self.0.write().retain(|uid, _| listed.contains(uid));
    }

    pub(super) fn get(&self, model_serving: &ModelServing) -> Option<LastReported> {
        self.0.read().get(&model_serving.uid()?).copied()
    }
}
