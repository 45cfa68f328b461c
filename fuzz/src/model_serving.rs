//! Objects of any shape: decoding a single object, a list or a watch event never fails, and planning from the
//! result never panics.
//!
//! Input: JSON, or lines that change a valid object, such as `spec/template/roles/0/name=3`.

use std::{fmt::Debug, sync::Arc};

use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::Capabilities,
    intent::Profile,
    observed::{
        HpaDigest, LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy,
        LiveProfile, LiveScaledObject, LiveServiceMonitor, MonitorDigest, Network, Observed, PolicyDigest,
        ProfileDigest, RouteDigest, ScaledObjectDigest, ServerDigest,
    },
    plan::plan,
    signals::RouterSeries,
};
use kube::{
    Resource,
    core::{ObjectList, WatchEvent},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::lines::{lines, set};

/// Checks the decoding of every watched kind, and a plan from the decoded objects.
pub fn model_serving(data: &[u8]) {
    let Some((text, object)) = read(data) else { return };
    let model_serving: ModelServing = decoded(&text, &object);
    let scaled_object = ScaledObjectDigest::from(&decoded::<LiveScaledObject>(&text, &object));
    let hpa = HpaDigest::from(&decoded::<LiveHpa>(&text, &object));
    let pod_monitor = MonitorDigest::from(&decoded::<LivePodMonitor>(&text, &object));
    let _ = MonitorDigest::from(&decoded::<LiveServiceMonitor>(&text, &object));
    let _ = PolicyDigest::from(&decoded::<LivePolicy>(&text, &object));
    let _ = PolicyDigest::from(&decoded::<LiveBinding>(&text, &object));
    let route = RouteDigest::from(&decoded::<LiveModelRoute>(&text, &object));
    let server = ServerDigest::from(&decoded::<LiveModelServer>(&text, &object));
    let profile = ProfileDigest::from(&decoded::<LiveProfile>(&text, &object));

    let key = ("models".to_owned(), "chat".to_owned());
    let (routes, servers, model_servings) =
        ([(&key, &route)], [(&key, &server)], [Arc::new(model_serving.clone())]);
    let network = Network {
        routes_are_served: true,
        routes: &routes,
        servers: &servers,
        model_servings: &model_servings,
    };
    let observed = Observed {
        routing: network.routing(&model_serving),
        scaled_object: Some(scaled_object),
        hpa: Some(hpa),
        pod_monitor: Some(pod_monitor.owned),
        profile: Some(profile.settings),
        ..Observed::of(model_serving.clone(), RouterSeries::assumed("kthena-system"))
    };
    let _ = plan(&observed, Capabilities::NEWEST, &Profile::built_in());
}

/// Input as text, which may have duplicate fields, and as a JSON value, which has none.
fn read(data: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(data).ok()?;
    if let Ok(object) = serde_json::from_str(text) {
        return Some((text.to_owned(), object));
    }
    let mut object = valid_object();
    lines(text).take(16).for_each(|(path, value)| set(&mut object, path, value));
    Some((object.to_string(), object))
}

/// Decodes an object alone, in a list and from a watch event; panics unless all results are equal.
fn decoded<K: Resource + Clone + Debug + DeserializeOwned>(text: &str, object: &Value) -> K {
    let other = r#"{"metadata":{"name":"other"}}"#;
    let list = format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{text},{other}]}}"#);
    let list: ObjectList<K> = serde_json::from_str(&list)
        .unwrap_or_else(|error| panic!("decoding the list failed: {error}: {text}"));
    let [from_list, other] = list.items.as_slice() else {
        panic!("{} of 2 items are decoded from {text}", list.items.len())
    };
    assert_eq!(other.meta().name.as_deref(), Some("other"));
    let event: Result<WatchEvent<K>, _> =
        serde_json::from_str(&format!(r#"{{"type":"ADDED","object":{text}}}"#));
    let WatchEvent::Added(from_watch) =
        event.unwrap_or_else(|error| panic!("decoding the watch event failed: {error}: {text}"))
    else {
        panic!("unexpected watch event: {text}")
    };
    let from_value: K = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("decoding failed: {error}: {text}"));
    assert_eq!(
        from_value.meta().name.as_deref(),
        object.pointer("/metadata/name").and_then(Value::as_str),
        "the name is wrong: {text}"
    );
    let expected = format!("{from_value:?}");
    assert_eq!(format!("{from_list:?}"), expected, "in a list: {text}");
    assert_eq!(format!("{from_watch:?}"), expected, "in a watch event: {text}");
    from_value
}

/// Object with the fields of all watched kinds.
fn valid_object() -> Value {
    let condition = json!({"type": "AutoscalingReady", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:replicas": {}}, "f:status": {"f:labelSelector": {}}});
    let target =
        json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
    json!({
        "metadata": {
            "name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7", "generation": 2, "labels": {"a": "1"},
            "annotations": {"kthena.io/model-name": "llama"}, "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "o", "controller": true}],
            "managedFields": [{"manager": "kthena-keda", "subresource": "status", "fieldsV1": fields}],
        },
        "spec": {
            "replicas": 2, "template": {"roles": [{"name": "prefill", "entryTemplate": {"metadata": {"labels": {"a": "b"}}}}]},
            "scaleTargetRef": target, "triggers": [{"type": "prometheus", "metadata": {}}], "modelName": "llama", "loraAdapters": ["l"],
            "rules": [{"targetModels": [{"modelServerName": "chat", "weight": 1}]}], "workloadSelector": {"matchLabels": {"a": "b"}},
            "workloadPort": {"port": 8000}, "inferenceEngine": "vLLM", "signals": [{"name": "kv-cache", "target": "1"}],
            "homogeneousTarget": {"target": {"targetRef": {"name": "chat"}}}, "selector": {"matchLabels": {}}, "endpoints": [{"port": "http"}],
        },
        "status": {"labelSelector": "a=b", "replicas": 1, "availableReplicas": 1, "conditions": [condition]},
    })
}
