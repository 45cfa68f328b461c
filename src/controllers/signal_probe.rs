//! The signal probe: the same few Prometheus queries for all models, and the pods behind selectors, at a slow pace and after changes.
//!
//! No reconcile waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{Context, lagging_models::LaggingModels, model_serving::RouterReceiver};
use crate::{
    prometheus::Querier,
    runtime::{backoff, round_robin::longest_waiting},
    sources::{SelectorMismatches, selector_mismatch},
    telemetry::unix_time,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    intent::{Profile, PrometheusSettings},
    observed::{
        ProbeResult, ProbeResults, ProbeTarget, RouterSamples, RouterScrape, Sample, SelectorMismatch,
        ServerSamples,
    },
    signals::{self, RouterSeries},
};

/// Queries in flight at a time.
const CONCURRENCY: usize = 4;
/// Time for which changes are collected: they come in bursts, and their effect needs a moment to be scraped.
const COLLECT: Duration = Duration::from_secs(3);
/// Time for which a selector must mismatch before it is reported: ServingGroups come and go.
const MISMATCH_BEFORE_REPORT: Duration = Duration::from_mins(5);
/// Models whose pods are counted at a time, those that were not counted for the longest time first, with namespaces in turn.
const MODELS: usize = 100;
/// Periods of the probe that are enough, where they are shorter than a minute.
const PERIODS_BEFORE_REPORT: u32 = 5;

/// Runs for the life of the process: probes after each `period` and whenever `wake` is notified, and calls `changed` if a result differs.
pub async fn run(
    context: Context,
    mut router: RouterReceiver,
    prometheus: Querier,
    period: Duration,
    wake: &Notify,
    changed: impl Fn(),
) {
    context.caches.model_digests.wait_synced().await;
    // Probed at once when plans begin, most first conditions have the results, and need no second write for them.
    let _ = router.wait_for(Option::is_some).await;
    let least = MISMATCH_BEFORE_REPORT.min(period * PERIODS_BEFORE_REPORT);
    let mut mismatches = LastingMismatches::default();
    let mut lagging = LaggingModels::default();
    let mut counted = None::<Instant>;
    loop {
        let results = probe(&prometheus, targets(&context, &router)).await;
        report(&context, &results);
        let has_new_results = context.caches.probe_cache.record(results);
        // Each change of any tenant wakes the probe; pods are counted at its own pace.
        if counted.is_none_or(|counted| counted.elapsed() >= period / 2) {
            let due = mismatches.due(context.caches.models_with_value_metric());
            mismatches.record(counts(&context, due).await);
            counted = Some(Instant::now());
        }
        let lasting = mismatches.at_least(least);
        let waiting = lagging.check(&context).await;
        let has_new_waiting = context.caches.probe_cache.record_waiting(waiting);
        let has_new_mismatches = context.caches.probe_cache.record_mismatches(lasting);
        // Before the first reconciles nobody has used other results.
        let is_first = context.caches.probe_cache.end_wait();
        if !is_first && (has_new_mismatches || has_new_results || has_new_waiting) {
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

/// Every router at every Prometheus that an opted-in model uses and that the operator can query.
fn targets(context: &Context, router: &RouterReceiver) -> HashSet<ProbeTarget> {
    let Some(router) = router.borrow().clone() else { return HashSet::new() };
    let profiles = context.caches.profiles_in_use(&context.settings.defaults);
    let target = |profile: Profile| {
        let router = profile.router_series(&router.series);
        let prometheus = profile.prometheus.filter(|prometheus| prometheus.aws_region.is_none())?;
        Some(ProbeTarget { prometheus, router })
    };
    profiles.into_iter().filter_map(target).collect()
}

/// Probes every target, with one query at a time for each. What does not depend on the router is queried once for each Prometheus.
pub async fn probe(prometheus: &Querier, targets: impl IntoIterator<Item = ProbeTarget>) -> ProbeResults {
    let targets: HashSet<ProbeTarget> = targets.into_iter().collect();
    let servers = &probe_servers(prometheus, &targets).await;
    stream::iter(targets)
        .map(async |target| {
            let result = match servers.get(&target.prometheus) {
                Some(Ok(server)) => probe_router(prometheus, &target, server.clone()).await,
                Some(Err(error)) => Err(error.clone()),
                None => Err("not queried".to_owned()),
            };
            (target, result.map(Arc::new))
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn probe_servers(
    prometheus: &Querier,
    targets: &HashSet<ProbeTarget>,
) -> HashMap<PrometheusSettings, Result<ServerSamples, String>> {
    let addresses: HashSet<PrometheusSettings> =
        targets.iter().map(|target| target.prometheus.clone()).collect();
    stream::iter(addresses)
        .map(async |settings| {
            let samples = probe_server(prometheus, &settings).await;
            (settings, samples)
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

async fn probe_server(prometheus: &Querier, settings: &PrometheusSettings) -> Result<ServerSamples, String> {
    let matchers = &settings.matchers;
    Ok(ServerSamples {
        engine_targets: prometheus.query(settings, &signals::engine_targets(matchers)).await?,
        engine_gauges: prometheus.query(settings, &signals::engine_gauges(matchers)).await?,
        other_shards: prometheus.query(settings, &signals::other_shards()).await?,
    })
}

async fn probe_router(
    prometheus: &Querier,
    ProbeTarget { prometheus: settings, router }: &ProbeTarget,
    server: ServerSamples,
) -> Result<ProbeResult, String> {
    let asked = Instant::now();
    let presence = prometheus.query(settings, &signals::router_presence(router)).await?;
    let latency = asked.elapsed();
    let samples = RouterSamples {
        scrape: router_scrape(prometheus, settings, router, &presence).await?,
        latency,
        targets: prometheus.query(settings, &signals::router_labels(router)).await?,
        names: prometheus.query(settings, &signals::model_names(router)).await?,
        // Series of other namespaces only lead to a warning, and others may make too many of them.
        elsewhere: prometheus.query(settings, &signals::requests_elsewhere(router)).await.unwrap_or_default(),
    };
    Ok(ProbeResult::read(samples, server, settings.kedas_limit()))
}

async fn router_scrape(
    prometheus: &Querier,
    settings: &PrometheusSettings,
    router: &RouterSeries,
    presence: &[Sample],
) -> Result<RouterScrape, String> {
    if !presence.is_empty() {
        return Ok(RouterScrape::Succeeds);
    }
    let Some(targets) = signals::router_targets(router) else { return Ok(RouterScrape::NoTarget) };
    let targets = prometheus.query(settings, &targets).await?;
    Ok(match targets.first() {
        None => RouterScrape::NoTarget,
        Some(up) if up.value >= 1.0 => RouterScrape::WithoutGauges,
        Some(_) => RouterScrape::Fails,
    })
}

/// Results of counting the pods of some models.
type Counts = BTreeMap<Key, Result<Option<SelectorMismatch>, kube::Error>>;

/// Counts the pods of models, with one request for each.
async fn counts(context: &Context, models: Vec<Arc<ModelServing>>) -> Counts {
    stream::iter(models)
        .map(async |model| (key(&*model), selector_mismatch(&context.client, &model).await))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await
}

/// The models whose selector mismatches.
#[derive(Default)]
struct LastingMismatches {
    found: BTreeMap<Key, LastingMismatch>,
    /// Last count of each model.
    counted: BTreeMap<Key, Instant>,
}

struct LastingMismatch {
    last: SelectorMismatch,
    since: Instant,
    /// Counts in a row that found one.
    counts: u32,
}

impl LastingMismatches {
    /// The models to count now, of all that have a `Value` metric: no other model depends on its pods. What is known of the others that
    /// are not counted stays.
    fn due(&mut self, models: Vec<Arc<ModelServing>>) -> Vec<Arc<ModelServing>> {
        let known: BTreeSet<Key> = models.iter().map(|model| key(&**model)).collect();
        self.found.retain(|key, _| known.contains(key));
        self.counted.retain(|key, _| known.contains(key));
        let counted = models.into_iter().map(|model| (self.counted.get(&key(&*model)).copied(), model));
        longest_waiting(counted.collect(), |model| key(&**model).0, MODELS)
    }

    /// Records a count. What is known of a model whose pods could not be listed stays.
    fn record(&mut self, counts: Counts) {
        let now = Instant::now();
        self.counted.extend(counts.keys().map(|key| (key.clone(), now)));
        for (key, count) in counts {
            match count {
                Ok(Some(mismatch)) => {
                    let new = LastingMismatch { last: mismatch, since: now, counts: 0 };
                    let lasting = self.found.entry(key).or_insert(new);
                    lasting.last = mismatch;
                    lasting.counts = lasting.counts.saturating_add(1);
                }
                Ok(None) => drop(self.found.remove(&key)),
                Err(error) => {
                    let (namespace, name) = key;
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(namespace, name, error, "cannot count pods");
                }
            }
        }
    }

    /// The mismatches that have lasted for this time. One that was seen once may have ended since.
    fn at_least(&self, least: Duration) -> SelectorMismatches {
        let is_lasting = |found: &LastingMismatch| found.counts > 1 && found.since.elapsed() >= least;
        let lasting = self.found.iter().filter(|(_, found)| is_lasting(found));
        lasting.map(|(key, found)| (key.clone(), found.last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kthena_keda_core::domain::PrometheusUrl;
    use kube::client::Body;
    use rstest::rstest;

    fn failed() -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status { code: 429, ..kube::core::Status::default() }))
    }

    /// Probes that follow each other quickly, after a burst of changes, do not shorten the time, and a failed list does not end it.
    #[tokio::test(start_paused = true)]
    async fn reports_a_mismatch_that_lasts() {
        let model = ("models".to_owned(), "chat".to_owned());
        let mismatch = || SelectorMismatch { pods: 3, groups: 2 };
        let mismatching = || Counts::from([(model.clone(), Ok(Some(mismatch())))]);
        let mut lasting = LastingMismatches::default();
        for _ in 0..20 {
            lasting.record(mismatching());
            assert!(lasting.at_least(MISMATCH_BEFORE_REPORT).is_empty());
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        tokio::time::advance(MISMATCH_BEFORE_REPORT).await;
        lasting.record(Counts::from([(model.clone(), Err(failed()))]));
        let expected = SelectorMismatches::from([(model.clone(), mismatch())]);
        assert_eq!(lasting.at_least(MISMATCH_BEFORE_REPORT), expected);
        lasting.record(Counts::from([(model.clone(), Ok(None))]));
        assert!(lasting.at_least(MISMATCH_BEFORE_REPORT).is_empty());
        lasting.record(mismatching());
        assert!(lasting.at_least(MISMATCH_BEFORE_REPORT).is_empty(), "the time starts again");
        tokio::time::advance(MISMATCH_BEFORE_REPORT).await;
        assert!(lasting.at_least(MISMATCH_BEFORE_REPORT).is_empty(), "it was seen once");
        assert!(lasting.due(Vec::new()).is_empty() && lasting.found.is_empty(), "the model is gone");
    }

    /// A tenant with many models does not delay the counts of the others.
    #[tokio::test(start_paused = true)]
    async fn counts_a_bounded_number_in_turn() {
        let model = |namespace: &str, i: usize| -> Arc<ModelServing> {
            let metadata = serde_json::json!({"name": format!("m{i}"), "namespace": namespace});
            Arc::new(serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap())
        };
        let models = || (0..2 * MODELS).map(|i| model("many", i)).chain([model("one", 0)]).collect();
        let mut lasting = LastingMismatches::default();
        let mut counted = BTreeSet::new();
        for _ in 0..3 {
            let due: Vec<Key> = lasting.due(models()).iter().map(|model| key(&**model)).collect();
            assert!(due.len() == MODELS && (!counted.is_empty() || due[1].0 == "one"), "{due:?}");
            lasting.record(due.iter().map(|key| (key.clone(), Ok(None))).collect());
            counted.extend(due);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(counted.len(), 2 * MODELS + 1);
    }

    /// A Prometheus behind the API server's service proxy that responds with no samples after this time.
    fn prometheus(delay: Duration) -> Querier {
        let api_server = move |request: http::Request<Body>| async move {
            assert!(request.uri().path().ends_with("/proxy/api/v1/query"), "{}", request.uri());
            assert_eq!(request.headers()["x-scope-orgid"], "team-a");
            sleep(delay).await;
            let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
            Ok::<_, kube::Error>(http::Response::new(Body::from(body.as_bytes().to_vec())))
        };
        Querier::Proxied(kube::Client::new(tower::service_fn(api_server), "models"))
    }

    /// The operator waits longer than KEDA does, so that it can report why KEDA has no data.
    #[rstest]
    #[case::in_time(Duration::from_millis(2900), None, false)]
    #[case::too_late_for_keda(Duration::from_millis(3100), None, true)]
    #[case::in_time_by_the_profile(Duration::from_millis(3100), Some(4), false)]
    #[tokio::test(start_paused = true)]
    async fn measures_whether_prometheus_responds_in_time_for_keda(
        #[case] delay: Duration,
        #[case] limit: Option<i32>,
        #[case] is_slow: bool,
    ) {
        let url: PrometheusUrl = "http://prometheus.monitoring.svc:9090".parse().unwrap();
        let headers = BTreeMap::from([("X-Scope-OrgID".to_owned(), "team-a".to_owned())]);
        let settings = PrometheusSettings { headers, timeout: limit, ..PrometheusSettings::from(url) };
        let target = ProbeTarget { prometheus: settings, router: RouterSeries::assumed("kthena-system") };
        let results = probe(&prometheus(delay), [target.clone()]).await;
        assert_eq!(results[&target].as_ref().map(|result| result.is_slow), Ok(is_slow));
    }
}
