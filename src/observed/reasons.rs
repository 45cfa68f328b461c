//! What is said of each model.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    api::kthena::ModelServing,
    plan::{Status, Verdict},
    process::digests::{Key, key},
};

/// What is said of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether it is scaled.
    pub status: Status,
    /// Why.
    pub reason: &'static str,
}

/// What each model's last plan led to.
#[derive(Debug, Default)]
pub struct Reasons(RwLock<HashMap<Key, Said>>);

impl Reasons {
    /// Takes the verdict on a model; none if it is not scaled, or gone.
    pub fn take(&self, model_serving: &ModelServing, verdict: Option<&Verdict>) {
        let key = key(model_serving);
        let mut reasons = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Some(Verdict { status, reason, message: _ }) => reasons.insert(key, Said { status: *status, reason }),
            None => reasons.remove(&key),
        };
    }

    /// Forgets all that are not there any more.
    pub fn retain(&self, there: impl Fn(&Key) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| there(key));
    }

    pub(super) fn of(&self, model_serving: &ModelServing) -> Option<Said> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key(model_serving)).copied()
    }
}
