//! The router's ServiceMonitor: one for all models, built from the router's Service, and not created while
//! another monitor is shown to scrape the router.

mod foreign;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, ObjectMeta},
    util::intstr::IntOrString,
};

use self::foreign::Candidate;
use super::Desired;
use crate::{
    api::{
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::{Endpoint, NamespaceSelector, ServiceMonitor, ServiceMonitorSpec},
    },
    domain::names::ROUTER_SERVICE_MONITOR,
    intent::{CreateMonitors, MonitorSettings, Profile},
    observed::{ObservedRouter, Ownership, RouterPort, RouterService},
    signals::{RouterSeries, ScrapeSource},
};

const COMPONENT: &str = "app.kubernetes.io/component";

/// Component label and port name of the Service that serves the router's metrics, by Kthena release, newest
/// first.
///
/// The Service of the router's webhook has the second component too; the port name excludes it. Source:
/// Kthena `charts/kthena/charts/networking/templates/kthena-router/component/service.yaml`.
const METRICS: [(&str, &str); 2] = [("kthena-router-metrics", "metrics"), ("kthena-router", "http")];

/// Plan for the router.
#[derive(Clone, Debug)]
pub struct RouterPlan {
    /// The router's ServiceMonitor.
    pub service_monitor: Desired<Box<ServiceMonitor>>,
    /// Location of the router's series.
    pub series: RouterSeries,
    /// Reason why the ServiceMonitor is created beside a foreign monitor of the router.
    pub beside: Option<String>,
    /// The plan depends on what Prometheus shows of a foreign monitor.
    pub needs_evidence: bool,
    /// Problem that keeps the operator from having the router scraped, with its remedy.
    pub problem: Option<String>,
}

/// A Service and the port of it that serves metrics.
struct Metrics<'a> {
    service: &'a RouterService,
    port: &'a RouterPort,
    component: &'static str,
}

/// Plans the router's ServiceMonitor, and locates the router's series.
///
/// Labels and interval come from the profile named `default` alone: two profiles must not fight over one
/// monitor. Without a Service, or with an invalid profile, the monitor does not change. Without a Service the
/// series are assumed where Kthena's chart puts them.
///
/// A foreign monitor keeps the ServiceMonitor from being created only while Prometheus shows that it is
/// enough. It never removes an existing one: the queries count a router that is scraped twice once.
pub fn plan_router(
    observed: &ObservedRouter,
    profile: Option<&Result<Profile, String>>,
    defaults: &Profile,
    any_opted_in: bool,
) -> RouterPlan {
    match profile {
        None => plan_with(observed, &defaults.monitors, any_opted_in),
        Some(Ok(profile)) => {
            plan_with(observed, &profile.clone().with_flag_defaults(defaults).monitors, any_opted_in)
        }
        Some(Err(_)) => match plan_with(observed, &defaults.monitors, any_opted_in) {
            RouterPlan { service_monitor: Desired::Apply(_), beside: _, series, needs_evidence, problem } => {
                RouterPlan { service_monitor: Desired::Keep, beside: None, series, needs_evidence, problem }
            }
            plan => plan,
        },
    }
}

fn plan_with(observed: &ObservedRouter, settings: &MonitorSettings, any_opted_in: bool) -> RouterPlan {
    let Some(metrics) = find(&observed.services) else { return without_service(observed, any_opted_in) };
    let candidates = foreign::candidates(observed, &metrics);
    let sufficient = foreign::sufficient(&candidates, &observed.evidence);
    let is_open = observed.ownership() != Ownership::Owned;
    let (is_wanted, replacement) = match settings.create() {
        CreateMonitors::Never => (false, candidates.first()),
        CreateMonitors::UnlessScraped if is_open => (sufficient.is_none(), sufficient),
        CreateMonitors::UnlessScraped | CreateMonitors::Always => (true, None),
    };
    let source = replacement.map_or_else(|| own_source(&metrics), |monitor| monitor.source.clone());
    let (service_monitor, problem) = match (any_opted_in && is_wanted, observed.ownership()) {
        (true, Ownership::Foreign) => (Desired::Keep, Some(name_conflict(observed))),
        (true, Ownership::Absent | Ownership::Owned) => {
            (Desired::Apply(Box::new(build(observed, settings, &metrics))), None)
        }
        (true, Ownership::Terminating) => (Desired::Keep, None),
        (false, _) => (remove(observed), None),
    };
    let is_created = matches!(service_monitor, Desired::Apply(_)) && is_open;
    RouterPlan {
        beside: candidates.first().filter(|_| is_created).map(beside),
        service_monitor,
        series: RouterSeries { namespace: observed.namespace.clone(), source },
        needs_evidence: needs_evidence(settings, is_open, &candidates),
        problem,
    }
}

fn without_service(observed: &ObservedRouter, any_opted_in: bool) -> RouterPlan {
    RouterPlan {
        service_monitor: if any_opted_in { Desired::Keep } else { remove(observed) },
        series: RouterSeries::assumed(&observed.namespace),
        beside: None,
        needs_evidence: false,
        problem: None,
    }
}

/// Series that the operator's own monitor and other ServiceMonitors of the Service lead to.
fn own_source(metrics: &Metrics<'_>) -> ScrapeSource {
    ScrapeSource::Service(metrics.service.name.clone())
}

/// `true` if the answer of Prometheus decides about creating the monitor, or about the location of the series.
fn needs_evidence(settings: &MonitorSettings, is_open: bool, candidates: &[Candidate]) -> bool {
    match settings.create() {
        CreateMonitors::Always => false,
        CreateMonitors::Never => candidates.len() > 1,
        CreateMonitors::UnlessScraped => {
            is_open && candidates.iter().any(|candidate| candidate.unfit.is_none())
        }
    }
}

fn beside(candidate: &Candidate) -> String {
    let reason = candidate.unfit.as_deref().unwrap_or("has no regular scrapes in Prometheus");
    format!("{} selects kthena-router too, but {reason}", candidate.place)
}

/// The Service that Kthena's chart creates, for plans without a cluster.
pub fn assumed_service() -> RouterService {
    let labels = BTreeMap::from([(COMPONENT.to_owned(), "kthena-router".to_owned())]);
    RouterService {
        name: "kthena-router".to_owned(),
        selector: labels.clone(),
        labels,
        ports: vec![RouterPort {
            name: "http".to_owned(),
            number: 80,
            app_protocol: None,
            target: IntOrString::Int(8080),
        }],
    }
}

fn remove(observed: &ObservedRouter) -> Desired<Box<ServiceMonitor>> {
    match observed.ownership() {
        Ownership::Owned => Desired::Remove,
        Ownership::Absent | Ownership::Terminating | Ownership::Foreign => Desired::Keep,
    }
}

fn name_conflict(observed: &ObservedRouter) -> String {
    format!(
        "ServiceMonitor {}/{ROUTER_SERVICE_MONITOR} has another owner and does not scrape kthena-router, so the operator cannot have the router scraped; rename or delete it, or scrape the router with a monitor of your own",
        observed.namespace
    )
}

fn find(services: &[RouterService]) -> Option<Metrics<'_>> {
    METRICS.iter().find_map(|&(component, port)| {
        let mut found: Vec<Metrics<'_>> = services
            .iter()
            .filter(|service| service.labels.get(COMPONENT).is_some_and(|label| label == component))
            .filter_map(|service| {
                Some(Metrics {
                    service,
                    port: service.ports.iter().find(|found| found.name == port)?,
                    component,
                })
            })
            .collect();
        found.sort_by(|a, b| a.service.name.cmp(&b.service.name));
        found.into_iter().next()
    })
}

fn build(observed: &ObservedRouter, settings: &MonitorSettings, metrics: &Metrics<'_>) -> ServiceMonitor {
    let mut labels = settings.labels.clone();
    labels.insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
    let component = BTreeMap::from([(COMPONENT.to_owned(), metrics.component.to_owned())]);
    ServiceMonitor {
        metadata: ObjectMeta {
            name: Some(ROUTER_SERVICE_MONITOR.to_owned()),
            namespace: Some(observed.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: ServiceMonitorSpec {
            namespace_selector: NamespaceSelector {
                any: false,
                match_names: vec![observed.namespace.clone()],
            },
            selector: LabelSelector { match_labels: Some(component), match_expressions: None },
            endpoints: vec![Endpoint {
                port: Some(metrics.port.name.clone()),
                path: Some("/metrics".to_owned()),
                interval: Some(settings.interval.to_string()),
                ..Endpoint::default()
            }],
        },
    }
}

#[cfg(test)]
mod tests;
