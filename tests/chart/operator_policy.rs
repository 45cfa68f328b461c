//! The admission policy for the operator's service account rejects writes that the operator does not make.
//!
//! Every test with an API server runs the operator under this policy.

use harness::{Crds, Identity, OPERATOR, Stack, kinds, stack::resource, wait::until_asked};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const POLICY: &str = "kthena-keda-operator";
const NAMESPACE: &str = "kthena-system";
const SECRET: fn() -> Value = || json!({"name": "token", "key": "token"});

fn service_monitors() -> ApiResource {
    resource("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
}

async fn client(stack: &Stack, identity: &Identity) -> Client {
    stack.control_plane.client(identity).await
}

fn object(kind: &ApiResource, name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    }))
    .unwrap()
}

/// A ServiceMonitor whose endpoint has these further fields.
fn service_monitor(endpoint: &Value) -> DynamicObject {
    let mut spec = json!({
        "namespaceSelector": {"matchNames": [NAMESPACE]}, "selector": {"matchLabels": {"a": "b"}}, "endpoints": [{"port": "http", "interval": "15s"}],
    });
    let all = endpoint.as_object().unwrap().clone();
    spec["endpoints"][0].as_object_mut().unwrap().extend(all);
    object(&service_monitors(), "kthena-keda-router", &spec)
}

/// A PodMonitor with one further relabeling.
fn pod_monitor(relabeling: &Value) -> DynamicObject {
    let spec = json!({
        "namespaceSelector": {"matchNames": [NAMESPACE]}, "selector": {"matchLabels": {"a": "b"}},
        "podMetricsEndpoints": [{"path": "/metrics", "relabelings": [relabeling]}],
    });
    object(&kinds::pod_monitor(), "kthena-keda-chat", &spec)
}

fn scaled_object(target: &Value, trigger: &str) -> DynamicObject {
    let metadata = json!({"serverAddress": "http://p", "query": "1", "threshold": "1"});
    let spec = json!({"scaleTargetRef": target, "triggers": [{"type": trigger, "metadata": metadata}]});
    object(&kinds::scaled_object(), "chat", &spec)
}

fn model_serving() -> Value {
    json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"})
}

/// A write of the operator's service account, and the part of the message with which the policy rejects it; `None` if it
/// accepts it.
type Write = (&'static str, ApiResource, DynamicObject, Option<&'static str>);

/// ServiceMonitors by the fields of their endpoint.
fn endpoints() -> Vec<Write> {
    let secret = || json!({"secret": SECRET()});
    let tls = json!({"ca": secret(), "cert": secret(), "keySecret": SECRET(), "serverName": "r", "insecureSkipVerify": true});
    let basic_auth = json!({"username": SECRET(), "password": SECRET()});
    let oauth2 = json!({"clientId": secret(), "clientSecret": SECRET(), "tokenUrl": "http://t"});
    let rows = vec![
        ("plain", json!({}), None),
        ("TLS", json!({"scheme": "https", "tlsConfig": tls}), None),
        ("field of a webhook", json!({"scrapeTimeout": "10s", "honorLabels": true}), None),
        (
            "label of a webhook",
            json!({"relabelings": [{"targetLabel": "cluster", "replacement": "a"}]}),
            None,
        ),
        ("basicAuth", json!({"basicAuth": basic_auth}), Some("of an endpoint: basicAuth")),
        (
            "authorization",
            json!({"authorization": {"credentials": SECRET()}}),
            Some("of an endpoint: authorization"),
        ),
        ("oauth2", json!({"oauth2": oauth2}), Some("of an endpoint: oauth2")),
        ("secret", json!({"bearerTokenSecret": SECRET()}), Some("of an endpoint: bearerTokenSecret")),
        ("file", json!({"bearerTokenFile": "/var/run/token"}), Some("of an endpoint: bearerTokenFile")),
        ("proxy", json!({"proxyUrl": "http://proxy"}), Some("of an endpoint: proxyUrl")),
        ("parameters", json!({"params": {"a": ["b"]}}), Some("of an endpoint: params")),
        ("file of TLS", json!({"tlsConfig": {"caFile": "/etc/passwd"}}), Some("of tlsConfig: caFile")),
    ];
    let write = |(note, endpoint, expected)| (note, service_monitors(), service_monitor(&endpoint), expected);
    rows.into_iter().map(write).collect()
}

/// ServiceMonitors by their other fields.
fn service_monitor_specs() -> Vec<Write> {
    let own = "namespaceSelector is their own";
    let second = json!([{"port": "a"}, {"port": "b", "bearerTokenSecret": SECRET()}]);
    let rows = vec![
        ("limit of a webhook", "labelLimit", json!(30), None),
        ("scrape class", "scrapeClass", json!("authenticated"), Some("of a monitor: scrapeClass")),
        ("all namespaces", "namespaceSelector", json!({"any": true}), Some(own)),
        ("another namespace", "namespaceSelector", json!({"matchNames": ["default"]}), Some(own)),
        ("a second endpoint", "endpoints", second, Some("of an endpoint: bearerTokenSecret")),
    ];
    let write = |(note, field, value, expected): (_, &str, Value, _)| {
        let mut monitor = service_monitor(&json!({}));
        monitor.data["spec"][field] = value;
        (note, service_monitors(), monitor, expected)
    };
    let mut theirs = service_monitor(&json!({}));
    theirs.metadata.name = Some("prometheus".to_owned());
    let theirs = ("another name", service_monitors(), theirs, Some("whose names begin with"));
    rows.into_iter().map(write).chain([theirs]).collect()
}

/// PodMonitors by a relabeling.
fn relabelings() -> Vec<Write> {
    let address = |source: &str, replacement: &str| json!({"sourceLabels": [source], "targetLabel": "__address__", "replacement": replacement});
    let (ip, other) = ("__meta_kubernetes_pod_ip", Some("IP address of each target"));
    let rows = vec![
        ("an address of the pod", address(ip, "$1:8000"), None),
        ("an IPv6 address of the pod", address(ip, "[$1]:8000"), None),
        ("a fixed address", address(ip, "evil.example.com:80"), other),
        ("an address behind the port", address(ip, "$1:80.evil.example.com"), other),
        ("an address of an annotation", address("__meta_kubernetes_pod_annotation_a", "$1:80"), other),
        ("a path", json!({"targetLabel": "__metrics_path__", "replacement": "/secret"}), other),
        (
            "a map of labels",
            json!({"action": "labelmap", "regex": "__meta_kubernetes_pod_label_(.+)"}),
            other,
        ),
    ];
    let write =
        |(note, relabeling, expected)| (note, kinds::pod_monitor(), pod_monitor(&relabeling), expected);
    rows.into_iter().map(write).collect()
}

/// ScaledObjects by their target and the type of their trigger.
fn scaled_objects() -> Vec<Write> {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"});
    let rows = vec![
        ("a ModelServing", model_serving(), "prometheus", None),
        ("a Deployment", deployment, "prometheus", Some("only ScaledObjects of ModelServings")),
        ("another trigger", model_serving(), "metrics-api", Some("triggers of the type prometheus")),
    ];
    let write = |(note, target, trigger, expected): (_, Value, &str, _)| {
        (note, kinds::scaled_object(), scaled_object(&target, trigger), expected)
    };
    rows.into_iter().map(write).collect()
}

async fn is_enforced(api: &Api<DynamicObject>) {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let rejection = async || {
        let monitor = service_monitor(&json!({"bearerTokenSecret": SECRET()}));
        api.create(&dry_run, &monitor).await.err().map(|error| error.to_string())
    };
    let by_policy = |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains(POLICY));
    until_asked("the policy is enforced", rejection, by_policy).await;
}

fn namespaced(client: &Client, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), NAMESPACE, kind)
}

fn message(error: kube::Error) -> String {
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert!(status.message.contains(POLICY), "{}", status.message);
    status.message.clone()
}

#[tokio::test]
async fn a_stolen_token_writes_only_what_the_operator_writes() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let (thief, admin) = (client(&stack, &OPERATOR).await, client(&stack, &Identity::Admin).await);
    is_enforced(&namespaced(&thief, &service_monitors())).await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mut differences = Vec::new();
    for (note, kind, object, expected) in
        [endpoints(), service_monitor_specs(), relabelings(), scaled_objects()].concat()
    {
        let found = namespaced(&thief, &kind).create(&dry_run, &object).await.map_err(message).err();
        let is_expected = match (expected, &found) {
            (None, None) => true,
            (Some(part), Some(message)) => message.contains(part),
            _ => false,
        };
        if !is_expected {
            differences.push(format!("{note}: {found:?}"));
        }
        namespaced(&admin, &kind).create(&dry_run, &object).await.expect("other users may write it");
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Credentials that another client set may stay, but not with other targets.
#[tokio::test]
async fn a_stolen_token_sends_no_credentials_elsewhere() {
    let stack = Stack::start(&[Crds::prometheus_operator()]).await;
    let (thief, admin) = (client(&stack, &OPERATOR).await, client(&stack, &Identity::Admin).await);
    let kind = service_monitors();
    let mut monitor = service_monitor(&json!({"basicAuth": {"username": SECRET(), "password": SECRET()}}));
    monitor.data["spec"]["scrapeClass"] = json!("authenticated");
    monitor.data["spec"]["jobLabel"] = json!("job");
    namespaced(&admin, &kind).create(&PostParams::default(), &monitor).await.unwrap();
    let api = namespaced(&thief, &kind);
    is_enforced(&api).await;
    let basic_auth = Some("of an endpoint: basicAuth");
    let changes = [
        (json!({"metadata": {"labels": {"a": "b"}}}), None),
        (json!({"spec": {"sampleLimit": 5}}), None),
        (json!({"spec": {"jobLabel": null}}), None),
        (json!({"spec": {"scrapeClass": null, "endpoints": [{"port": "http"}]}}), None),
        (json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}), basic_auth),
        (json!({"spec": {"namespaceSelector": {"any": true, "matchNames": null}}}), basic_auth),
        (json!({"spec": {"scrapeClass": "other"}}), Some("of a monitor: scrapeClass")),
    ];
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    for (change, expected) in changes {
        let patched = api.patch("kthena-keda-router", &dry_run, &Patch::Merge(&change)).await;
        let found = patched.map_err(message).err();
        let is_expected = match (expected, &found) {
            (None, None) => true,
            (Some(part), Some(message)) => message.contains(part),
            _ => false,
        };
        assert!(is_expected, "{change}: {found:?}");
    }
}

#[tokio::test]
async fn a_stolen_token_deletes_only_objects_of_the_operators_kind() {
    let stack = Stack::start(&[Crds::keda(), Crds::prometheus_operator()]).await;
    let (thief, admin) = (client(&stack, &OPERATOR).await, client(&stack, &Identity::Admin).await);
    is_enforced(&namespaced(&thief, &service_monitors())).await;
    let own = [
        (service_monitors(), service_monitor(&json!({}))),
        (kinds::scaled_object(), scaled_object(&model_serving(), "prometheus")),
    ];
    let mut theirs = service_monitor(&json!({}));
    theirs.metadata.name = Some("theirs".to_owned());
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let mut web = scaled_object(&deployment, "cpu");
    web.metadata.name = Some("web".to_owned());
    let others = [(service_monitors(), theirs), (kinds::scaled_object(), web)];
    for (is_own, (kind, object)) in
        own.map(|row| (true, row)).into_iter().chain(others.map(|row| (false, row)))
    {
        namespaced(&admin, &kind).create(&PostParams::default(), &object).await.unwrap();
        let name = object.metadata.name.unwrap();
        let deleted = namespaced(&thief, &kind).delete(&name, &DeleteParams::default()).await;
        assert_eq!(deleted.map(drop).map_err(message).is_ok(), is_own, "{name}");
    }
}
