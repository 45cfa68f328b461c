//! What is said of each model.

use parking_lot::RwLock;
use std::collections::HashMap;

use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, Status, key},
    plan::Verdict,
};

/// What is said of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReported {
    /// Whether it is scaled.
    pub status: Status,
    /// Why.
    pub reason: &'static str,
}

/// What each model's last plan led to.
#[derive(Debug, Default)]
pub struct LastReports(RwLock<HashMap<Key, LastReported>>);

impl LastReports {
    /// Takes the verdict on a model; none if it is not scaled, or gone.
    pub fn take(&self, model_serving: &ModelServing, verdict: Option<&Verdict>) {
        let key = key(model_serving);
        let mut last_reports = self.0.write();
        match verdict {
            Some(Verdict { status, reason, message: _ }) => {
                last_reports.insert(key, LastReported { status: *status, reason: reason.as_str() })
            }
            None => last_reports.remove(&key),
        };
    }

    /// Forgets all that are not there any more.
    pub fn retain(&self, there: impl Fn(&Key) -> bool) {
        self.0.write().retain(|key, _| there(key));
    }

    pub(super) fn of(&self, model_serving: &ModelServing) -> Option<LastReported> {
        self.0.read().get(&key(model_serving)).copied()
    }
}
