//! Whatever answers under the address of a Prometheus: an answer is elements or an error in words, and what a condition says of it ends.

use std::{collections::HashMap, sync::Arc};

use kthena_keda::{prometheus::read, sources::Manifests};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Capabilities, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    observed::{ProbeResult, ProbeTarget},
    plan::plan,
    signals::RouterSeries,
};
use serde_json::{Value, json};

/// The longest message that a condition can have, in characters (Kubernetes `meta/v1` `Condition`).
const CONDITION: usize = 32_768;

/// ProbeCache the reading of an answer, and what is made of it.
pub fn prometheus(data: &[u8]) {
    let answer = read(data);
    match &answer {
        Ok(elements) => assert_eq!(elements.len(), numbers(data), "elements are lost"),
        Err(words) => assert!(
            !words.is_empty() && words.chars().count() < 2000 + data.len(),
            "no words for a message: {words:?}"
        ),
    }
    let model_serving: ModelServing = serde_json::from_value(json!({
        "metadata": {"name": "chat", "namespace": "models", "uid": "u", "annotations": {
            "kthena.io/model-name": "llama", "autoscaling.kthena.io/signals": "active-requests=1,kv-cache=1", "autoscaling.kthena.io/engine": "vllm",
        }},
        "spec": {"template": {"roles": [{"name": "engine"}]}},
        "status": {"labelSelector": "a=b", "replicas": 1, "availableReplicas": 1},
    }))
    .expect("any object");
    let prometheus =
        PrometheusSettings::from("http://prometheus:9090".parse::<PrometheusUrl>().expect("an address"));
    let defaults = Profile { prometheus: Some(prometheus.clone()), ..Profile::built_in() };
    let router = RouterSeries::assumed("kthena-system");
    let probe =
        answer.map(|elements| Arc::new(ProbeResult::read(&elements, elements.clone(), elements.clone())));
    let mut observed = Manifests::of_newest_cluster(true).observe(&model_serving, router.clone());
    observed.probes = Arc::new(HashMap::from([(ProbeTarget { prometheus, router }, probe)]));
    let planned = plan(&observed, Capabilities::NEWEST, &defaults);
    let explanation = planned.explanation.expect("it opted in");
    let length = explanation.verdict.message.chars().count();
    assert!((1..=CONDITION).contains(&length), "a condition holds no message of {length}");
}

/// How many elements of an answer have a number for a value.
fn numbers(data: &[u8]) -> usize {
    let answer: Value = serde_json::from_slice(data).expect("it was read");
    let elements = answer.pointer("/data/result").and_then(Value::as_array).expect("it was read");
    elements
        .iter()
        .filter_map(|element| element.pointer("/value/1")?.as_str())
        .filter(|text| text.parse::<f64>().is_ok())
        .count()
}
