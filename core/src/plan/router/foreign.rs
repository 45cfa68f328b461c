//! Monitors of other owners that select the router, and the condition under which one of them is enough.
//!
//! A monitor in any namespace may select the router, and may belong to a tenant. So one is enough only while it
//! scrapes the router often, passes the series on unchanged, and Prometheus shows that it uses it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::{Selector, SelectorExt as _};
use promql_parser::util::parse_duration;

use super::service::Metrics;
use crate::{
    api::monitoring::Endpoint,
    domain::{Key, ScrapeInterval, names::ROUTER_SERVICE_MONITOR},
    observed::{MonitorDigest, ObservedRouter, Ownership, RouterPort, ScrapeEvidence, Scrapes},
    signals::ScrapeSource,
};

/// Fields of an endpoint, beside those that [`Endpoint`] names, that change no series of the router. Others
/// may: `metricRelabelings` drops and rewrites series, and `proxyUrl` lets another server answer.
const HARMLESS: [&str; 12] = [
    "authorization",
    "basicAuth",
    "bearerTokenFile",
    "bearerTokenSecret",
    "enableHttp2",
    "filterRunning",
    "followRedirects",
    "honorLabels",
    "honorTimestamps",
    "oauth2",
    "scrapeTimeout",
    "trackTimestampsStaleness",
];

/// A monitor of another owner that selects the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Kind, namespace and name, for messages.
    pub(super) place: String,
    /// Location of its `up`.
    pub(super) source: ScrapeSource,
    /// Reason why it is not enough, whatever Prometheus shows.
    pub(super) unfit: Option<String>,
    /// Prometheus shows that it scrapes the router.
    pub(super) is_shown: bool,
    is_beside_router: bool,
}

impl Candidate {
    fn is_sufficient(&self) -> bool {
        self.unfit.is_none() && self.is_shown
    }
}

/// The foreign monitors of the router, the most trustworthy first: those that are enough, those in the
/// router's own namespace, and ServiceMonitors, whose series carry the Service's name.
pub(super) fn candidates(observed: &ObservedRouter, metrics: &Metrics<'_>) -> Vec<Candidate> {
    let service_monitors = observed
        .service_monitors
        .iter()
        .filter(|(key, _)| !is_ours(observed, key))
        .filter_map(|(key, monitor)| by_service(observed, metrics, key, monitor));
    let pod_monitors =
        observed.pod_monitors.iter().filter_map(|(key, monitor)| by_pod(observed, metrics, key, monitor));
    let mut candidates: Vec<Candidate> = service_monitors.chain(pod_monitors).collect();
    // Stable: ServiceMonitors stay before PodMonitors.
    candidates.sort_by_key(|candidate| {
        (!candidate.is_sufficient(), !candidate.is_beside_router, candidate.unfit.is_some())
    });
    candidates
}

/// The first candidate that is enough. While Prometheus may still show one, the first fit one counts.
pub(super) fn sufficient<'a>(
    candidates: &'a [Candidate],
    evidence: &ScrapeEvidence,
) -> Option<&'a Candidate> {
    match evidence {
        ScrapeEvidence::Awaited => candidates.iter().find(|candidate| candidate.unfit.is_none()),
        ScrapeEvidence::Known(_) => candidates.iter().find(|candidate| candidate.is_sufficient()),
    }
}

/// The first candidate that may locate the series where the operator creates no monitor: one that Prometheus
/// uses, or one in the router's own namespace, where no tenant creates monitors.
pub(super) fn trusted(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.is_shown || candidate.is_beside_router)
}

fn is_ours(observed: &ObservedRouter, (namespace, name): &Key) -> bool {
    *namespace == observed.namespace
        && name == ROUTER_SERVICE_MONITOR
        && observed.ownership() != Ownership::Foreign
}

fn by_service(
    observed: &ObservedRouter,
    metrics: &Metrics<'_>,
    key: &Key,
    monitor: &MonitorDigest,
) -> Option<Candidate> {
    if !selects(&monitor.scrapes, &key.0, &observed.namespace, &metrics.service.labels) {
        return None;
    }
    let endpoints = reading(monitor, |endpoint| is_service_port(endpoint, metrics.port));
    let name = &metrics.service.name;
    (!endpoints.is_empty()).then(|| Candidate {
        place: format!("the ServiceMonitor {}/{}", key.0, key.1),
        source: ScrapeSource::Service(name.clone()),
        unfit: unfit(&endpoints),
        is_shown: observed.evidence.shows(|target| target.service == *name),
        is_beside_router: key.0 == observed.namespace,
    })
}

/// Only the pod labels in the Service's selector are known. A monitor that selects by other labels is
/// overlooked; the queries count each router once even then.
fn by_pod(
    observed: &ObservedRouter,
    metrics: &Metrics<'_>,
    key: &Key,
    monitor: &MonitorDigest,
) -> Option<Candidate> {
    if !selects(&monitor.scrapes, &key.0, &observed.namespace, &metrics.service.selector) {
        return None;
    }
    let endpoints = reading(monitor, |endpoint| is_container_port(endpoint, metrics.port));
    let job = format!("{}/{}", key.0, key.1);
    (!endpoints.is_empty()).then(|| Candidate {
        place: format!("the PodMonitor {job}"),
        unfit: unfit(&endpoints),
        is_shown: observed.evidence.shows(|target| target.job == job),
        source: ScrapeSource::Job(job),
        is_beside_router: key.0 == observed.namespace,
    })
}

/// The endpoints of a monitor that read the metrics of a port.
fn reading(monitor: &MonitorDigest, is_port: impl Fn(&Endpoint) -> bool) -> Vec<&Endpoint> {
    let endpoints = monitor.scrapes.endpoints.iter();
    endpoints.filter(|endpoint| reads_metrics(endpoint) && is_port(endpoint)).collect()
}

/// The first fault of the endpoints, unless one of them has none.
fn unfit(endpoints: &[&Endpoint]) -> Option<String> {
    let faults: Option<Vec<String>> = endpoints.iter().map(|endpoint| fault(endpoint)).collect();
    faults?.into_iter().next()
}

fn fault(endpoint: &Endpoint) -> Option<String> {
    if let Some(interval) = endpoint.interval.as_deref().filter(|interval| is_rare(interval)) {
        return Some(format!("scrapes it only every {interval}, which leaves rates without data"));
    }
    if !endpoint.relabelings.is_empty() {
        return Some("changes its labels by relabelings".to_owned());
    }
    if !endpoint.metric_relabelings.is_empty() {
        return Some("may drop or change its series by metricRelabelings".to_owned());
    }
    let field = endpoint.foreign.iter().find(|(field, value)| {
        !HARMLESS.contains(&field.as_str()) && value.as_array().is_none_or(|list| !list.is_empty())
    });
    field.map(|(field, _)| format!("may change its series by {field}"))
}

/// `true` for intervals that leave the window of rates with fewer than four scrapes. The Prometheus Operator
/// rejects a monitor with an unreadable one.
fn is_rare(interval: &str) -> bool {
    parse_duration(interval).is_ok_and(|interval| interval > ScrapeInterval::LONGEST)
}

fn selects(
    scrapes: &Scrapes,
    own_namespace: &str,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    let names = &scrapes.namespaces.match_names;
    let includes_namespace = scrapes.namespaces.any
        || names.iter().any(|name| name == namespace)
        || (names.is_empty() && own_namespace == namespace);
    includes_namespace
        && Selector::try_from(scrapes.selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

fn reads_metrics(endpoint: &Endpoint) -> bool {
    endpoint.path.as_deref().is_none_or(|path| path.is_empty() || path == "/metrics")
}

fn is_service_port(endpoint: &Endpoint, port: &RouterPort) -> bool {
    match (&endpoint.port, &endpoint.target_port) {
        (Some(name), _) => *name == port.name,
        (None, Some(target)) => *target == port.target || *target == IntOrString::String(port.name.clone()),
        (None, None) => false,
    }
}

/// Kthena gives the container's port the name of the Service's port.
fn is_container_port(endpoint: &Endpoint, port: &RouterPort) -> bool {
    let is_named = |name: &str| name == port.name || port.target == IntOrString::String(name.to_owned());
    match (&endpoint.port, endpoint.port_number, &endpoint.target_port) {
        (Some(name), _, _) | (None, None, Some(IntOrString::String(name))) => is_named(name),
        (None, Some(number), _) => port.target == IntOrString::Int(number),
        (None, None, Some(number)) => port.target == *number,
        (None, None, None) => false,
    }
}
