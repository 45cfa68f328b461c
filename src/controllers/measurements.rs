//! Measurements: the slow look at the history of each model with a service time or a latency signal.
//!
//! A few models at a time; no reconcile waits for it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{Context, model_serving::RouterReceiver};
use crate::{
    prometheus::Querier,
    runtime::{backoff, round_robin::longest_waiting},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, PrometheusUrl, ServiceTime, key, rounded_up_millis},
    intent::PrometheusSettings,
    observed::Measurements,
    plan::{Triggers, plan},
    promql::Expr,
};

/// Models of one round, those that were not looked at for the longest time first, with namespaces in turn. Those of a usual fleet are looked
/// at before a condition that was written before a restart may change.
const MODELS: usize = 100;
/// Models that are looked at at a time: a slow Prometheus delays those of another one less.
const CONCURRENCY: usize = 4;
/// Time between two looks at a model whose time is known.
const REFRESH: Duration = Duration::from_hours(24);
/// Time between two looks at a model whose time is not known yet.
const RETRY: Duration = Duration::from_hours(1);
/// Time until the next look at a model that was skipped: its Prometheus may have been slow for another model only.
const RETRY_SKIPPED: Duration = Duration::from_mins(5);
/// Time after which a failed look delays other models.
const SLOW: Duration = Duration::from_secs(1);

/// Runs for the life of the process: looks at the models that are due in each `period`, and calls `changed` with each model whose result differs from the last one.
pub async fn run(
    context: Context,
    router: RouterReceiver,
    prometheus: Querier,
    period: Duration,
    changed: impl Fn(Key),
) {
    context.caches.model_digests.wait_synced().await;
    let mut schedule = Schedule::default();
    loop {
        sleep(backoff::jitter(period)).await;
        let due = schedule.due(context.caches.models_to_measure(), Instant::now());
        context.caches.probe_cache.retain_measured(|key| schedule.0.contains_key(key));
        let slow = Mutex::default();
        let mut looks = stream::iter(due)
            .map(async |model| (key(&*model), look(&context, &router, &prometheus, &slow, &model).await))
            .buffer_unordered(CONCURRENCY);
        while let Some((key, outcome)) = looks.next().await {
            match outcome {
                Outcome::Measured(measured) => {
                    schedule.record(&key, &measured, Instant::now());
                    if context.caches.probe_cache.record_measured(&key, measured) {
                        changed(key);
                    }
                }
                Outcome::Skipped => schedule.postpone(&key, RETRY_SKIPPED),
                Outcome::Unknown => {}
            }
        }
    }
}

/// Outcome of a look at one model.
enum Outcome {
    Measured(Measurements),
    /// Its Prometheus fails slowly, so that the look would delay the models of others.
    Skipped,
    /// It has no complete plan now, or its Prometheus does not answer.
    Unknown,
}

/// Addresses of the Prometheus that failed slowly in this round.
type SlowAddresses = Mutex<HashSet<PrometheusUrl>>;

/// Looks at one model, unless its Prometheus is in `slow`.
async fn look(
    context: &Context,
    router: &RouterReceiver,
    prometheus: &Querier,
    slow: &SlowAddresses,
    model: &ModelServing,
) -> Outcome {
    let Some((settings, triggers)) = queries(context, router, model) else { return Outcome::Unknown };
    if slow.lock().contains(&settings.url) {
        return Outcome::Skipped;
    }
    let begun = Instant::now();
    match measure(prometheus, &settings, &triggers).await {
        Ok(measured) => Outcome::Measured(measured),
        Err(error) => {
            let (namespace, name) = (model.metadata.namespace.as_deref(), model.name());
            tracing::debug!(namespace, name, error, "cannot read the history");
            // A quick failure, such as a rejected query, delays no other model and may be that of one query alone.
            if begun.elapsed() >= SLOW {
                slow.lock().insert(settings.url);
            }
            Outcome::Unknown
        }
    }
}

/// The queries of one model and the Prometheus that they go to; `None` if it has no complete plan now, or no Prometheus that the
/// operator can query.
fn queries(
    context: &Context,
    router: &RouterReceiver,
    model: &ModelServing,
) -> Option<(PrometheusSettings, Triggers)> {
    let served = context.served.borrow().clone()?;
    let router = router.borrow().clone()?;
    let observed = context.caches.observe(model, &served, router);
    let plan = plan(&observed, served.capabilities, &context.settings.defaults);
    let resolved = plan.explanation?.resolved?;
    let settings = resolved.intent.profile.prometheus.filter(|prometheus| prometheus.aws_region.is_none())?;
    Some((settings, resolved.triggers))
}

/// Queries the history of one model, with five queries at most.
///
/// # Errors
/// A text for users with the reason for which there is no answer.
pub async fn measure(
    prometheus: &Querier,
    settings: &PrometheusSettings,
    triggers: &Triggers,
) -> Result<Measurements, String> {
    let mut measured = Measurements::default();
    if let Some(history) = &triggers.history {
        for query in history.by_engines.iter().chain([&history.by_router]) {
            if measured.service_time.is_none() {
                let seconds = single(prometheus, settings, query).await?;
                measured.service_time = seconds.and_then(ServiceTime::from_measured);
            }
        }
        measured.has_standing_queue = single(prometheus, settings, &history.standing_queue).await?.is_some();
    }
    for signal in &triggers.latencies {
        let seconds = single(prometheus, settings, &signal.lowest).await?;
        let latency = signal.objective.latency();
        measured.idle_latencies.extend(seconds.and_then(rounded_up_millis).map(|millis| (latency, millis)));
    }
    Ok(measured)
}

async fn single(
    prometheus: &Querier,
    settings: &PrometheusSettings,
    query: &Expr,
) -> Result<Option<f64>, String> {
    Ok(prometheus.query(settings, query).await?.first().map(|sample| sample.value))
}

/// Last look at each model; `None` before the first.
#[derive(Default)]
struct Schedule(BTreeMap<Key, Look>);

#[derive(Default)]
struct Look {
    begun: Option<Instant>,
    /// Time until the next one.
    interval: Duration,
}

impl Look {
    fn is_due(&self, now: Instant) -> bool {
        self.begun.is_none_or(|begun| now.duration_since(begun) >= self.interval)
    }
}

impl Schedule {
    /// Follows these models, and returns those to look at now.
    fn due(&mut self, models: Vec<Arc<ModelServing>>, now: Instant) -> Vec<Arc<ModelServing>> {
        let keys: HashSet<Key> = models.iter().map(|model| key(&**model)).collect();
        self.0.retain(|key, _| keys.contains(key));
        let mut due = Vec::new();
        for model in models {
            let look = self.0.entry(key(&*model)).or_default();
            if look.is_due(now) {
                due.push((look.begun, model));
            }
        }
        let due = longest_waiting(due, |model| key(&**model).0, MODELS);
        for model in &due {
            // One that cannot be measured is not looked at in each round.
            self.0.insert(key(&**model), Look { begun: Some(now), interval: RETRY });
        }
        due
    }

    fn record(&mut self, key: &Key, measured: &Measurements, now: Instant) {
        let interval = if measured.service_time.is_some() { REFRESH } else { RETRY };
        if let Some(look) = self.0.get_mut(key) {
            *look = Look { begun: Some(now), interval };
        }
    }

    /// Looks at a model again after this time, and not after [`RETRY`].
    fn postpone(&mut self, key: &Key, interval: Duration) {
        if let Some(look) = self.0.get_mut(key) {
            look.interval = interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn models(count: usize) -> Vec<Arc<ModelServing>> {
        let model = |i| {
            let object = json!({"metadata": {"name": format!("m{i}"), "namespace": "models"}});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        (0..count).map(model).collect()
    }

    const ROUND: Duration = Duration::from_mins(1);

    /// Looks in one day at models whose time is known, or is not.
    fn looks(count: usize, time: Option<ServiceTime>) -> (usize, usize) {
        let (models, mut schedule, start) = (models(count), Schedule::default(), Instant::now());
        let mut looks = BTreeMap::<Key, usize>::new();
        for round in 0..24 * 60 {
            let now = start + round * ROUND;
            for model in schedule.due(models.clone(), now) {
                let key = key(&*model);
                *looks.entry(key.clone()).or_default() += 1;
                schedule.record(&key, &Measurements { service_time: time, ..Measurements::default() }, now);
            }
        }
        (looks.values().min().copied().unwrap_or_default(), looks.values().sum())
    }

    /// Each look is three queries at most, and one more for each latency signal.
    #[rstest]
    #[case::known(10, Some("5s"), (1, 10))]
    #[case::not_known(10, None, (24, 240))]
    #[case::many_known(1000, Some("5s"), (1, 1000))]
    #[case::many_not_known(1000, None, (24, 24_000))]
    fn looks_at_a_bounded_number_of_models_a_day(
        #[case] count: usize,
        #[case] time: Option<&str>,
        #[case] expected: (usize, usize),
    ) {
        assert_eq!(looks(count, time.map(|time| time.parse().unwrap())), expected);
    }

    #[test]
    fn looks_at_those_that_wait_for_the_longest_time_first() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let first = schedule.due(models(MODELS + 1), now);
        assert_eq!(first.len(), MODELS);
        let then = schedule.due(models(MODELS + 1), now + RETRY);
        assert!(!first.iter().any(|seen| key(&**seen) == key(&*then[0])), "the last one waited");
    }

    #[test]
    fn looks_again_soon_at_a_model_that_was_skipped() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let first = schedule.due(models(2), now);
        schedule.postpone(&key(&*first[0]), RETRY_SKIPPED);
        assert_eq!(schedule.due(models(2), now + RETRY_SKIPPED / 2).len(), 0);
        assert_eq!(schedule.due(models(2), now + RETRY_SKIPPED).len(), 1);
    }

    #[test]
    fn forgets_models_that_no_longer_have_a_service_time() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        assert_eq!(schedule.due(models(2), now).len(), 2);
        assert_eq!(schedule.due(models(1), now).len(), 0);
        assert_eq!(schedule.due(models(2), now).len(), 1, "it is looked at at once");
    }
}
