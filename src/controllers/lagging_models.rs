//! The slow check of models whose ServingGroups do not become ready: a few models at a time, one list of pods each.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Context;
use crate::{
    runtime::round_robin::longest_waiting,
    sources::{WaitingModels, waiting_pods},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    observed::WaitingPods,
};

/// Time for which ServingGroups must lag behind before the pods are listed: most are ready by then.
const LAG: Duration = Duration::from_mins(2);
/// Time for which they must lag behind before that is reported although no pod waits: engines load for long.
const LONG_LAG: Duration = Duration::from_mins(15);
/// Least time between two lists for one model.
const INTERVAL: Duration = Duration::from_mins(1);
/// Models whose pods are listed in one check, those that were not checked for the longest time first, with namespaces in turn.
const MODELS: usize = 20;

/// The models that lag behind, and what their last checks found.
#[derive(Default)]
pub(super) struct LaggingModels(BTreeMap<Key, Lag>);

struct Lag {
    since: Instant,
    /// Last attempt, successful or not.
    tried: Option<Instant>,
    is_checked: bool,
    found: Option<WaitingPods>,
}

impl LaggingModels {
    /// Checks the models that are due, and returns those whose ServingGroups do not become ready.
    pub(super) async fn check(&mut self, context: &Context) -> WaitingModels {
        let now = Instant::now();
        let due = self.due(context.caches.lagging_models(), now);
        // One after the other, since each list can be large.
        for model in due {
            match waiting_pods(&context.client, &model).await {
                Ok(found) => self.record(&key(&*model), found, now),
                Err(error) => {
                    let (namespace, name) = (model.metadata.namespace.as_deref(), model.name());
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(namespace, name, error, "cannot list pods");
                    self.postpone(&key(&*model), now);
                }
            }
        }
        self.waiting(now)
    }

    /// Follows the models that lag behind now, and returns those to check.
    fn due(&mut self, lagging: Vec<Arc<ModelServing>>, now: Instant) -> Vec<Arc<ModelServing>> {
        let mut before = mem::take(&mut self.0);
        let mut due = Vec::new();
        for model in lagging {
            let key = key(&*model);
            let new = || Lag { since: now, tried: None, is_checked: false, found: None };
            let lag = before.remove(&key).unwrap_or_else(new);
            let is_due = lag.tried.is_none_or(|tried| now.duration_since(tried) >= INTERVAL);
            if now.duration_since(lag.since) >= LAG && is_due {
                due.push((lag.tried, model));
            }
            self.0.insert(key, lag);
        }
        longest_waiting(due, |model| key(&**model).0, MODELS)
    }

    fn record(&mut self, key: &Key, found: Option<WaitingPods>, now: Instant) {
        if let Some(lag) = self.0.get_mut(key) {
            (lag.tried, lag.is_checked, lag.found) = (Some(now), true, found);
        }
    }

    /// Records that the pods could not be listed: what is known of them stays.
    fn postpone(&mut self, key: &Key, now: Instant) {
        if let Some(lag) = self.0.get_mut(key) {
            lag.tried = Some(now);
        }
    }

    fn waiting(&self, now: Instant) -> WaitingModels {
        let causes = self.0.iter().filter_map(|(key, lag)| Some((key.clone(), lag.cause(now)?)));
        causes.collect()
    }
}

impl Lag {
    fn cause(&self, now: Instant) -> Option<WaitingPods> {
        let is_long = self.is_checked && now.duration_since(self.since) >= LONG_LAG;
        let unexplained = is_long.then_some(WaitingPods::NotReady);
        self.found.clone().or(unexplained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    fn model(i: usize) -> Arc<ModelServing> {
        let metadata = json!({"name": format!("m{i}"), "namespace": "models"});
        // None is available: Kthena leaves a number of 0 out of the status.
        let object = json!({"metadata": metadata, "spec": {"replicas": 2}, "status": {"replicas": 2}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn models(count: usize) -> Vec<Arc<ModelServing>> {
        (0..count).map(model).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lists_the_pods_of_a_model_only_after_two_minutes_and_once_a_minute() {
        let (mut lagging, start) = (LaggingModels::default(), Instant::now());
        assert!(lagging.due(models(1), start).is_empty());
        assert!(lagging.due(models(1), start + LAG / 2).is_empty());
        assert_eq!(lagging.due(models(1), start + LAG).len(), 1);
        let no_scheduler = WaitingPods::NoScheduler("volcano".to_owned());
        lagging.record(&key(&*model(0)), Some(no_scheduler.clone()), start + LAG);
        assert!(lagging.due(models(1), start + LAG + INTERVAL / 2).is_empty());
        assert_eq!(lagging.waiting(start + LAG).into_values().collect::<Vec<_>>(), [no_scheduler]);
        assert_eq!(lagging.due(models(1), start + LAG + INTERVAL).len(), 1);
        // It catches up once, and lags again.
        assert!(lagging.due(Vec::new(), start + 2 * LAG).is_empty() && lagging.waiting(start).is_empty());
        assert!(lagging.due(models(1), start + 3 * LAG).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn checks_a_few_models_at_a_time_in_turn() {
        let (mut lagging, start) = (LaggingModels::default(), Instant::now());
        lagging.due(models(2 * MODELS), start);
        let mut seen = HashSet::new();
        for round in 0..2 {
            let now = start + LAG + round * INTERVAL;
            let due = lagging.due(models(2 * MODELS), now);
            assert_eq!(due.len(), MODELS);
            for model in &due {
                lagging.record(&key(&**model), None, now);
            }
            seen.extend(due.iter().map(|model| key(&**model)));
        }
        assert_eq!(seen.len(), 2 * MODELS);
    }

    /// Nobody has looked, so that no pod waits is not known.
    #[tokio::test(start_paused = true)]
    async fn a_failed_list_says_nothing_and_keeps_what_is_known() {
        let (mut lagging, start) = (LaggingModels::default(), Instant::now());
        let chat = key(&*model(0));
        lagging.due(models(1), start);
        lagging.postpone(&chat, start + LAG);
        assert!(lagging.waiting(start + LONG_LAG).is_empty());
        assert!(lagging.due(models(1), start + LAG + INTERVAL / 2).is_empty());
        let no_scheduler = WaitingPods::NoScheduler("volcano".to_owned());
        lagging.record(&chat, Some(no_scheduler.clone()), start + LONG_LAG);
        lagging.postpone(&chat, start + LONG_LAG + INTERVAL);
        assert_eq!(lagging.waiting(start + LONG_LAG + INTERVAL).get(&chat), Some(&no_scheduler));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_a_long_lag_without_a_waiting_pod() {
        let (mut lagging, start) = (LaggingModels::default(), Instant::now());
        lagging.due(models(1), start);
        lagging.record(&key(&*model(0)), None, start + LAG);
        assert!(lagging.waiting(start + LAG).is_empty());
        let found: Vec<WaitingPods> = lagging.waiting(start + LONG_LAG).into_values().collect();
        assert_eq!(found, [WaitingPods::NotReady]);
    }
}
