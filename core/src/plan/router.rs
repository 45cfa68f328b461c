//! The router's ServiceMonitor: one for all models, built from the router's Service, and absent if another
//! monitor scrapes the router.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{LabelSelector, ObjectMeta},
    util::intstr::IntOrString,
};
use kube_core::{Selector, SelectorExt as _};

use super::Desired;
use crate::{
    api::{
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::{Endpoint, NamespaceSelector, ServiceMonitor, ServiceMonitorSpec},
    },
    domain::{Key, names::ROUTER_SERVICE_MONITOR},
    intent::{CreateMonitors, MonitorSettings, Profile},
    observed::{MonitorDigest, ObservedRouter, Ownership, RouterPort, RouterService, Scrapes},
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
    /// Problem that keeps the operator from having the router scraped, with its remedy.
    pub problem: Option<String>,
}

/// A Service and the port of it that serves metrics.
struct Metrics<'a> {
    service: &'a RouterService,
    port: &'a RouterPort,
    component: &'static str,
}

/// A monitor of another owner that scrapes the router.
enum Scraper {
    ServiceMonitor,
    PodMonitor(Key),
}

/// Plans the router's ServiceMonitor, and locates the router's series.
///
/// Labels and interval come from the profile named `default` alone: two profiles must not fight over one
/// monitor. Without a Service, or with an invalid profile, the monitor does not change. Without a Service the
/// series are assumed where Kthena's chart puts them.
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
            RouterPlan { service_monitor: Desired::Apply(_), series, problem } => {
                RouterPlan { service_monitor: Desired::Keep, series, problem }
            }
            plan => plan,
        },
    }
}

fn plan_with(observed: &ObservedRouter, settings: &MonitorSettings, any_opted_in: bool) -> RouterPlan {
    let Some(metrics) = find(&observed.services) else {
        let service_monitor = if any_opted_in { Desired::Keep } else { remove(observed) };
        return RouterPlan {
            service_monitor,
            series: RouterSeries::assumed(&observed.namespace),
            problem: None,
        };
    };
    let scraper = scraper(observed, &metrics);
    let source = match &scraper {
        Some(Scraper::PodMonitor((namespace, name))) if settings.create() != CreateMonitors::Always => {
            ScrapeSource::Job(format!("{namespace}/{name}"))
        }
        _ => ScrapeSource::Service(metrics.service.name.clone()),
    };
    let wanted = any_opted_in
        && match settings.create() {
            CreateMonitors::Always => true,
            CreateMonitors::UnlessScraped => scraper.is_none(),
            CreateMonitors::Never => false,
        };
    let (service_monitor, problem) = match (wanted, observed.ownership()) {
        (true, Ownership::Foreign) => (Desired::Keep, Some(name_conflict(observed))),
        (true, Ownership::Absent | Ownership::Owned) => {
            (Desired::Apply(Box::new(build(observed, settings, &metrics))), None)
        }
        (true, Ownership::Terminating) => (Desired::Keep, None),
        (false, _) => (remove(observed), None),
    };
    RouterPlan {
        service_monitor,
        series: RouterSeries { namespace: observed.namespace.clone(), source },
        problem,
    }
}

/// The Service that Kthena's chart creates, for plans without a cluster.
pub fn assumed_service() -> RouterService {
    let labels = BTreeMap::from([(COMPONENT.to_owned(), "kthena-router".to_owned())]);
    RouterService {
        name: "kthena-router".to_owned(),
        selector: labels.clone(),
        labels,
        ports: vec![RouterPort { name: "http".to_owned(), target: IntOrString::Int(8080) }],
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

/// Finds a foreign monitor that scrapes the metrics port; ServiceMonitors first, since their series carry the
/// Service's name.
///
/// It may be one that Prometheus does not select: that is not visible in the cluster.
fn scraper(observed: &ObservedRouter, metrics: &Metrics<'_>) -> Option<Scraper> {
    let (service, port, namespace) = (metrics.service, metrics.port, &observed.namespace);
    let is_ours = |(of, name): &Key| {
        of == namespace && name == ROUTER_SERVICE_MONITOR && observed.ownership() != Ownership::Foreign
    };
    let mut service_monitors = observed.service_monitors.iter().filter(|(key, _)| !is_ours(key));
    let by_service = |(key, monitor): &(Key, MonitorDigest)| {
        selects(&monitor.scrapes, &key.0, namespace, &service.labels)
            && monitor
                .scrapes
                .endpoints
                .iter()
                .any(|endpoint| reads_metrics(endpoint) && is_service_port(endpoint, port))
    };
    if service_monitors.any(by_service) {
        return Some(Scraper::ServiceMonitor);
    }
    // Only the pod labels in the Service's selector are known. A monitor that selects by other labels is
    // overlooked; the queries count each router once even then.
    let mut pod_monitors = observed.pod_monitors.iter();
    let by_pod = |(key, monitor): &&(Key, MonitorDigest)| {
        selects(&monitor.scrapes, &key.0, namespace, &service.selector)
            && monitor
                .scrapes
                .endpoints
                .iter()
                .any(|endpoint| reads_metrics(endpoint) && is_container_port(endpoint, port))
    };
    pod_monitors.find(by_pod).map(|(key, _)| Scraper::PodMonitor(key.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::key,
        observed::{LivePodMonitor, LiveServiceMonitor},
    };
    use k8s_openapi::api::core::v1::Service;
    use rstest::rstest;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn service(name: &str, component: &str, port: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "kthena-system", "labels": {COMPONENT: component, "app.kubernetes.io/name": "networking"}},
            "spec": {"selector": {COMPONENT: "kthena-router"}, "ports": [{"name": port, "port": 80, "targetPort": 8080}]},
        })
    }

    fn monitor(kind: &str, namespace: &str, spec: &Value) -> Value {
        json!({"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": {"name": "theirs", "namespace": namespace}, "spec": spec})
    }

    fn observed(objects: &[Value]) -> ObservedRouter {
        let mut router =
            ObservedRouter { namespace: "kthena-system".to_owned(), ..ObservedRouter::default() };
        for object in objects.iter().cloned() {
            match object["kind"].as_str() {
                Some("Service") => router.services.push(RouterService::from(&read::<Service>(object))),
                Some("ServiceMonitor") => {
                    let found: LiveServiceMonitor = read(object);
                    let (key, digest) = (key(&found), MonitorDigest::from(&found));
                    if key == (router.namespace.clone(), ROUTER_SERVICE_MONITOR.to_owned()) {
                        router.service_monitor = Some(digest.clone());
                    }
                    router.service_monitors.push((key, digest));
                }
                _ => {
                    let found: LivePodMonitor = read(object);
                    router.pod_monitors.push((key(&found), MonitorDigest::from(&found)));
                }
            }
        }
        router
    }

    fn read<K: DeserializeOwned>(object: Value) -> K {
        serde_json::from_value(object).unwrap()
    }

    fn planned(objects: &[Value], create: CreateMonitors) -> RouterPlan {
        let settings = MonitorSettings { create: Some(create), ..Profile::built_in().monitors };
        plan_with(&observed(objects), &settings, true)
    }

    fn applied(plan: &RouterPlan) -> Option<&ServiceMonitorSpec> {
        match &plan.service_monitor {
            Desired::Apply(monitor) => Some(&monitor.spec),
            Desired::Keep | Desired::Remove => None,
        }
    }

    #[rstest]
    #[case::chart(&[service("kthena-router", "kthena-router", "http")], "kthena-router", Some("http"))]
    #[case::webhook_beside(&[service("a-webhook", "kthena-router", "webhook"), service("kthena-router", "kthena-router", "http")], "kthena-router", Some("http"))]
    #[case::own_port(&[service("kthena-router", "kthena-router", "http"), service("m", "kthena-router-metrics", "metrics")], "m", Some("metrics"))]
    #[case::prefixed(&[service("networking-kthena-router", "kthena-router", "http")], "networking-kthena-router", Some("http"))]
    #[case::none(&[], "kthena-router", None)]
    fn scrapes_the_service_that_serves_metrics(
        #[case] services: &[Value],
        #[case] name: &str,
        #[case] port: Option<&str>,
    ) {
        let plan = planned(services, CreateMonitors::UnlessScraped);
        assert_eq!(plan.series.source, ScrapeSource::Service(name.to_owned()));
        let found = applied(&plan).map(|spec| spec.endpoints[0].port.clone().unwrap());
        assert_eq!(found.as_deref(), port);
    }

    #[rstest]
    #[case::same_namespace("kthena-system", json!({"selector": {"matchLabels": {COMPONENT: "kthena-router"}}, "endpoints": [{"port": "http"}]}), true)]
    #[case::any_namespace("monitoring", json!({"namespaceSelector": {"any": true}, "selector": {}, "endpoints": [{"port": "http"}]}), true)]
    #[case::named_namespace("monitoring", json!({"namespaceSelector": {"matchNames": ["kthena-system"]}, "selector": {"matchExpressions": [{"key": COMPONENT, "operator": "In", "values": ["kthena-router"]}]}, "endpoints": [{"targetPort": 8080}]}), true)]
    #[case::other_namespace("monitoring", json!({"selector": {}, "endpoints": [{"port": "http"}]}), false)]
    #[case::other_labels("kthena-system", json!({"selector": {"matchLabels": {COMPONENT: "kthena"}}, "endpoints": [{"port": "http"}]}), false)]
    #[case::other_port("kthena-system", json!({"selector": {}, "endpoints": [{"port": "webhook"}]}), false)]
    #[case::other_path("kthena-system", json!({"selector": {}, "endpoints": [{"port": "http", "path": "/debug"}]}), false)]
    #[case::nothing_scraped("kthena-system", json!({"selector": {}, "endpoints": [{}]}), false)]
    #[case::odd("kthena-system", json!({"selector": "odd"}), false)]
    fn yields_to_a_foreign_service_monitor(
        #[case] namespace: &str,
        #[case] spec: Value,
        #[case] scrapes: bool,
    ) {
        let objects =
            [service("kthena-router", "kthena-router", "http"), monitor("ServiceMonitor", namespace, &spec)];
        let plan = planned(&objects, CreateMonitors::UnlessScraped);
        assert_eq!(applied(&plan).is_none(), scrapes);
        assert_eq!(plan.series.source, ScrapeSource::Service("kthena-router".to_owned()));
        assert!(applied(&planned(&objects, CreateMonitors::Always)).is_some());
    }

    #[rstest]
    #[case::by_port_name(json!({"selector": {"matchLabels": {COMPONENT: "kthena-router"}}, "podMetricsEndpoints": [{"port": "http"}]}), true)]
    #[case::by_number(json!({"selector": {"matchLabels": {COMPONENT: "kthena-router"}}, "podMetricsEndpoints": [{"portNumber": 8080}]}), true)]
    #[case::by_old_number(json!({"selector": {}, "podMetricsEndpoints": [{"targetPort": 8080}]}), true)]
    #[case::other_number(json!({"selector": {}, "podMetricsEndpoints": [{"portNumber": 9090}]}), false)]
    #[case::engines(json!({"selector": {"matchLabels": {"modelserving.volcano.sh/entry": "true"}}, "podMetricsEndpoints": [{"port": "http"}]}), false)]
    fn yields_to_a_foreign_pod_monitor(#[case] spec: Value, #[case] scrapes: bool) {
        let objects = [
            service("kthena-router", "kthena-router", "http"),
            monitor("PodMonitor", "kthena-system", &spec),
        ];
        let plan = planned(&objects, CreateMonitors::UnlessScraped);
        let source = if scrapes {
            ScrapeSource::Job("kthena-system/theirs".to_owned())
        } else {
            ScrapeSource::Service("kthena-router".to_owned())
        };
        assert_eq!((applied(&plan).is_none(), plan.series.source), (scrapes, source));
        // The operator's own monitor makes the series carry the Service's name.
        let always = planned(&objects, CreateMonitors::Always);
        assert_eq!(
            (applied(&always).is_some(), always.series.source),
            (true, ScrapeSource::Service("kthena-router".to_owned()))
        );
    }

    #[test]
    fn keeps_the_monitor_with_an_invalid_profile() {
        let objects = [service("kthena-router", "kthena-router", "http")];
        let plan = plan_router(&observed(&objects), Some(&Err("bad".to_owned())), &Profile::built_in(), true);
        assert!(matches!(plan.service_monitor, Desired::Keep));
        assert_eq!(plan.series.source, ScrapeSource::Service("kthena-router".to_owned()));
    }

    fn monitor_with_generated_name(labels: &Value) -> Value {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "metadata": {"name": ROUTER_SERVICE_MONITOR, "namespace": "kthena-system", "labels": labels}, "spec": {"selector": {}, "endpoints": []},
        })
    }

    #[rstest]
    #[case::owned(json!({MANAGED_BY: OPERATOR}), Desired::Remove, false)]
    #[case::foreign(json!({}), Desired::Keep, true)]
    fn removes_only_an_owned_monitor(
        #[case] labels: Value,
        #[case] removal: Desired<()>,
        #[case] problem: bool,
    ) {
        let objects =
            [service("kthena-router", "kthena-router", "http"), monitor_with_generated_name(&labels)];
        let wanted = planned(&objects, CreateMonitors::UnlessScraped);
        assert_eq!((applied(&wanted).is_none(), wanted.problem.is_some()), (problem, problem));
        let settings = Profile::built_in().monitors;
        for plan in [
            planned(&objects, CreateMonitors::Never),
            plan_with(&observed(&objects), &settings, false),
            plan_with(&observed(&objects[1..]), &settings, false),
        ] {
            let found = match plan.service_monitor {
                Desired::Apply(_) => Desired::Apply(()),
                Desired::Keep => Desired::Keep,
                Desired::Remove => Desired::Remove,
            };
            assert_eq!(found, removal);
        }
    }
}
