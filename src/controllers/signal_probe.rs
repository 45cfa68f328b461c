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
    time::{Instant, sleep, timeout},
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
    loop {
        let results = probe(&prometheus, targets(&context, &router)).await;
        report(&context, &results);
        let has_new_results = context.caches.probe_cache.record(results);
        let lasting = mismatches.at_least(least, mismatching(&context).await);
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

/// Time since which each model's selector mismatches.
#[derive(Default)]
struct LastingMismatches(BTreeMap<Key, Instant>);

impl LastingMismatches {
    /// Records the mismatches of one probe, and returns those that have lasted for this time.
    fn at_least(&mut self, least: Duration, mut mismatches: SelectorMismatches) -> SelectorMismatches {
        self.0.retain(|key, _| mismatches.contains_key(key));
        mismatches.retain(|key, _| {
            let since = self.0.entry(key.clone()).or_insert_with(Instant::now);
            since.elapsed() >= least
        });
        mismatches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kthena_keda_core::domain::PrometheusUrl;
    use kube::client::Body;
    use rstest::rstest;

    /// Probes that follow each other quickly, after a burst of changes, do not shorten the time.
    #[tokio::test(start_paused = true)]
    async fn reports_a_mismatch_that_lasts() {
        let model = ("models".to_owned(), "chat".to_owned());
        let mismatching = SelectorMismatches::from([(model, SelectorMismatch { pods: 3, groups: 2 })]);
        let mut lasting = LastingMismatches::default();
        for _ in 0..20 {
            assert!(lasting.at_least(MISMATCH_BEFORE_REPORT, mismatching.clone()).is_empty());
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        tokio::time::advance(MISMATCH_BEFORE_REPORT).await;
        assert_eq!(lasting.at_least(MISMATCH_BEFORE_REPORT, mismatching.clone()), mismatching);
        assert!(lasting.at_least(MISMATCH_BEFORE_REPORT, SelectorMismatches::new()).is_empty());
        assert!(lasting.at_least(MISMATCH_BEFORE_REPORT, mismatching).is_empty(), "the time starts again");
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
