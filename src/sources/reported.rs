//! The status and reason of each model, for metrics.

use parking_lot::RwLock;
use std::collections::HashMap;

use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, Status, key},
    plan::Verdict,
};

/// Status and reason of a model's last plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReported {
    /// Status of the condition.
    pub status: Status,
    /// Reason of the condition.
    pub reason: &'static str,
}

/// The last report of each model.
#[derive(Debug, Default)]
pub struct LastReports(RwLock<HashMap<Key, LastReported>>);

impl LastReports {
    /// Records the verdict on a model; `None` if it is not opted in, or gone.
    pub fn record(&self, model_serving: &ModelServing, verdict: Option<&Verdict>) {
        let key = key(model_serving);
        let mut reports = self.0.write();
        match verdict {
            Some(Verdict { status, reason, message: _ }) => {
                reports.insert(key, LastReported { status: *status, reason: reason.as_str() });
            }
            None => drop(reports.remove(&key)),
        }
    }

    /// Drops the models for which `exists` is `false`.
    pub fn retain(&self, exists: impl Fn(&Key) -> bool) {
        self.0.write().retain(|key, _| exists(key));
    }

    pub(super) fn get(&self, model_serving: &ModelServing) -> Option<LastReported> {
        self.0.read().get(&key(model_serving)).copied()
    }
}
