use super::{super::tests::action, *};
use crate::{
    domain::key,
    observed::{
        LivePodMonitor, LiveServiceMonitor, MonitorDigest, Readable, RouterService, Sample, ScrapeEvidence,
        UnreadKind,
    },
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
    let mut router = ObservedRouter { namespace: "kthena-system".to_owned(), ..ObservedRouter::default() };
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

/// Prometheus answers with the number of successful scrapes of each job and Service.
fn shown(targets: &[(&str, &str, f64)]) -> ScrapeEvidence {
    let sample = |(job, service, value): &(&str, &str, f64)| {
        let labels = [("job", *job), ("service", *service)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Sample { labels: labels.into(), value: *value }
    };
    ScrapeEvidence::read(targets.iter().map(sample).collect())
}

/// A Prometheus that uses every foreign monitor of the tests.
fn all_shown() -> ScrapeEvidence {
    shown(&[("kthena-router", "kthena-router", 8.0), ("kthena-system/theirs", "", 8.0)])
}

fn creating(create: CreateMonitors) -> Profile {
    let monitors = MonitorSettings { create: Some(create), ..Profile::built_in().monitors };
    Profile { monitors, ..Profile::built_in() }
}

fn planned_with(objects: &[Value], create: CreateMonitors, evidence: ScrapeEvidence) -> RouterPlan {
    plan_with(&ObservedRouter { evidence, ..observed(objects) }, &creating(create), true)
}

fn planned(objects: &[Value], create: CreateMonitors) -> RouterPlan {
    planned_with(objects, create, all_shown())
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
    assert_eq!(plan.router.series.source, ScrapeSource::Service(name.to_owned()));
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
fn yields_to_a_foreign_service_monitor(#[case] namespace: &str, #[case] spec: Value, #[case] scrapes: bool) {
    let objects =
        [service("kthena-router", "kthena-router", "http"), monitor("ServiceMonitor", namespace, &spec)];
    let plan = planned(&objects, CreateMonitors::UnlessScraped);
    assert_eq!(applied(&plan).is_none(), scrapes);
    assert_eq!(plan.router.series.source, ScrapeSource::Service("kthena-router".to_owned()));
    assert!(applied(&planned(&objects, CreateMonitors::Always)).is_some());
}

#[rstest]
#[case::by_port_name(json!({"selector": {"matchLabels": {COMPONENT: "kthena-router"}}, "podMetricsEndpoints": [{"port": "http"}]}), true)]
#[case::by_number(json!({"selector": {"matchLabels": {COMPONENT: "kthena-router"}}, "podMetricsEndpoints": [{"portNumber": 8080}]}), true)]
#[case::by_old_number(json!({"selector": {}, "podMetricsEndpoints": [{"targetPort": 8080}]}), true)]
#[case::other_number(json!({"selector": {}, "podMetricsEndpoints": [{"portNumber": 9090}]}), false)]
#[case::engines(json!({"selector": {"matchLabels": {"modelserving.volcano.sh/entry": "true"}}, "podMetricsEndpoints": [{"port": "http"}]}), false)]
fn yields_to_a_foreign_pod_monitor(#[case] spec: Value, #[case] scrapes: bool) {
    let objects =
        [service("kthena-router", "kthena-router", "http"), monitor("PodMonitor", "kthena-system", &spec)];
    let plan = planned(&objects, CreateMonitors::UnlessScraped);
    let source = if scrapes {
        ScrapeSource::Job("kthena-system/theirs".to_owned())
    } else {
        ScrapeSource::Service("kthena-router".to_owned())
    };
    assert_eq!((applied(&plan).is_none(), plan.router.series.source), (scrapes, source));
    // The operator's own monitor makes the series carry the Service's name.
    let always = planned(&objects, CreateMonitors::Always);
    assert_eq!(
        (applied(&always).is_some(), always.router.series.source),
        (true, ScrapeSource::Service("kthena-router".to_owned()))
    );
}

#[test]
fn keeps_the_monitor_with_an_invalid_profile() {
    let objects = [service("kthena-router", "kthena-router", "http")];
    let plan = plan_router(&observed(&objects), Some(&Err("bad".to_owned())), &Profile::built_in(), true);
    assert!(matches!(plan.service_monitor, Desired::Keep));
    assert_eq!(plan.router.series.source, ScrapeSource::Service("kthena-router".to_owned()));
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
fn removes_only_an_owned_monitor(#[case] labels: Value, #[case] removal: Desired<()>, #[case] problem: bool) {
    let objects = [service("kthena-router", "kthena-router", "http"), monitor_with_generated_name(&labels)];
    let wanted = planned(&objects, CreateMonitors::UnlessScraped);
    assert_eq!((applied(&wanted).is_none(), wanted.router.problem.is_some()), (problem, problem));
    let settings = Profile::built_in();
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

fn plain(namespace: &str) -> Value {
    monitor(
        "ServiceMonitor",
        namespace,
        &json!({"namespaceSelector": {"any": true}, "selector": {}, "endpoints": [{"port": "http", "interval": "15s"}]}),
    )
}

fn plain_pods(namespace: &str) -> Value {
    monitor(
        "PodMonitor",
        namespace,
        &json!({"namespaceSelector": {"any": true}, "selector": {}, "podMetricsEndpoints": [{"port": "http"}]}),
    )
}

fn router_service() -> Value {
    service("kthena-router", "kthena-router", "http")
}

fn source_of(plan: &RouterPlan) -> String {
    match &plan.router.series.source {
        ScrapeSource::Service(name) => format!("service {name}"),
        ScrapeSource::Job(job) => format!("job {job}"),
        ScrapeSource::Query(query) => query.to_string(),
    }
}

/// A foreign monitor counts while Prometheus may still show it or shows it; without an answer it does not.
#[rstest]
#[case::awaited(plain("monitoring"), ScrapeEvidence::Awaited, "keep", "service kthena-router")]
#[case::shown(plain("monitoring"), shown(&[("kthena-router", "kthena-router", 8.0)]), "keep", "service kthena-router")]
#[case::not_shown(plain("monitoring"), shown(&[]), "apply", "service kthena-router")]
#[case::another_service(plain("monitoring"), shown(&[("x", "another", 8.0)]), "apply", "service kthena-router")]
#[case::one_scrape_a_minute(plain("monitoring"), shown(&[("kthena-router", "kthena-router", 2.0)]), "apply", "service kthena-router")]
#[case::pods_awaited(plain_pods("team-evil"), ScrapeEvidence::Awaited, "keep", "job team-evil/theirs")]
#[case::pods_shown(plain_pods("team-evil"), shown(&[("team-evil/theirs", "", 4.0)]), "keep", "job team-evil/theirs")]
#[case::pods_not_shown(plain_pods("team-evil"), shown(&[("team-evil/others", "", 4.0)]), "apply", "service kthena-router")]
fn believes_a_foreign_monitor_that_prometheus_shows(
    #[case] foreign: Value,
    #[case] evidence: ScrapeEvidence,
    #[case] expected: &str,
    #[case] source: &str,
) {
    let plan = planned_with(&[router_service(), foreign], CreateMonitors::UnlessScraped, evidence);
    assert!(plan.needs_evidence);
    assert_eq!((action(&plan.service_monitor), source_of(&plan).as_str()), (expected, source));
    assert_eq!(plan.beside.is_some(), expected == "apply");
}

/// A foreign monitor that changes series, or leaves too few of them, is never enough.
#[rstest]
#[case::rare("ServiceMonitor", json!({"interval": "2m"}), "the ServiceMonitor monitoring/theirs selects kthena-router too, but scrapes it only every 2m")]
#[case::drops_pod("ServiceMonitor", json!({"relabelings": [{"action": "labeldrop", "regex": "pod"}]}), "relabelings")]
#[case::drops_series("ServiceMonitor", json!({"metricRelabelings": [{"action": "drop", "sourceLabels": ["model"], "regex": "victim"}]}), "metricRelabelings")]
#[case::other_server("PodMonitor", json!({"proxyUrl": "http://evil"}), "proxyUrl")]
#[case::parameters("PodMonitor", json!({"params": {"name[]": ["x"]}}), "params")]
fn creates_its_own_monitor_beside_an_unfit_one(
    #[case] kind: &str,
    #[case] fields: Value,
    #[case] expected: &str,
) {
    let mut endpoint = json!({"port": "http"});
    endpoint.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let spec = json!({"namespaceSelector": {"any": true}, "selector": {}, "endpoints": [endpoint], "podMetricsEndpoints": [endpoint]});
    let objects = [router_service(), monitor(kind, "monitoring", &spec)];
    let evidence = shown(&[("kthena-router", "kthena-router", 8.0), ("monitoring/theirs", "", 8.0)]);
    for evidence in [ScrapeEvidence::Awaited, evidence] {
        let plan = planned_with(&objects, CreateMonitors::UnlessScraped, evidence);
        assert_eq!(
            (action(&plan.service_monitor), source_of(&plan).as_str()),
            ("apply", "service kthena-router")
        );
        assert!(!plan.needs_evidence);
        let beside = plan.beside.unwrap();
        assert!(beside.contains(expected), "{beside}");
    }
}

#[rstest]
#[case::tls(json!({"scheme": "https", "tlsConfig": {"insecureSkipVerify": true}}))]
#[case::empty_lists(json!({"relabelings": [], "metricRelabelings": []}))]
#[case::half_a_minute(json!({"interval": "30s", "scrapeTimeout": "10s"}))]
fn accepts_an_endpoint_that_changes_nothing(#[case] fields: Value) {
    let mut endpoint = json!({"port": "http"});
    endpoint.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let foreign =
        monitor("ServiceMonitor", "kthena-system", &json!({"selector": {}, "endpoints": [endpoint]}));
    let plan = planned(&[router_service(), foreign], CreateMonitors::UnlessScraped);
    assert_eq!(action(&plan.service_monitor), "keep");
}

/// Another tenant's monitor neither removes the operator's own nor changes the queries, whatever Prometheus
/// shows.
#[rstest]
#[case(plain("team-evil"))]
#[case(plain_pods("team-evil"))]
fn keeps_its_own_monitor_beside_a_foreign_one(#[case] foreign: Value) {
    let own = monitor_with_generated_name(&json!({MANAGED_BY: OPERATOR}));
    let without = planned(&[router_service(), own.clone()], CreateMonitors::UnlessScraped);
    for evidence in
        [ScrapeEvidence::Awaited, shown(&[]), shown(&[("team-evil/theirs", "kthena-router", 8.0)])]
    {
        let objects = [router_service(), own.clone(), foreign.clone()];
        let plan = planned_with(&objects, CreateMonitors::UnlessScraped, evidence);
        assert_eq!(applied(&plan), applied(&without));
        assert_eq!(
            (plan.router.series, plan.needs_evidence, plan.beside),
            (without.router.series.clone(), false, None)
        );
    }
    let never = planned(&[router_service(), own, foreign], CreateMonitors::Never);
    assert_eq!(action(&never.service_monitor), "remove");
}

/// Without a monitor of its own the operator locates the series by the platform's monitor, and not by one that
/// Prometheus does not use.
#[test]
fn prefers_the_monitor_that_is_used() {
    let tenant = plain_pods("a-tenant");
    let platform = plain_pods("monitoring");
    let objects = [router_service(), tenant.clone(), platform];
    let evidence = shown(&[("monitoring/theirs", "", 8.0)]);
    let plan = planned_with(&objects, CreateMonitors::Never, evidence.clone());
    assert_eq!((source_of(&plan).as_str(), plan.needs_evidence), ("job monitoring/theirs", true));
    let beside = [router_service(), tenant, plain_pods("kthena-system")];
    let plan = planned_with(&beside, CreateMonitors::Never, ScrapeEvidence::Awaited);
    assert_eq!(source_of(&plan), "job kthena-system/theirs");
}

/// A tenant can create a monitor at any time. It moves the queries of all models only if Prometheus uses it.
#[rstest]
#[case::not_used("team-evil", shown(&[]), "service kthena-router")]
#[case::no_answer_yet("team-evil", ScrapeEvidence::Awaited, "service kthena-router")]
#[case::used("team-evil", shown(&[("team-evil/theirs", "", 8.0)]), "job team-evil/theirs")]
#[case::beside_the_router("kthena-system", shown(&[]), "job kthena-system/theirs")]
fn moves_the_queries_only_to_a_monitor_that_is_used(
    #[case] namespace: &str,
    #[case] evidence: ScrapeEvidence,
    #[case] expected: &str,
) {
    let plan = planned_with(&[router_service(), plain_pods(namespace)], CreateMonitors::Never, evidence);
    assert_eq!((source_of(&plan).as_str(), plan.needs_evidence), (expected, true));
}

fn problem_of(plan: &RouterPlan) -> &str {
    plan.router.problem.as_ref().map_or("", RouterProblem::message)
}

/// Without a recognized Service, the message names the expected label and port, and what comes close.
#[rstest]
#[case::none(&[], "found: no similar Service exists")]
#[case::port_renamed(&[service("kthena-router", "kthena-router", "http-inference")], "found: Service kthena-router with ports named http-inference)")]
#[case::port_without_name(&[service("kthena-router", "kthena-router", "")], "found: Service kthena-router with a port without a name)")]
#[case::other_component(&[service("my-kthena-router", "gateway", "http")], "found: Service my-kthena-router with ports named http and another component)")]
#[case::unrelated(&[service("redis", "redis", "http")], "found: no similar Service exists")]
fn names_the_services_that_it_does_not_recognize(#[case] services: &[Value], #[case] expected: &str) {
    let plan = planned(services, CreateMonitors::UnlessScraped);
    let problem = problem_of(&plan);
    assert!(problem.contains(expected), "{problem}");
    assert!(
        problem.contains("the label app.kubernetes.io/component: kthena-router and a port named http"),
        "{problem}"
    );
    assert_eq!(problem_of(&planned(services, CreateMonitors::Never)), "");
}

#[test]
fn scrapes_over_tls_as_the_default_profile_says() {
    let spec = json!({"router": {"scheme": "https", "tlsConfig": {
        "ca": {"configMap": {"name": "ca", "key": "ca.crt"}}, "serverName": "router", "insecureSkipVerify": true,
        "cert": {"secret": {"name": "client", "key": "tls.crt"}}, "keySecret": {"name": "client", "key": "tls.key"},
    }}});
    let profile = Profile::read(&serde_json::from_value(spec.clone()).unwrap()).unwrap();
    let plan = plan_router(&observed(&[router_service()]), Some(&Ok(profile)), &Profile::built_in(), true);
    let endpoint = serde_json::to_value(&applied(&plan).unwrap().endpoints[0]).unwrap();
    assert_eq!(
        endpoint,
        json!({"port": "http", "path": "/metrics", "interval": "15s", "scheme": "https", "tlsConfig": spec["router"]["tlsConfig"]})
    );
    assert_eq!(problem_of(&plan), "");
}

#[rstest]
#[case::port(json!({"port": 443}), true)]
#[case::protocol(json!({"appProtocol": "https"}), true)]
#[case::prefixed_protocol(json!({"appProtocol": "kubernetes.io/https"}), true)]
#[case::plain(json!({"appProtocol": "http"}), false)]
fn suspects_tls_of_a_port_that_declares_it(#[case] fields: Value, #[case] expected: bool) {
    let mut service = router_service();
    service["spec"]["ports"][0].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let plan = planned(&[service], CreateMonitors::UnlessScraped);
    assert_eq!(problem_of(&plan).contains("set router.scheme: https"), expected);
    assert_eq!(action(&plan.service_monitor), "apply");
}

/// The only monitor of the router leaves rates without data, and the platform does not let the operator create
/// its own.
#[test]
fn names_the_interval_of_the_only_monitor() {
    let spec = json!({"namespaceSelector": {"any": true}, "selector": {}, "endpoints": [{"port": "http", "interval": "2m"}]});
    let objects = [router_service(), monitor("ServiceMonitor", "monitoring", &spec)];
    let plan = planned(&objects, CreateMonitors::Never);
    assert!(matches!(plan.router.problem, Some(RouterProblem::UnfitMonitor(_))));
    let expected = "the ServiceMonitor monitoring/theirs scrapes it only every 2m, which leaves rates without data; correct it";
    assert!(problem_of(&plan).starts_with(expected), "{}", problem_of(&plan));
}

/// Another monitor may exist, and the models of other instances may be opted in.
#[rstest]
fn keeps_the_monitor_while_an_input_cannot_be_read(
    #[values(true, false)] any_opted_in: bool,
    #[values(Readable::Forbidden, Readable::NotYet)] readable: Readable,
) {
    let objects = [router_service(), monitor_with_generated_name(&json!({MANAGED_BY: OPERATOR}))];
    for objects in [&objects[..], &objects[..1]] {
        let unread = UnreadKind::of::<LiveServiceMonitor>(readable).into_iter().collect();
        let router = ObservedRouter { unread, ..observed(objects) };
        let plan = plan_router(&router, None, &Profile::built_in(), any_opted_in);
        assert_eq!(action(&plan.service_monitor), "keep");
        assert!(problem_of(&plan).contains("servicemonitors"));
    }
}

/// Other kinds of Services of the router get the same monitor, which selects every release in the namespace.
#[rstest]
#[case::headless(&[with_spec("kthena-router", "clusterIP", &json!("None"))])]
#[case::without_selector(&[with_spec("kthena-router", "selector", &json!(null))])]
#[case::ipv6(&[with_spec("kthena-router", "ipFamilies", &json!(["IPv6"]))])]
#[case::two_releases(&[service("z-router", "kthena-router", "http"), service("kthena-router", "kthena-router", "http")])]
fn scrapes_every_kind_of_service(#[case] services: &[Value]) {
    let labelled = monitor(
        "PodMonitor",
        "kthena-system",
        &json!({"selector": {"matchLabels": {"app": "other"}}, "podMetricsEndpoints": [{"port": "http"}]}),
    );
    let objects: Vec<Value> = services.iter().cloned().chain([labelled]).collect();
    let plan = planned(&objects, CreateMonitors::UnlessScraped);
    let expected = BTreeMap::from([(COMPONENT.to_owned(), "kthena-router".to_owned())]);
    assert_eq!(applied(&plan).unwrap().selector.match_labels, Some(expected));
    assert_eq!((source_of(&plan).as_str(), problem_of(&plan)), ("service kthena-router", ""));
}

fn with_spec(name: &str, field: &str, value: &Value) -> Value {
    let mut service = service(name, "kthena-router", "http");
    service["spec"][field] = value.clone();
    service
}
