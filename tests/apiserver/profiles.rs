//! AutoscalingProfiles: validation, use by ModelServings, and status.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use harness::{Crds, Identity, Namespace, Settings, Stack, control_plane::binary, kinds, wait};
use kthena_keda_core::{api::profile::AutoscalingProfileSpec, intent::Profile};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::shared::{BINARY, namespace, stack};

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn profiles(namespace: &Namespace) -> Api<DynamicObject> {
    Api::all_with(namespace.client.clone(), &kinds::profile())
}

fn profile(name: &str, spec: &Value) -> DynamicObject {
    let object = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": name}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

async fn create(namespace: &Namespace, name: &str, spec: &Value) -> DynamicObject {
    profiles(namespace).create(&PostParams::default(), &profile(name, spec)).await.unwrap()
}

async fn edit(namespace: &Namespace, name: &str, spec: Value) {
    profiles(namespace)
        .patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec})))
        .await
        .unwrap();
}

fn ready_condition(profile: &DynamicObject) -> Option<(&str, &str)> {
    let found = profile.data["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == "Ready")?;
    Some((found["status"].as_str()?, found["message"].as_str()?))
}

#[rstest]
#[case(json!({"replicas": {"min": 3, "max": 2}}), "min must be less than or equal to max")]
#[case(json!({"replicas": {"min": -1}}), "spec.replicas.min")]
#[case(json!({"replicas": {"max": 0}}), "spec.replicas.max")]
#[case(json!({"signals": []}), "spec.signals")]
#[case(json!({"signals": [{"name": "load", "target": "1"}]}), "spec.signals[0].name")]
#[case(json!({"signals": [{"name": "active-requests", "target": "ten"}]}), "spec.signals[0].target")]
#[case(json!({"signals": [{"name": "active-requests", "target": "0"}]}), "must be at least 0.001")]
#[case(json!({"signals": [{"name": "active-requests", "target": "1"}, {"name": "active-requests", "target": "2"}]}), "Duplicate value")]
#[case(json!({"signals": [{"name": "ttft-p90", "target": "2s"}]}), "must have a signal of the router beside ttft-p90")]
#[case(json!({"signals": [{"name": "active-requests", "target": "1"}, {"name": "ttft-p90", "target": "2"}]}), "must be a duration such as 2s")]
#[case(json!({"signals": [{"name": "active-requests", "target": "1"}, {"name": "itl-p90", "target": "19ms"}]}), "must be a duration such as 50ms")]
#[case(json!({"signals": [{"name": "engine-queue", "target": "5s"}]}), "must be a number, because only ttft-p90")]
#[case(json!({"signals": [{"name": "active-requests", "target": "1"}, {"name": "ttft-p90", "target": "2s"}], "customSignals": [{"name": "ttft-p90", "query": "sum(a)", "target": "1"}]}), "must not contain a name of signals")]
#[case(json!({"backlog": {"serviceTime": "50ms"}}), "must be off, auto, or from 100ms to 1h")]
#[case(json!({"backlog": {"headroom": "0.5"}}), "must be from 1 to 3")]
#[case(json!({"backlog": {"drainTime": "30s"}}), "must be from 1m to 1h")]
#[case(json!({"pollingInterval": "0s"}), "must be from 1s to 1h")]
#[case(json!({"pollingInterval": "fast"}), "spec.pollingInterval")]
#[case(json!({"scaleUp": {"stabilizationWindow": "2h"}}), "must be at most 1h")]
#[case(json!({"scaleDown": {"policies": []}}), "spec.scaleDown.policies")]
#[case(json!({"scaleDown": {"policies": [{"type": "Pods", "value": 0, "period": "1m"}]}}), "spec.scaleDown.policies[0].value")]
#[case(json!({"scaleDown": {"policies": [{"type": "Pods", "value": 1, "period": "40m"}]}}), "must be from 1s to 30m")]
#[case(json!({"scaleDown": {"select": "Sometimes"}}), "spec.scaleDown.select")]
#[case(json!({"scaleToZero": {"cooldown": "25h"}}), "must be at most 24h")]
#[case(json!({"monitors": {"interval": "45s"}}), "must be from 1s to 30s")]
#[case(json!({"prometheus": {}}), "spec.prometheus.url")]
#[case(json!({"prometheus": {"url": "prometheus:9090"}}), "spec.prometheus.url")]
#[case(json!({"prometheus": {"url": "http://prometheus:9090/"}}), "spec.prometheus.url")]
#[case(json!({"prometheus": {"url": "http://p", "authModes": ["bearer"]}}), "authModes requires authenticationRef")]
#[case(json!({"prometheus": {"url": "http://p", "authenticationRef": {"name": "a"}, "authModes": ["bearer", "basic"]}}), "must not contain both bearer and basic")]
#[case(json!({"prometheus": {"url": "http://p", "authenticationRef": {"name": "a"}, "authModes": ["digest"]}}), "spec.prometheus.authModes[0]")]
#[case(json!({"prometheus": {"url": "http://p", "headers": {"X": "a=b"}}}), "names must be HTTP header names")]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"__name__": "up"}}}), "names must be label names")]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"a.b": "c"}}}), "names must be label names")]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"model": "m"}}}), "must not contain a label that the queries match")]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"cluster": ""}}}), "spec.prometheus.matchers.cluster")]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"cluster": "a\nb"}}}), "spec.prometheus.matchers.cluster")]
#[case(json!({"customSignals": [{"name": "kv-cache", "query": "sum(a)", "target": "1"}]}), "must not be the name of a built-in signal")]
#[case(json!({"customSignals": [{"name": "Queue", "query": "sum(a)", "target": "1"}]}), "spec.customSignals[0].name")]
#[case(json!({"customSignals": [{"name": "q", "target": "1"}]}), "spec.customSignals[0].query")]
#[case(json!({"customSignals": [{"name": "q", "query": "", "target": "1"}]}), "spec.customSignals[0].query")]
#[case(json!({"customSignals": [{"name": "q", "query": "sum(a)", "target": "0"}]}), "must be at least 0.001")]
#[case(json!({"customSignals": [{"name": "q", "query": "sum(a)", "target": "1", "metricType": "Utilization"}]}), "spec.customSignals[0].metricType")]
#[case(json!({"customSignals": [{"name": "q", "query": "sum(a)", "target": "1"}, {"name": "q", "query": "sum(b)", "target": "1"}]}), "Duplicate value")]
#[case(json!({"router": {"namespace": "Kthena"}}), "spec.router.namespace")]
#[case(json!({"router": {"scheme": "ftp"}}), "spec.router.scheme")]
#[case(json!({"router": {"tlsConfig": {"insecureSkipVerify": true}}}), "tlsConfig requires scheme https")]
#[case(json!({"router": {"scheme": "https", "tlsConfig": {"cert": {"secret": {"name": "a", "key": "b"}}}}}), "cert and keySecret require each other")]
#[case(json!({"router": {"scheme": "https", "tlsConfig": {"ca": {"secret": {"name": "A", "key": "b"}}}}}), "spec.router.tlsConfig.ca.secret.name")]
#[case(json!({"router": {"scheme": "https", "tlsConfig": {"ca": {"secret": {"name": "a", "key": "b"}, "configMap": {"name": "a", "key": "b"}}}}}), "spec.router.tlsConfig.ca")]
#[case(json!({"router": {"scheme": "https", "tlsConfig": {"serverName": "a b"}}}), "spec.router.tlsConfig.serverName")]
#[case(json!({"scaleToZero": {"activation": "-1"}}), "spec.scaleToZero.activation")]
#[case(json!({"fallback": {"behavior": "guess"}}), "spec.fallback.behavior")]
#[case(json!({"fallback": {"replicas": 0}}), "spec.fallback.replicas")]
#[case(json!({"fallback": {"failureThreshold": 0}}), "spec.fallback.failureThreshold")]
#[case(json!({"monitors": {"create": "sometimes"}}), "spec.monitors.create")]
#[case(json!({"monitors": {"create": "true"}}), "spec.monitors.create")]
#[tokio::test]
async fn the_api_server_rejects_an_invalid_profile(#[case] spec: Value, #[case] why: &str) {
    let result = profiles(&namespace().await)
        .create(&PostParams { dry_run: true, ..PostParams::default() }, &profile("bad", &spec))
        .await;
    let error = result.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
    assert!(error.contains(why), "{error}");
}

/// Values of every field that both the CRD and the operator check, at and beyond their bounds.
fn disputed_values() -> Vec<Value> {
    let prometheus = |fields: Value| {
        let mut spec = json!({"url": "http://p"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"prometheus": spec})
    };
    let mut all: Vec<Value> = URLS.iter().map(|url| prometheus(json!({"url": url}))).collect();
    all.push(prometheus(json!({"url": format!("http://p/{}", "x".repeat(503))})));
    all.push(prometheus(json!({"url": format!("http://p/{}", "x".repeat(504))})));
    for name in [
        "X-Scope-OrgID",
        "X Scope OrgID",
        "",
        "a:b",
        "a\tb",
        "é",
        "a'b",
        "!#$%&*+-.^_`|~",
        &"h".repeat(128),
        &"h".repeat(129),
    ] {
        all.push(prometheus(json!({"headers": {name: "a"}})));
    }
    for value in
        ["", "a b", "a,b", "a=b", "a\nb", "a\u{7f}", "é", "~!@#$%^&*()", &"v".repeat(512), &"v".repeat(513)]
    {
        all.push(prometheus(json!({"headers": {"X": value}})));
    }
    let many = |count: usize| (0..count).map(|i| (format!("h{i}"), json!("x"))).collect::<Value>();
    all.extend([16, 17].map(|count| prometheus(json!({"headers": many(count)}))));
    all.extend([32, 33].map(|count| json!({"monitors": {"labels": many(count)}})));
    for name in ["a", "A", "a.b", "-a", "a-", &"n".repeat(253), &"n".repeat(254)] {
        all.push(prometheus(json!({"authenticationRef": {"name": name}})));
    }
    for duration in DURATIONS {
        all.push(json!({"backlog": {"serviceTime": duration}}));
        all.push(json!({"backlog": {"drainTime": duration}}));
        all.extend(latencies(duration));
        all.push(json!({"pollingInterval": duration}));
        all.push(json!({"scaleUp": {"stabilizationWindow": duration}}));
        all.push(json!({"scaleDown": {"policies": [{"type": "Pods", "value": 1, "period": duration}]}}));
        all.push(json!({"scaleToZero": {"cooldown": duration}}));
        all.push(json!({"scaleToZero": {"initialCooldown": duration}}));
        all.push(json!({"monitors": {"interval": duration}}));
    }
    for quantity in QUANTITIES {
        all.push(json!({"backlog": {"headroom": quantity}}));
        all.push(json!({"signals": [{"name": "active-requests", "target": quantity}]}));
        all.extend(latencies(quantity));
        all.push(json!({"customSignals": [{"name": "q", "query": "sum(a)", "target": quantity}]}));
        all.push(json!({"scaleToZero": {"activation": quantity}}));
    }
    for key in LABEL_KEYS {
        all.push(json!({"monitors": {"labels": {key: "a"}}}));
    }
    all.extend([63, 64, 317].map(|length| json!({"monitors": {"labels": {"k".repeat(length): "a"}}})));
    all.extend(
        [63, 253, 254]
            .map(|length| json!({"monitors": {"labels": {format!("{}/a", "k".repeat(length)): "a"}}})),
    );
    for value in ["", "a", "a b", "-a", "a-", "A_b.c-d", "é", &"v".repeat(63), &"v".repeat(64)] {
        all.push(json!({"monitors": {"labels": {"a": value}}}));
    }
    for name in
        ["team-a", "team-*", "*", "a*b", "", "Team", "a.b", "-a", "a?", &"n".repeat(63), &"n".repeat(64)]
    {
        all.push(json!({"allowedNamespaces": [name]}));
        all.push(json!({"router": {"namespace": name}}));
    }
    all.extend([0, 1, 64, 65].map(|count| json!({"allowedNamespaces": vec!["a"; count]})));
    for name in ["a", "a-b", "a-", "1a", "A", "kv-cache", "activation", "", &"n".repeat(63), &"n".repeat(64)]
    {
        all.push(json!({"customSignals": [{"name": name, "query": "sum(a)", "target": "1"}]}));
    }
    let query = |length: usize| format!("sum({})", "a".repeat(length - 5));
    all.extend(
        [2048, 2049]
            .map(|length| json!({"customSignals": [{"name": "q", "query": query(length), "target": "1"}]})),
    );
    all.extend([2048, 2049].map(|length| json!({"router": {"presenceQuery": query(length)}})));
    let policy = json!({"type": "Pods", "value": 1, "period": "1m"});
    all.extend([0, 1, 4, 5].map(|count| json!({"scaleUp": {"policies": vec![policy.clone(); count]}})));
    let custom = |i: usize| json!({"name": format!("q{i}"), "query": "sum(a)", "target": "1"});
    all.extend([8, 9].map(|count| json!({"customSignals": (0..count).map(custom).collect::<Vec<_>>()})));
    all.extend([0, 1, 1000, 1001].map(|count| json!({"fallback": {"failureThreshold": count}})));
    all.extend([-1, 0, 1, i32::MAX].map(|count| json!({"replicas": {"min": count, "max": i32::MAX}})));
    all
}

const URLS: [&str; 31] = [
    "http://prometheus:9090",
    "https://mimir.example/prometheus",
    "http://prometheus.svc.:9090",
    "http://10.0.0.1:9090",
    "http://[fd00:10:96::a]:9090",
    "http://[::1]",
    "http://[::]",
    "http://[1:2:3:4:5:6:7:8]:1/x",
    "http://[1:2:3:4:5:6:7::]",
    "http://[::2:3:4:5:6:7:8]",
    "http://[1::8]/a",
    "http://[:::]",
    "http://[1:2:3]",
    "http://[1::2::3]",
    "http://[12345::]",
    "http://[::ffff:10.0.0.1]",
    "http://[fd00::a%25eth0]",
    "http://[::1",
    "http://::1",
    "http://p:0",
    "http://p:65535",
    "http://p:65536",
    "http://p:",
    "http://p:09090",
    "http://user:secret@p",
    "http://p/",
    "http://p/a/",
    "http://p/a?b",
    "http://p/a#b",
    "http://p a",
    "http://é",
];
/// Profiles with this target of each latency.
fn latencies(target: &str) -> [Value; 3] {
    let demand = json!({"name": "active-requests", "target": "1"});
    ["ttft-p90", "itl-p90", "engine-queue"]
        .map(|name| json!({"signals": [demand, {"name": name, "target": target}]}))
}

const DURATIONS: [&str; 33] = [
    "9ms", "10ms", "19ms", "20ms", "00020ms", "10s", "11s", "10m", "601s", "0s", "0m", "0h", "1s", "00001s",
    "000001s", "30s", "31s", "60s", "1m", "30m", "1800s", "1801s", "31m", "1h", "3600s", "3601s", "24h",
    "1440m", "86400s", "86401s", "25h", "1d", "1.5s",
];
const QUANTITIES: [&str; 16] = [
    "0",
    "0.0",
    "0.001",
    "0.0001",
    "1",
    "007.50",
    "0000000000001",
    "00000000000001",
    "000000000000001",
    "999999999.999",
    "1000000000",
    "1000000000.001",
    "1e3",
    "-1",
    "+1",
    "1.",
];
const LABEL_KEYS: [&str; 11] = [
    "a",
    "A_b.c-d",
    "example.com/a",
    "Example.com/a",
    "example..com/a",
    "/a",
    "a/",
    "a/b/c",
    "a b",
    "-a",
    "é",
];

/// A value that only one of them takes is either rejected although it would work, or accepted and never used.
#[tokio::test]
async fn the_api_server_and_the_operator_accept_the_same_profiles() {
    let (namespace, dry_run) = (namespace().await, PostParams { dry_run: true, ..PostParams::default() });
    let (api, values) = (profiles(&namespace), disputed_values());
    let mut differences = Vec::new();
    for spec in &values {
        let accepted = api.create(&dry_run, &profile("disputed", spec)).await;
        let spec_of = serde_json::from_value::<AutoscalingProfileSpec>(spec.clone());
        let read = spec_of.map_err(|error| error.to_string()).and_then(|spec| {
            Profile::read(&spec)
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        });
        if accepted.is_ok() != read.is_ok() {
            differences.push(format!(
                "{spec}: {:?}, {:?}",
                accepted.err().map(|error| error.to_string()),
                read.err()
            ));
        }
    }
    assert!(differences.is_empty(), "{} of {}: {differences:#?}", differences.len(), values.len());
}

#[tokio::test]
async fn the_sample_equals_the_defaults_of_an_empty_profile() {
    let namespace = namespace().await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let text = std::fs::read_to_string("config/samples/autoscaling-profile.yaml").unwrap();
    let sample: DynamicObject = serde_saphyr::from_str(&text).unwrap();
    let sample = profiles(&namespace).create(&dry_run, &sample).await.unwrap();
    let url = json!({"prometheus": {"url": "http://prometheus-operated.monitoring.svc:9090"}, "monitors": {"labels": {}}});
    let empty = profiles(&namespace).create(&dry_run, &profile("empty", &url)).await.unwrap();
    assert_eq!(sample.data["spec"], empty.data["spec"]);
}

#[rstest]
#[case(json!({"router": {"scheme": "http"}}))]
#[case(json!({"router": {"scheme": "https", "tlsConfig": {"ca": {"configMap": {"name": "a", "key": "ca.crt"}}, "cert": {"secret": {"name": "a", "key": "tls.crt"}}, "keySecret": {"name": "a", "key": "tls.key"}, "serverName": "router.kthena-system.svc", "insecureSkipVerify": false}}}))]
#[case(json!({"monitors": {"create": true}}))]
#[case(json!({"monitors": {"create": false}}))]
#[case(json!({"monitors": {"create": "always"}}))]
#[case(json!({"signals": [], "customSignals": [{"name": "q", "query": "sum(a)", "target": "1"}]}))]
#[case(json!({"signals": [{"name": "active-requests", "target": "10"}, {"name": "ttft-p90", "target": "2s"}, {"name": "itl-p90", "target": "50ms"}]}))]
#[case(json!({"customSignals": [{"name": "ttft-p90", "query": "sum(a)", "target": "1"}]}))]
#[case(json!({"fallback": {}, "router": {}, "scaleToZero": {"activation": "2.5"}}))]
#[case(json!({"prometheus": {"url": "http://p", "matchers": {"cluster": "eu-1", "_tier": "a\"b"}}}))]
#[case(json!({"router": {"presenceQuery": "max(up == 1)  # both zones\n"}}))]
#[case(json!({"router": {"presenceQuery": ""}}))]
#[case(json!({"customSignals": [{"name": "q", "query": "sum(a{{{matchers}}})  # all\n", "target": "1"}]}))]
#[tokio::test]
async fn a_valid_profile_becomes_ready(#[case] spec: Value) {
    let (namespace, name) = (namespace().await, format!("good-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    create(&namespace, &name, &spec).await;
    let is_ready = |found: Option<&DynamicObject>| {
        found.and_then(ready_condition).is_some_and(|(status, _)| status == "True")
    };
    wait::until(&profiles(&namespace), &name, "is ready", is_ready).await;
}

#[rstest]
#[case("sum(queue{model=~{{model}}", "for spec.customSignals[0].query: expected a PromQL query")]
#[case("sum by (pod) (queue{model=~{{model}}})", "expected a query that returns one value")]
#[case("scalar(sum(queue))", "expected a query that returns a vector, not a scalar")]
#[case("sum(queue{model=~{{modle}}})", "{{modle}} is unknown")]
#[case("sum(queue{model=\"{{model}}\"})", "without quotes around it")]
#[tokio::test]
async fn an_invalid_query_is_reported_and_users_keep_their_scaled_objects(
    #[case] query: &str,
    #[case] why: &str,
) {
    let (models, name) = (namespace().await, format!("queries-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let custom =
        |query: &str| json!({"customSignals": [{"name": "slo-queue", "query": query, "target": "5"}]});
    create(&models, &name, &custom("sum(queue{model=~{{model}}})")).await;
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/profile", &name)
        .create()
        .await;
    let before = chat.scaled_object().await;
    edit(&models, &name, custom(query)).await;
    let is_rejected = |found: Option<&DynamicObject>| {
        found
            .and_then(ready_condition)
            .is_some_and(|(status, message)| status == "False" && message.contains(why))
    };
    wait::until(&profiles(&models), &name, &format!("reports {why}"), is_rejected).await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(message.contains(why) && message.contains("keeps its last valid settings"), "{message}");
    assert_eq!(chat.scaled_object().await.resource_version(), before.resource_version());
}

#[tokio::test]
async fn a_fallback_is_left_out_at_a_minimum_of_zero() {
    let models = namespace().await;
    let name = format!("fallback-{}", models.name);
    create(&models, &name, &json!({"fallback": {"replicas": 3}})).await;
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/profile", &name)
        .create()
        .await;
    let found = chat.scaled_object().await;
    let expected = json!({"behavior": "currentReplicasIfHigher", "failureThreshold": 10, "replicas": 3});
    assert_eq!(found.data["spec"]["fallback"], expected);
    chat.annotate(&[("autoscaling.kthena.io/min-replicas", Some("0"))]).await;
    chat.scaled_object_until("has no fallback at zero", |found| {
        found.data["spec"]["minReplicaCount"] == 0 && found.data["spec"].get("fallback").is_none()
    })
    .await;
}

#[tokio::test]
async fn kubectl_explains_the_fields() {
    let kubeconfig = stack().await.control_plane.kubeconfig(&Identity::Admin);
    let output = Command::new(binary("kubectl"))
        .args(["explain", "asp.spec.scaleDown"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["Slow by default", "stabilizationWindow", "the highest recommendation"] {
        assert!(text.contains(part), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_model_follows_its_profile() {
    let models = namespace().await;
    let name = format!("gold-{}", models.name);
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/profile", &name)
        .create()
        .await;
    assert!(chat.reason("ProfileNotFound").await.contains(&name));
    let prometheus = json!({
        "url": "https://mimir/prometheus", "authenticationRef": {"name": "mimir"}, "authModes": ["bearer", "tls"],
        "headers": {"X-Scope-OrgID": "team-a"}, "unsafeSsl": true,
    });
    create(&models, &name, &json!({"prometheus": prometheus, "replicas": {"min": 2, "max": 5}, "scaleDown": {"select": "Disabled"}})).await;
    let found = chat
        .scaled_object_until("has a maximum of 5", |found| found.data["spec"]["maxReplicaCount"] == 5)
        .await;
    let trigger = &found.data["spec"]["triggers"][0];
    let metadata = &trigger["metadata"];
    assert_eq!(
        trigger["authenticationRef"],
        json!({"kind": "ClusterTriggerAuthentication", "name": "mimir"})
    );
    assert_eq!(
        (metadata["serverAddress"].as_str(), metadata["authModes"].as_str()),
        (Some("https://mimir/prometheus"), Some("bearer,tls"))
    );
    assert_eq!(
        (metadata["customHeaders"].as_str(), metadata["unsafeSsl"].as_str()),
        (Some("X-Scope-OrgID=team-a"), Some("true"))
    );
    let behavior = found
        .data
        .pointer("/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown/selectPolicy")
        .unwrap();
    assert_eq!(behavior, "Disabled");

    // Annotations override the profile, and a change of the profile requeues its models.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("4"))]).await;
    chat.scaled_object_until("has a maximum of 4", |found| found.data["spec"]["maxReplicaCount"] == 4).await;
    edit(&models, &name, json!({"replicas": {"min": 3}})).await;
    chat.scaled_object_until("has a minimum of 3", |found| found.data["spec"]["minReplicaCount"] == 3).await;

    // The status of the profile counts its ModelServings.
    let one_user = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| {
            found.data["status"]["modelServings"] == 1 && found.data["status"]["observedGeneration"] == 2
        })
    };
    let counted = wait::until(&profiles(&models), &name, "has one user", one_user).await.unwrap();
    assert_eq!(ready_condition(&counted).unwrap().0, "True");

    // The status reports errors that only the operator detects, and models keep their ScaledObjects.
    let broken = json!([{"name": "broken", "query": "sum(", "target": "1"}]);
    edit(&models, &name, json!({"customSignals": broken})).await;
    let is_rejected = |found: Option<&DynamicObject>| {
        found.and_then(ready_condition).is_some_and(|(status, _)| status == "False")
    };
    let rejected = wait::until(&profiles(&models), &name, "is not ready", is_rejected).await.unwrap();
    assert!(
        ready_condition(&rejected).unwrap().1.contains("customSignals[0].query"),
        "{:?}",
        ready_condition(&rejected)
    );
    let message = chat.reason("InvalidConfiguration").await;
    assert!(
        message.contains("customSignals[0].query") && message.contains("keeps its last valid settings"),
        "{message}"
    );
    edit(&models, &name, json!({"customSignals": null})).await;
    chat.reason("Pending").await;

    // Deleting a profile in use deletes no ScaledObject.
    let before = chat.scaled_object().await.resource_version();
    profiles(&models).delete(&name, &DeleteParams::default()).await.unwrap();
    chat.reason("ProfileNotFound").await;
    assert_eq!(chat.scaled_object().await.resource_version(), before);
}

/// The profile `default` affects every model, so this test has its own cluster.
#[tokio::test]
async fn the_default_profile_applies_to_models_without_another() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.reason("PrometheusNotConfigured").await;
    let labels = json!({"app.kubernetes.io/component": "kthena-router"});
    let service = json!({"metadata": {"name": "kthena-router", "labels": labels}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    models.elsewhere("kthena-system").create(&kinds::service(), service).await;
    let monitors = json!({"labels": {"release": "kps"}, "interval": "5s"});
    create(&models, "default", &json!({"prometheus": {"url": "http://prometheus:9090"}, "replicas": {"max": 7}, "monitors": monitors}))
        .await;
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    let router = models.elsewhere("kthena-system").api(&kinds::service_monitor());
    let has_labels = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| {
            found.labels().contains_key("release") && found.data["spec"]["endpoints"][0]["interval"] == "5s"
        })
    };
    wait::until(&router, "kthena-keda-router", "has the profile's labels", has_labels).await;

    // While the profile is invalid, the ServiceMonitor stays.
    let broken = json!([{"name": "broken", "query": "sum(", "target": "1"}]);
    edit(&models, "default", json!({"customSignals": broken, "monitors": {"interval": "9s"}})).await;
    chat.reason("InvalidConfiguration").await;
    let kept = router.get("kthena-keda-router").await.unwrap();
    assert!(has_labels(Some(&kept)), "{kept:?}");
    edit(&models, "default", json!({"customSignals": null, "monitors": {"interval": "5s"}})).await;
    chat.reason("Pending").await;

    // Neither a restart nor an idle period writes anything.
    let is_current = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| {
            let status = &found.data["status"];
            let is_observed = status["observedGeneration"].as_i64() == found.metadata.generation;
            status["modelServings"] == 1
                && is_observed
                && ready_condition(found).is_some_and(|(status, _)| status == "True")
        })
    };
    wait::until(&profiles(&models), "default", "has a current status", is_current).await;
    assert!(operator.terminate());
    // The audit log is complete only after the operator has ended.
    let before = stack.writes().len();
    let _operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let sentinel = models
        .model_serving("sentinel")
        .annotated("autoscaling.kthena.io/profile", "none")
        .opted_in("sentinel")
        .create()
        .await;
    sentinel.reason("ProfileNotFound").await;
    let writes = stack.writes().split_off(before);
    assert!(
        writes.iter().all(|write| write.object_ref.name == "sentinel"),
        "{:?}",
        harness::audit::summary(&writes)
    );

    // Without the profile the built-in defaults and the flags apply again.
    profiles(&models).delete("default", &DeleteParams::default()).await.unwrap();
    chat.reason("PrometheusNotConfigured").await;
    wait::until(&router, "kthena-keda-router", "no longer has the profile's label", |found| {
        found.is_some_and(|found| !found.labels().contains_key("release"))
    })
    .await;
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}
