//! The router's ServiceMonitor: one for all models, built from the router's Service, and not created while
//! another monitor is shown to scrape the router.

mod foreign;
mod service;

pub use service::assumed_service;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use self::{
    foreign::Candidate,
    service::{COMPONENT, Metrics, declares_tls, find, unrecognized},
};
use super::Desired;
use crate::{
    api::{
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::{Endpoint, NamespaceSelector, Scheme, ServiceMonitor, ServiceMonitorSpec},
    },
    domain::names::ROUTER_SERVICE_MONITOR,
    intent::{CreateMonitors, MonitorSettings, Profile},
    observed::{LocatedRouter, ObservedRouter, Ownership, RouterProblem},
    signals::{RouterSeries, ScrapeSource},
};

/// Plan for the router.
#[derive(Clone, Debug)]
pub struct RouterPlan {
    /// The router's ServiceMonitor.
    pub service_monitor: Desired<Box<ServiceMonitor>>,
    /// Location of the router's series, and the problem of its scraping.
    pub router: LocatedRouter,
    /// Reason why the ServiceMonitor is created beside a foreign monitor of the router.
    pub beside: Option<String>,
    /// The plan depends on what Prometheus shows of a foreign monitor.
    pub needs_evidence: bool,
}

/// Plans the router's ServiceMonitor, and locates the router's series.
///
/// Labels and interval come from the profile named `default` alone: two profiles must not fight over one
/// monitor. Without a Service, with an invalid profile, or while an input could not be read, the monitor does
/// not change. Without a Service the series are assumed where Kthena's chart puts them.
///
/// A foreign monitor keeps the ServiceMonitor from being created only while Prometheus shows that it is
/// enough. It never removes an existing one: the queries count a router that is scraped twice once.
pub fn plan_router(
    observed: &ObservedRouter,
    profile: Option<&Result<Profile, String>>,
    defaults: &Profile,
    any_opted_in: bool,
) -> RouterPlan {
    let plan = plan_by_profile(observed, profile, defaults, any_opted_in);
    let [first, ..] = observed.unread.as_slice() else { return plan };
    let problem = first.message("the ServiceMonitor of kthena-router stays as it is");
    let router = LocatedRouter { problem: Some(RouterProblem::Unread(problem)), ..plan.router };
    RouterPlan { service_monitor: Desired::Keep, beside: None, router, ..plan }
}

fn plan_by_profile(
    observed: &ObservedRouter,
    profile: Option<&Result<Profile, String>>,
    defaults: &Profile,
    any_opted_in: bool,
) -> RouterPlan {
    match profile {
        None => plan_with(observed, defaults, any_opted_in),
        Some(Ok(profile)) => plan_with(observed, &profile.clone().with_flag_defaults(defaults), any_opted_in),
        Some(Err(_)) => match plan_with(observed, defaults, any_opted_in) {
            plan @ RouterPlan { service_monitor: Desired::Apply(_), .. } => {
                RouterPlan { service_monitor: Desired::Keep, beside: None, ..plan }
            }
            plan => plan,
        },
    }
}

fn plan_with(observed: &ObservedRouter, profile: &Profile, any_opted_in: bool) -> RouterPlan {
    let settings = &profile.monitors;
    let Some(metrics) = find(&observed.services) else {
        return without_service(observed, settings, any_opted_in);
    };
    let candidates = foreign::candidates(observed, &metrics);
    let sufficient = foreign::sufficient(&candidates, &observed.evidence);
    let is_open = observed.ownership() != Ownership::Owned;
    let (is_wanted, replacement) = match settings.create() {
        CreateMonitors::Never => (false, foreign::trusted(&candidates)),
        CreateMonitors::UnlessScraped if is_open => (sufficient.is_none(), sufficient),
        CreateMonitors::UnlessScraped | CreateMonitors::Always => (true, None),
    };
    let service_monitor = match (any_opted_in && is_wanted, observed.ownership()) {
        (true, Ownership::Absent | Ownership::Owned) => {
            Desired::Apply(Box::new(build(observed, profile, &metrics)))
        }
        (true, Ownership::Foreign | Ownership::Terminating | Ownership::Orphaned) => Desired::Keep,
        (false, _) => remove(observed),
    };
    let source = replacement.map_or_else(|| own_source(&metrics), |monitor| monitor.source.clone());
    let is_created = matches!(service_monitor, Desired::Apply(_)) && is_open;
    RouterPlan {
        beside: candidates.first().filter(|_| is_created).map(beside),
        service_monitor,
        router: LocatedRouter {
            series: RouterSeries::new(observed.namespace.clone(), source),
            problem: problem(observed, profile, &metrics, is_wanted, replacement),
        },
        needs_evidence: needs_evidence(settings, is_open, &candidates),
    }
}

fn without_service(observed: &ObservedRouter, settings: &MonitorSettings, any_opted_in: bool) -> RouterPlan {
    let is_wanted = settings.create() != CreateMonitors::Never;
    RouterPlan {
        service_monitor: if any_opted_in { Desired::Keep } else { remove(observed) },
        router: LocatedRouter {
            series: RouterSeries::assumed(&observed.namespace),
            problem: is_wanted.then(|| RouterProblem::Unscraped(unrecognized(observed))),
        },
        beside: None,
        needs_evidence: false,
    }
}

/// The first problem that keeps the router from being scraped, or scraped well.
fn problem(
    observed: &ObservedRouter,
    profile: &Profile,
    metrics: &Metrics<'_>,
    is_wanted: bool,
    replacement: Option<&Candidate>,
) -> Option<RouterProblem> {
    if is_wanted && observed.ownership() == Ownership::Foreign {
        return Some(RouterProblem::Unscraped(name_conflict(observed)));
    }
    if is_wanted && profile.router_endpoint.scheme == Scheme::Http && declares_tls(metrics.port) {
        return Some(RouterProblem::UndeclaredTls(undeclared_tls(metrics)));
    }
    let candidate = replacement?;
    let fault = candidate.unfit.as_ref()?;
    Some(RouterProblem::UnfitMonitor(format!(
        "{} {fault}; correct it, or set monitors.create of the AutoscalingProfile named default to true, so that the operator creates its own",
        candidate.place
    )))
}

fn undeclared_tls(metrics: &Metrics<'_>) -> String {
    format!(
        "the port {} of the Service {} seems to serve TLS, and the operator's ServiceMonitor uses http; set router.scheme: https and router.tlsConfig of the AutoscalingProfile named default",
        metrics.port.name, metrics.service.name
    )
}

/// Series that the operator's own monitor and other ServiceMonitors of the Service lead to.
fn own_source(metrics: &Metrics<'_>) -> ScrapeSource {
    ScrapeSource::Service(metrics.service.name.clone())
}

/// `true` if the answer of Prometheus decides about creating the monitor, or about the location of the series.
fn needs_evidence(settings: &MonitorSettings, is_open: bool, candidates: &[Candidate]) -> bool {
    match settings.create() {
        CreateMonitors::Always => false,
        CreateMonitors::Never => !candidates.is_empty(),
        CreateMonitors::UnlessScraped => {
            is_open && candidates.iter().any(|candidate| candidate.unfit.is_none())
        }
    }
}

fn beside(candidate: &Candidate) -> String {
    let reason = candidate.unfit.as_deref().unwrap_or("has no regular scrapes in Prometheus");
    format!("{} selects kthena-router too, but {reason}", candidate.place)
}

fn remove(observed: &ObservedRouter) -> Desired<Box<ServiceMonitor>> {
    match observed.ownership() {
        Ownership::Owned => Desired::Remove,
        Ownership::Absent | Ownership::Terminating | Ownership::Orphaned | Ownership::Foreign => {
            Desired::Keep
        }
    }
}

fn name_conflict(observed: &ObservedRouter) -> String {
    format!(
        "ServiceMonitor {}/{ROUTER_SERVICE_MONITOR} has another owner and does not scrape kthena-router, so the operator cannot have the router scraped; rename or delete it, or scrape the router with a monitor of your own",
        observed.namespace
    )
}

fn build(observed: &ObservedRouter, profile: &Profile, metrics: &Metrics<'_>) -> ServiceMonitor {
    let (settings, endpoint) = (&profile.monitors, &profile.router_endpoint);
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
                scheme: (endpoint.scheme == Scheme::Https).then(|| <&str>::from(endpoint.scheme).to_owned()),
                tls_config: endpoint.tls.as_ref().and_then(|tls| serde_json::to_value(tls).ok()),
                ..Endpoint::default()
            }],
        },
    }
}

#[cfg(test)]
mod tests;
