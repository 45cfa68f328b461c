//! The slow checks: the same few questions to Prometheus for all models, and whether selectors match, at a slow pace and after changes,
//! never in the way of reconciling.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Context, model_serving::Routers};
use crate::{
    prometheus::Querier,
    runtime::backoff,
    sources::{SelectorMismatches, selector_mismatch},
    telemetry::unix_time,
};
use kthena_keda_core::{
    domain::Key,
    intent::{Profile, PrometheusSettings},
    observed::{ProbeResult, ProbeResults, ProbeTarget, Sample},
    signals,
};

/// How many questions are under way at a time.
const CONCURRENCY: usize = 4;
/// Changes come in crowds: they are looked at together, and what they lead to needs a moment to be scraped.
const GATHER: Duration = Duration::from_secs(3);

/// Runs for life: asks after each `period` or once `wake` is notified, and calls `changed` when anything is to be seen that was not.
pub async fn run(
    context: Context,
    routers: Routers,
    prometheus: Querier,
    period: Duration,
    wake: &Notify,
    changed: impl Fn(),
) {
    context.caches.model_digests.wait_synced().await;
    let mut selectors = Selectors::default();
    loop {
        let sources = sources(&context, &routers);
        let sights = look(&prometheus, sources).await;
        let failed = sights.values().filter(|sight| sight.is_err()).count();
        context.metrics.probed(sights.len() - failed, failed, unix_time());
        if let Some(error) = sights.values().find_map(|sight| sight.as_ref().err()) {
            tracing::debug!(error, "a check of the signals could not run");
        }
        let seen = context.caches.probe_cache.take(sights);
        let counted = context.caches.probe_cache.take_mismatches(selectors.look(&context).await);
        if seen || counted {
            changed();
        }
        let _ = timeout(backoff::jitter(period), wake.notified()).await;
        sleep(GATHER).await;
    }
}

/// In how many checks in a row a selector must be wrong: ServingGroups come and go.
const PATIENCE: u32 = 5;

/// Selectors that were wrong at the last checks, and how often in a row.
#[derive(Default)]
struct Selectors(HashMap<Key, u32>);

impl Selectors {
    /// One request for each model that is scaled by a level; all others do not depend on the number of pods.
    async fn look(&mut self, context: &Context) -> SelectorMismatches {
        let models = context.caches.models_with_value_metric();
        let counted = stream::iter(models).map(async |model| {
            let key = (model.namespace().unwrap_or_default(), model.name_any());
            let counted = selector_mismatch(&context.client, &model).await;
            counted
                .inspect_err(|error| {
                    tracing::debug!(?key, error = error as &dyn std::error::Error, "cannot count pods")
                })
                .ok()
                .flatten()
                .map(|found| (key, found))
        });
        let wrong: SelectorMismatches =
            counted.buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await;
        self.0.retain(|key, _| wrong.contains_key(key));
        let mut lasting = SelectorMismatches::new();
        for (key, found) in wrong {
            let times = self.0.entry(key.clone()).or_default();
            *times = times.saturating_add(1);
            if *times >= PATIENCE {
                lasting.insert(key, found);
            }
        }
        lasting
    }
}

/// Every router at every Prometheus that a model is scaled by.
fn sources(context: &Context, routers: &Routers) -> HashSet<ProbeTarget> {
    let Some(found) = routers.borrow().clone() else { return HashSet::new() };
    let profiles = context.caches.profiles_in_use(&context.settings.defaults);
    let source = |profile: Profile| {
        let router = found.with_overrides(&profile.router);
        profile.prometheus.map(|prometheus| ProbeTarget { prometheus, router })
    };
    profiles.into_iter().filter_map(source).collect()
}

/// Asks about every source, one question after another for each of them. The engines are asked about once for each Prometheus, and each router once.
pub async fn look(prometheus: &Querier, sources: impl IntoIterator<Item = ProbeTarget>) -> ProbeResults {
    let sources: HashSet<ProbeTarget> = sources.into_iter().collect();
    let addresses: HashSet<PrometheusSettings> =
        sources.iter().map(|source| source.prometheus.clone()).collect();
    let engines: HashMap<PrometheusSettings, Result<Vec<Sample>, String>> = stream::iter(addresses)
        .map(async |settings| {
            let answer = prometheus.query(&settings, &signals::engines()).await;
            (settings, answer)
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let engines = &engines;
    stream::iter(sources)
        .map(async |source| {
            let sight = match engines.get(&source.prometheus) {
                Some(Ok(engines)) => look_at(prometheus, &source, engines.clone()).await,
                Some(Err(error)) => Err(error.clone()),
                None => Err("it was not asked".to_owned()),
            };
            (source, sight.map(Arc::new))
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn look_at(
    prometheus: &Querier,
    source: &ProbeTarget,
    engines: Vec<Sample>,
) -> Result<ProbeResult, String> {
    let presence = prometheus.query(&source.prometheus, &signals::router_presence(&source.router)).await?;
    let names = prometheus.query(&source.prometheus, &signals::model_names(&source.router)).await?;
    Ok(ProbeResult::read(&presence, names, engines))
}
