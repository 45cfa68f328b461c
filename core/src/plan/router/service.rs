//! The router's Services, and the one that serves metrics.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::observed::{ObservedRouter, RouterPort, RouterService};

pub(super) const COMPONENT: &str = "app.kubernetes.io/component";

/// Component label and port name of the Service that serves the router's metrics, by Kthena release, newest
/// first.
///
/// The Service of the router's webhook has the second component too; the port name excludes it. Source:
/// Kthena `charts/kthena/charts/networking/templates/kthena-router/component/service.yaml`.
const METRICS: [(&str, &str); 2] = [("kthena-router-metrics", "metrics"), ("kthena-router", "http")];

/// Services in a message.
const LISTED_MAX: usize = 3;

/// A Service and the port of it that serves metrics.
pub(super) struct Metrics<'a> {
    pub(super) service: &'a RouterService,
    pub(super) port: &'a RouterPort,
    pub(super) component: &'static str,
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

pub(super) fn find(services: &[RouterService]) -> Option<Metrics<'_>> {
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

/// The problem that no Service is recognized as the router's, with those that come close.
pub(super) fn unrecognized(observed: &ObservedRouter) -> String {
    let expected: Vec<String> = METRICS
        .iter()
        .rev()
        .map(|(component, port)| format!("the label {COMPONENT}: {component} and a port named {port}"))
        .collect();
    let mut similar: Vec<&RouterService> =
        observed.services.iter().filter(|service| is_similar(service)).collect();
    similar.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<String> = similar.iter().take(LISTED_MAX).map(|service| described(service)).collect();
    let found = if found.is_empty() { "no similar Service exists".to_owned() } else { found.join("; ") };
    format!(
        "no Service in namespace {} is recognized as kthena-router's, so the operator cannot have it scraped (expected {}; found: {found}); correct the label or the name of the port, or --router-namespace, or scrape the router with a monitor of your own",
        observed.namespace,
        expected.join(", or ")
    )
}

fn is_similar(service: &RouterService) -> bool {
    let has_component = service.labels.get(COMPONENT).is_some_and(|label| is_component(label));
    has_component || service.name.contains("kthena-router")
}

fn is_component(label: &str) -> bool {
    METRICS.iter().any(|(component, _)| *component == label)
}

fn described(service: &RouterService) -> String {
    let ports: Vec<&str> = service.ports.iter().take(LISTED_MAX).map(|port| port.name.as_str()).collect();
    let ports = match ports.as_slice() {
        [] => "without ports".to_owned(),
        [""] => "with a port without a name".to_owned(),
        names => format!("with ports named {}", names.join(", ")),
    };
    let label = match service.labels.get(COMPONENT) {
        Some(label) if is_component(label) => String::new(),
        Some(_) => " and another component".to_owned(),
        None => " and no component label".to_owned(),
    };
    format!("Service {} {ports}{label}", service.name)
}

/// `true` if a port says that it serves TLS. Kthena's chart does not say so.
pub(super) fn declares_tls(port: &RouterPort) -> bool {
    port.number == 443 || port.app_protocol.as_deref().is_some_and(|protocol| protocol.ends_with("https"))
}
