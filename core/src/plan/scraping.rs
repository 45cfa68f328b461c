//! Problems of scraping, as the operator's own queries to Prometheus show them, with the likely cause.

use std::collections::BTreeSet;

use super::{Finding, ResolvedIntent, external_status, triggers::Triggers};
use crate::{
    api::annotations::PREFIX,
    domain::{Engine, Reason, listed, names::ROUTER_SERVICE_MONITOR},
    intent::{Intent, SignalSource, SignalTarget},
    observed::{EngineScrape, Observed, ProbeResult, RouterProblem, RouterScrape},
};

/// Namespaces of other routers in one message.
const LISTED_MAX: usize = 3;

/// `true` if the model depends on series of the router.
fn needs_router(intent: &Intent) -> bool {
    let is_demand = |signal: &SignalTarget| matches!(signal.source, SignalSource::Demand(_));
    intent.replicas.min() == 0 || intent.signals.iter().any(is_demand)
}

/// Prometheus has no series of the router.
pub(super) fn router(
    observed: &Observed,
    intent: &Intent,
    triggers: &Triggers,
    probe: &ProbeResult,
) -> Option<Finding> {
    let namespace = &triggers.router.namespace;
    let message = match probe.router {
        RouterScrape::Fails => format!(
            "every scrape of kthena-router in namespace {namespace} fails, so demand is unknown and replicas stay as they are; {}",
            failing_remedy(observed)
        ),
        RouterScrape::WithoutGauges => format!(
            "Prometheus scrapes kthena-router in namespace {namespace}, but has none of its gauges with the label pod, so demand is unknown and replicas stay as they are; keep the metrics kthena_router_* and the label pod in the relabelings and metricRelabelings of your monitor"
        ),
        RouterScrape::NoTarget => format!(
            "Prometheus has no data from kthena-router in namespace {namespace}, so demand is unknown and replicas stay as they are; {}",
            unscraped_remedy(observed, namespace)
        ),
        RouterScrape::Succeeds => return None,
    };
    needs_router(intent).then(|| Finding::new(Reason::RouterNotScraped, message))
}

/// Scrapes fail where the router serves TLS and the monitor does not, or where Prometheus may not connect.
fn failing_remedy(observed: &Observed) -> String {
    if let Some(RouterProblem::UndeclaredTls(problem)) = &observed.router_problem {
        return problem.clone();
    }
    "if it serves TLS, set router.scheme: https and router.tlsConfig of the AutoscalingProfile named default; otherwise let Prometheus connect to its metrics port, and see the error on the targets page of Prometheus".to_owned()
}

fn unscraped_remedy(observed: &Observed, namespace: &str) -> String {
    if observed.router.namespace != namespace {
        return format!(
            "the operator creates a monitor only in its --router-namespace, {}, so create one in {namespace}, or correct router.namespace of the AutoscalingProfile",
            observed.router.namespace
        );
    }
    if let Some(RouterProblem::Unscraped(problem)) = &observed.router_problem {
        return problem.clone();
    }
    let monitor = format!("the ServiceMonitor {namespace}/{ROUTER_SERVICE_MONITOR}, or your own");
    format!(
        "make your Prometheus select {monitor}: set monitors.labels of the AutoscalingProfile named default, or else of the chart, to the labels in its serviceMonitorSelector, such as release: kube-prometheus-stack, and let its serviceMonitorNamespaceSelector include {namespace}"
    )
}

/// No engine of the model is scraped although ServingGroups are available.
pub(super) fn engines(observed: &Observed, triggers: &Triggers, probe: &ProbeResult) -> Option<Finding> {
    let engines = triggers.engines?;
    let metadata = &observed.model_serving.metadata;
    let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    if observed.model_serving.status.available_replicas.unwrap_or_default() <= 0 {
        return None;
    }
    let message = match probe.engines.get(&key) {
        // Prometheus has a target for every pod, ready or not.
        None => no_engine_target(&observed.model_serving.pod_monitor_name(), &key.0),
        Some(EngineScrape::Unreachable) => unreachable_engines(engines.engine, engines.port),
        Some(EngineScrape::WithoutGauges) => engines_without_gauges(engines.engine, engines.port),
        Some(EngineScrape::Scraped) => return None,
    };
    Some(Finding::new(Reason::EngineNotScraped, message))
}

fn no_engine_target(monitor: &str, namespace: &str) -> String {
    format!(
        "Prometheus has no target for the engines of this ModelServing, so its engine signals have no data; make your Prometheus select the PodMonitor {monitor}: set monitors.labels of its AutoscalingProfile, or else of the chart, to the labels in its podMonitorSelector, such as release: kube-prometheus-stack, and let its podMonitorNamespaceSelector include {namespace}"
    )
}

fn unreachable_engines(engine: Engine, port: u16) -> String {
    format!(
        "ServingGroups are available, but no engine answers Prometheus at /metrics on port {port}, so the engine signals have no data; {}correct {PREFIX}engine-port, or workloadPort of the ModelServer",
        missing_flag(engine)
    )
}

fn engines_without_gauges(engine: Engine, port: u16) -> String {
    let product = match engine {
        Engine::Sglang => "SGLang",
        Engine::Vllm => "vLLM",
    };
    format!(
        "Prometheus scrapes port {port} of the engines, but has none of the gauges of {product}, so the engine signals have no data; {}correct {PREFIX}engine or {PREFIX}engine-port, or keep the gauges in the metricRelabelings of your monitor",
        missing_flag(engine)
    )
}

/// Remedy for an engine that exports metrics only with a flag.
const fn missing_flag(engine: Engine) -> &'static str {
    match engine {
        Engine::Sglang => "start SGLang with --enable-metrics, or ",
        Engine::Vllm => "",
    }
}

/// Requests that other routers served, and a monitor that leaves signals without data.
pub(super) fn warnings(observed: &Observed, resolved: &ResolvedIntent) -> Vec<String> {
    let ResolvedIntent { intent, triggers, .. } = resolved;
    if !needs_router(intent) {
        return Vec::new();
    }
    let unfit = match &observed.router_problem {
        Some(RouterProblem::UnfitMonitor(problem))
            if observed.router.namespace == triggers.router.namespace =>
        {
            Some(problem.clone())
        }
        _ => None,
    };
    unfit.into_iter().chain(elsewhere(observed, resolved)).collect()
}

fn elsewhere(observed: &Observed, resolved: &ResolvedIntent) -> Option<String> {
    let probe = external_status::probe_of(observed, &resolved.intent, &resolved.triggers)?.ok()?;
    let namespaces: BTreeSet<&String> =
        resolved.intent.models.iter().filter_map(|name| probe.elsewhere.get(name)).flatten().collect();
    let namespaces = Vec::from_iter(namespaces);
    (!namespaces.is_empty()).then(|| {
        format!(
            "kthena-router in namespace {} serves requests for this model name too, which the signals do not count; if they are for this model, send them through the router in {}, or set router.namespace of the AutoscalingProfile",
            listed(&namespaces, LISTED_MAX),
            resolved.triggers.router.namespace
        )
    })
}
