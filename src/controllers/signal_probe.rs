//! The signal probe: the same few Prometheus queries for all models, and the pods behind selectors, at a slow pace and after changes.
//!
//! No reconcile waits for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Context, lagging_models::LaggingModels, model_serving::RouterReceiver};
use crate::{
    prometheus::Querier,
    runtime::backoff,
    sources::{SelectorMismatches, selector_mismatch},
    telemetry::unix_time,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    intent::{Profile, PrometheusSettings},
    observed::{ProbeResult, ProbeResults, ProbeTarget, RouterScrape, Sample, SelectorMismatch},
    signals,
};

/// Queries in flight at a time.
const CONCURRENCY: usize = 4;
/// Time for which changes are collected: they come in bursts, and their effect needs a moment to be scraped.
const COLLECT: Duration = Duration::from_secs(3);
/// Probes in a row in which a selector must mismatch before it is reported: ServingGroups come and go.
const MISMATCHES_TO_REPORT: u32 = 5;

/// Runs for the life of the process: probes after each `period` and whenever `wake` is notified, and calls `changed` if a result differs.
pub async fn run(
    context: Context,
    router: RouterReceiver,
    prometheus: Querier,
    period: Duration,
    wake: &Notify,
    changed: impl Fn(),
) {
    context.caches.model_digests.wait_synced().await;
    let mut mismatches = MismatchCounts::default();
    let mut lagging = LaggingModels::default();
    loop {
        let results = probe(&prometheus, targets(&context, &router)).await;
        report(&context, &results);
        let has_new_results = context.caches.probe_cache.record(results);
        let lasting = mismatches.count(mismatching(&context).await);
        let waiting = lagging.check(&context).await;
        let has_new_waiting = context.caches.probe_cache.record_waiting(waiting);
        if context.caches.probe_cache.record_mismatches(lasting) || has_new_results || has_new_waiting {
            changed();
        }
        // A notification and the end of the period both lead to the next probe.
        let _ = timeout(backoff::jitter(period), wake.notified()).await;
        sleep(COLLECT).await;
    }
}

fn report(context: &Context, results: &ProbeResults) {
    let failures: Vec<&String> = results.values().filter_map(|result| result.as_ref().err()).collect();
    context.metrics.probed(results.len() - failures.len(), failures.len(), unix_time());
    if let Some(error) = failures.first() {
        tracing::debug!(error, "a signal probe failed");
    }
}

/// Every router at every Prometheus that an opted-in model uses.
fn targets(context: &Context, router: &RouterReceiver) -> HashSet<ProbeTarget> {
    let Some(router) = router.borrow().clone() else { return HashSet::new() };
    let profiles = context.caches.profiles_in_use(&context.settings.defaults);
    let target = |profile: Profile| {
        let router = router.series.with_overrides(&profile.router);
        profile.prometheus.map(|prometheus| ProbeTarget { prometheus, router })
    };
    profiles.into_iter().filter_map(target).collect()
}

/// Probes every target, with one query at a time for each. Engines are queried once for each Prometheus.
pub async fn probe(prometheus: &Querier, targets: impl IntoIterator<Item = ProbeTarget>) -> ProbeResults {
    let targets: HashSet<ProbeTarget> = targets.into_iter().collect();
    let engines = &probe_engines(prometheus, &targets).await;
    stream::iter(targets)
        .map(async |target| {
            let result = match engines.get(&target.prometheus) {
                Some(Ok(engines)) => probe_router(prometheus, &target, engines.clone()).await,
                Some(Err(error)) => Err(error.clone()),
                None => Err("not queried".to_owned()),
            };
            (target, result.map(Arc::new))
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn probe_engines(
    prometheus: &Querier,
    targets: &HashSet<ProbeTarget>,
) -> HashMap<PrometheusSettings, Result<Vec<Sample>, String>> {
    let addresses: HashSet<PrometheusSettings> =
        targets.iter().map(|target| target.prometheus.clone()).collect();
    stream::iter(addresses)
        .map(async |settings| {
            let samples = prometheus.query(&settings, &signals::engine_targets()).await;
            (settings, samples)
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn probe_router(
    prometheus: &Querier,
    target: &ProbeTarget,
    engines: Vec<Sample>,
) -> Result<ProbeResult, String> {
    let settings = &target.prometheus;
    let scrape = router_scrape(prometheus, target).await?;
    let names = prometheus.query(settings, &signals::model_names(&target.router)).await?;
    // Series of other namespaces only lead to a warning, and others may make too many of them.
    let elsewhere = prometheus.query(settings, &signals::requests_elsewhere(&target.router)).await;
    Ok(ProbeResult::read(scrape, names, elsewhere.unwrap_or_default(), engines))
}

async fn router_scrape(prometheus: &Querier, target: &ProbeTarget) -> Result<RouterScrape, String> {
    let presence = prometheus.query(&target.prometheus, &signals::router_presence(&target.router)).await?;
    if !presence.is_empty() {
        return Ok(RouterScrape::Succeeds);
    }
    let Some(targets) = signals::router_targets(&target.router) else { return Ok(RouterScrape::NoTarget) };
    let targets = prometheus.query(&target.prometheus, &targets).await?;
    Ok(if targets.is_empty() { RouterScrape::NoTarget } else { RouterScrape::Fails })
}

/// The models with a `Value` metric whose selector mismatches now, with one request for each. No other model depends on its pods.
async fn mismatching(context: &Context) -> SelectorMismatches {
    stream::iter(context.caches.models_with_value_metric())
        .map(async |model| Some((key(&*model), mismatch(context, &model).await?)))
        .buffer_unordered(CONCURRENCY)
        .filter_map(std::future::ready)
        .collect()
        .await
}

async fn mismatch(context: &Context, model: &ModelServing) -> Option<SelectorMismatch> {
    selector_mismatch(&context.client, model).await.unwrap_or_else(|error| {
        let (namespace, name) = (model.metadata.namespace.as_deref(), model.name());
        tracing::debug!(namespace, name, error = &error as &dyn std::error::Error, "cannot count pods");
        None
    })
}

/// Mismatches in a row, by model.
#[derive(Default)]
struct MismatchCounts(BTreeMap<Key, u32>);

impl MismatchCounts {
    /// Counts one probe, and returns the mismatches that have lasted long enough to be reported.
    fn count(&mut self, mut mismatches: SelectorMismatches) -> SelectorMismatches {
        self.0.retain(|key, _| mismatches.contains_key(key));
        for key in mismatches.keys() {
            let times = self.0.entry(key.clone()).or_default();
            *times = times.saturating_add(1);
        }
        mismatches.retain(|key, _| self.0.get(key).is_some_and(|times| *times >= MISMATCHES_TO_REPORT));
        mismatches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_mismatch_only_after_five_probes_in_a_row() {
        let model = ("models".to_owned(), "chat".to_owned());
        let mismatching = SelectorMismatches::from([(model, SelectorMismatch { pods: 3, groups: 2 })]);
        let mut counts = MismatchCounts::default();
        for _ in 1..MISMATCHES_TO_REPORT {
            assert!(counts.count(mismatching.clone()).is_empty());
        }
        assert_eq!(counts.count(mismatching.clone()), mismatching);
        assert!(counts.count(SelectorMismatches::new()).is_empty());
        assert!(counts.count(mismatching).is_empty(), "the count starts again");
    }
}
