//! Loading times: from a rise of `spec.replicas` until as many ServingGroups are available.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::ResourceExt as _;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use kthena_keda_core::api::kthena::ModelServing;

/// Upper bounds of the buckets, in seconds: small models load in seconds, large ones for half an hour.
const BUCKETS: [f64; 10] = [5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0];

/// ServingGroups of one model whose loading is followed at a time: anyone who may edit it can request any number.
const FOLLOWED: usize = 64;

/// Loading times of each model, by uid. A restart forgets them, and the ServingGroups that load at that time.
#[derive(Debug, Default)]
pub struct LoadingTimes(Mutex<HashMap<String, Loading>>);

#[derive(Debug)]
struct Loading {
    /// `spec.replicas` as last seen.
    requested: i32,
    /// Number of available ServingGroups that each awaited one completes, and the time of its request.
    awaited: Vec<(i32, Instant)>,
    /// Loading times in seconds; `None` before the first.
    times: Option<Histogram>,
}

impl LoadingTimes {
    /// Records the loading time of each ServingGroup of a model that became available since the last call.
    pub fn record(&self, model_serving: &ModelServing) {
        let Some(uid) = model_serving.uid() else { return };
        if !model_serving.is_opted_in() {
            return self.forget(&uid);
        }
        // Kthena leaves a number of 0 out of the status.
        let available = model_serving.status.available_replicas.unwrap_or_default();
        let requested = model_serving.replicas();
        // Those that are missing at the first call were requested at an unknown time.
        let new = || Loading { requested, awaited: Vec::new(), times: None };
        let mut models = self.0.lock();
        let loading = models.entry(uid).or_insert_with(new);
        for time in loading.follow(requested, available, Instant::now()) {
            loading.times.get_or_insert_with(|| Histogram::new(BUCKETS)).observe(time.as_secs_f64());
        }
    }

    /// Loading times of a model in seconds; `None` if none was recorded.
    pub fn of(&self, model_serving: &ModelServing) -> Option<Histogram> {
        self.0.lock().get(&model_serving.uid()?)?.times.clone()
    }

    /// Drops those of one model.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Drops those of every model with another uid.
    pub fn retain_listed(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}

impl Loading {
    /// Follows the numbers of the model. Returns the loading time of each ServingGroup that became available.
    fn follow(&mut self, requested: i32, available: i32, now: Instant) -> Vec<Duration> {
        let room = FOLLOWED.saturating_sub(self.awaited.len());
        // One that is available already, such as a ServingGroup that is being removed, does not load.
        let risen = (self.requested.max(available)..requested).map(|below| below + 1);
        self.awaited.extend(risen.take(room).map(|number| (number, now)));
        self.requested = requested;
        self.awaited.retain(|(number, _)| *number <= requested);
        let complete = self.awaited.extract_if(.., |(number, _)| *number <= available);
        complete.map(|(_, since)| now.duration_since(since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// Each step: seconds since the start, requested, available, and the seconds that are recorded.
    #[rstest]
    #[case::one_after_the_other(vec![(0, 3, 1, vec![]), (60, 3, 2, vec![60]), (90, 3, 3, vec![90])])]
    #[case::two_rises(vec![(0, 2, 1, vec![]), (30, 4, 1, vec![]), (60, 4, 2, vec![60]), (90, 4, 4, vec![60, 60])])]
    #[case::cancelled(vec![(0, 3, 1, vec![]), (30, 1, 1, vec![]), (60, 3, 1, vec![]), (70, 3, 3, vec![10, 10])])]
    #[case::crash(vec![(0, 1, 0, vec![]), (60, 1, 1, vec![])])]
    #[case::still_available(vec![(0, 0, 1, vec![]), (10, 1, 1, vec![]), (20, 1, 1, vec![])])]
    #[case::the_greatest_number(vec![(0, i32::MAX, i32::MAX, vec![]), (10, i32::MAX, i32::MAX, vec![])])]
    #[case::nothing_changes(vec![(0, 1, 1, vec![]), (10, 1, 1, vec![])])]
    fn measures_from_the_request(#[case] steps: Vec<(u64, i32, i32, Vec<u64>)>) {
        let start = Instant::now();
        let mut loading = Loading { requested: 1, awaited: Vec::new(), times: None };
        for (at, requested, available, expected) in steps {
            let found = loading.follow(requested, available, start + Duration::from_secs(at));
            let found: Vec<u64> = found.iter().map(Duration::as_secs).collect();
            assert_eq!(found, expected, "after {at} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn measures_the_start_of_a_model_that_wakes() {
        let model = |requested: i32, status: serde_json::Value| -> ModelServing {
            let metadata =
                json!({"name": "chat", "uid": "u", "annotations": {"kthena.io/model-name": "llama"}});
            let object = json!({"metadata": metadata, "spec": {"replicas": requested}, "status": status});
            serde_json::from_value(object).unwrap()
        };
        let times = LoadingTimes::default();
        times.record(&model(1, json!({"replicas": 1, "availableReplicas": 1})));
        times.record(&model(0, json!({})));
        times.record(&model(1, json!({})));
        tokio::time::advance(Duration::from_mins(1)).await;
        let awake = model(1, json!({"replicas": 1, "availableReplicas": 1}));
        times.record(&awake);
        assert!(times.of(&awake).is_some());
    }

    #[test]
    fn follows_a_bounded_number() {
        let mut loading = Loading { requested: 1, awaited: Vec::new(), times: None };
        loading.follow(i32::MAX, 1, Instant::now());
        assert_eq!(loading.awaited.len(), FOLLOWED);
    }
}
