//! Numbers of ServingGroups that models in shadow would hold, for the next reconcile and for metrics.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use parking_lot::RwLock;

use kthena_keda_core::{
    domain::Key,
    observed::{ShadowRange, ShadowState},
};

/// State of every model in shadow that this process has looked at.
#[derive(Debug, Default)]
pub struct ShadowCache(RwLock<BTreeMap<Key, Shadowed>>);

#[derive(Clone, Copy, Debug)]
struct Shadowed {
    state: ShadowState,
    /// Number that the model would hold now; `None` if it is not observed.
    replicas: Option<i32>,
}

impl ShadowCache {
    /// State of a model; `None` before the first look.
    pub fn state(&self, key: &Key) -> Option<ShadowState> {
        self.0.read().get(key).map(|found| found.state)
    }

    /// Number that each observed model would hold now.
    pub fn replicas(&self) -> Vec<(Key, i32)> {
        let numbers = self.0.read();
        numbers.iter().filter_map(|(key, found)| Some((key.clone(), found.replicas?))).collect()
    }

    /// Records the number that a model would hold now. `reported` is the state that its condition shows, which continues
    /// in this process. Returns `true` if the range differs from that of the last call.
    pub fn record(&self, key: &Key, replicas: i32, now: Timestamp, reported: Option<ShadowState>) -> bool {
        let before = self.state(key);
        let range = match before.or(reported) {
            Some(ShadowState::Observed(range)) => range.with(replicas),
            _ => ShadowRange::of(replicas, now),
        };
        let state = ShadowState::Observed(range);
        self.0.write().insert(key.clone(), Shadowed { state, replicas: Some(replicas) });
        before != Some(state)
    }

    /// Records a model that is not observed, since this many older ones are. Returns `true` if that is new.
    pub fn record_beyond(&self, key: &Key, limit: usize) -> bool {
        let state = ShadowState::BeyondLimit(limit);
        let before = self.0.write().insert(key.clone(), Shadowed { state, replicas: None });
        before.map(|before| before.state) != Some(state)
    }

    /// Drops the models for which `is_in_shadow` is `false`.
    pub fn retain(&self, is_in_shadow: impl Fn(&Key) -> bool) {
        self.0.write().retain(|key, _| is_in_shadow(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("models".to_owned(), "chat".to_owned())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn records_the_range_since_the_beginning() {
        let cache = ShadowCache::default();
        assert!(cache.record(&key(), 3, at(100), None));
        assert!(!cache.record(&key(), 3, at(115), None));
        assert!(cache.record(&key(), 5, at(130), None));
        assert!(!cache.record(&key(), 4, at(145), None));
        let range = ShadowRange::of(3, at(100)).with(5);
        assert_eq!(cache.state(&key()), Some(ShadowState::Observed(range)));
        assert_eq!(cache.replicas(), [(key(), 4)]);
    }

    /// The condition is not rewritten after a restart.
    #[test]
    fn continues_the_range_of_the_condition() {
        let (cache, reported) = (ShadowCache::default(), ShadowRange::of(2, at(50)).with(9));
        cache.record(&key(), 3, at(100), Some(ShadowState::Observed(reported)));
        assert_eq!(cache.state(&key()), Some(ShadowState::Observed(reported)));
    }

    #[test]
    fn begins_anew_once_it_is_observed() {
        let cache = ShadowCache::default();
        assert!(cache.record_beyond(&key(), 50));
        assert!(!cache.record_beyond(&key(), 50));
        assert_eq!(cache.replicas(), []);
        assert!(cache.record(&key(), 3, at(100), Some(ShadowState::BeyondLimit(50))));
        assert_eq!(cache.state(&key()), Some(ShadowState::Observed(ShadowRange::of(3, at(100)))));
        cache.retain(|_| false);
        assert_eq!(cache.state(&key()), None);
    }
}
