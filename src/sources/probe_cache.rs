//! Results of the signal probe, kept for the next reconcile.

use std::{collections::HashMap, sync::Arc};

use kthena_keda_core::{
    domain::Key,
    observed::{ProbeResults, SelectorMismatch},
};
use parking_lot::RwLock;

/// The models whose selector does not match their ServingGroups.
pub type SelectorMismatches = HashMap<Key, SelectorMismatch>;

/// Keeps what the slow checks showed last.
#[derive(Debug, Default)]
pub struct ProbeCache {
    results: RwLock<Arc<ProbeResults>>,
    mismatches: RwLock<SelectorMismatches>,
}

impl ProbeCache {
    /// What was seen last.
    pub fn last(&self) -> Arc<ProbeResults> {
        self.results.read().clone()
    }

    /// How a model's selector fails to match its ServingGroups, if it does.
    pub fn mismatch(&self, key: &Key) -> Option<SelectorMismatch> {
        self.mismatches.read().get(key).copied()
    }

    /// Takes the models of which that is known now; answers whether that is news.
    pub fn take_mismatches(&self, mismatches: SelectorMismatches) -> bool {
        let mut last = self.mismatches.write();
        let is_news = *last != mismatches;
        *last = mismatches;
        is_news
    }

    /// Takes what is seen now; answers whether that is news.
    pub fn take(&self, results: ProbeResults) -> bool {
        let mut last = self.results.write();
        let is_news = **last != results;
        if is_news {
            *last = Arc::new(results);
        }
        is_news
    }
}
