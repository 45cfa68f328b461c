//! Results of the signal probe, kept for the next reconcile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kthena_keda_core::{
    domain::Key,
    observed::{Measurements, ProbeResults, SelectorMismatch, WaitingPods},
};
use parking_lot::RwLock;
use tokio::{sync::SetOnce, time::timeout};

/// The models whose selector does not match their ServingGroups.
pub type SelectorMismatches = BTreeMap<Key, SelectorMismatch>;

/// The models whose ServingGroups do not become ready, with the cause.
pub type WaitingModels = BTreeMap<Key, WaitingPods>;

/// Results of the last signal probe.
#[derive(Debug, Default)]
pub struct ProbeCache {
    /// Set at the end of the first probe, or of the wait for it.
    first: SetOnce<()>,
    results: RwLock<Arc<ProbeResults>>,
    mismatches: RwLock<SelectorMismatches>,
    waiting: RwLock<WaitingModels>,
    measured: RwLock<BTreeMap<Key, Measurements>>,
}

impl ProbeCache {
    /// Waits for the first probe, but not for longer than `most`.
    pub async fn wait_for_first(&self, most: Duration) {
        if timeout(most, self.first.wait()).await.is_err() {
            self.end_wait();
        }
    }

    /// Ends the wait for the first probe. Returns `true` if it had not ended before.
    pub fn end_wait(&self) -> bool {
        self.first.set(()).is_ok()
    }

    /// The last results of all targets.
    pub fn last(&self) -> Arc<ProbeResults> {
        self.results.read().clone()
    }

    /// The mismatch of a model's selector, if it has one.
    pub fn mismatch(&self, key: &Key) -> Option<SelectorMismatch> {
        self.mismatches.read().get(key).copied()
    }

    /// Records the mismatches of all models. Returns `true` if they differ from the last ones.
    pub fn record_mismatches(&self, mismatches: SelectorMismatches) -> bool {
        let mut last = self.mismatches.write();
        let has_changed = *last != mismatches;
        *last = mismatches;
        has_changed
    }

    /// The models whose ServingGroups do not become ready.
    pub fn waiting(&self) -> WaitingModels {
        self.waiting.read().clone()
    }

    /// The cause for which ServingGroups of a model do not become ready, as last found.
    pub fn waiting_of(&self, key: &Key) -> Option<WaitingPods> {
        self.waiting.read().get(key).cloned()
    }

    /// Records the models whose ServingGroups do not become ready. Returns `true` if they differ from the last ones.
    pub fn record_waiting(&self, waiting: WaitingModels) -> bool {
        let mut last = self.waiting.write();
        let has_changed = *last != waiting;
        *last = waiting;
        has_changed
    }

    /// Measurements in the history of a model, as last taken.
    pub fn measured(&self, key: &Key) -> Measurements {
        self.measured.read().get(key).cloned().unwrap_or_default()
    }

    /// Records the measurements of a model. Returns `true` if they differ from the last ones.
    pub fn record_measured(&self, key: &Key, measured: Measurements) -> bool {
        let mut all = self.measured.write();
        let last = all.entry(key.clone()).or_default();
        let has_changed = *last != measured;
        *last = measured;
        has_changed
    }

    /// Drops the measurements of models for which `is_measured` is `false`.
    pub fn retain_measured(&self, is_measured: impl Fn(&Key) -> bool) {
        self.measured.write().retain(|key, _| is_measured(key));
    }

    /// Records the results of all targets. Returns `true` if they differ from the last ones.
    pub fn record(&self, results: ProbeResults) -> bool {
        let mut last = self.results.write();
        let has_changed = **last != results;
        if has_changed {
            *last = Arc::new(results);
        }
        has_changed
    }
}
