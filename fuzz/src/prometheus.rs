//! Responses of a server at a Prometheus URL: a response is read as samples or as an error with text, and the
//! resulting condition message stays within its limit.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kthena_keda::{prometheus::read, sources::Manifests};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Capabilities, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    observed::{ProbeResult, ProbeTarget, RouterSamples, RouterScrape, ServerSamples},
    plan::plan,
    signals::RouterSeries,
};
use serde_json::{Value, json};

/// Maximum length of a condition message, in bytes.
const MAX_MESSAGE_LENGTH: usize = 2000;

/// Checks the decoding of a response, and the message of a plan from it.
pub fn prometheus(data: &[u8]) {
    let response = read(data);
    match &response {
        Ok(samples) => assert_eq!(samples.len(), count_samples(data), "samples are missing"),
        Err(error) => assert!(
            !error.is_empty() && error.chars().count() < 2000 + data.len(),
            "the error is empty or too long: {error:?}"
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
    let probe = response.map(|samples| {
        let scrape = if samples.is_empty() { RouterScrape::NoTarget } else { RouterScrape::Succeeds };
        let router = RouterSamples {
            scrape,
            latency: Duration::from_secs(4),
            targets: samples.clone(),
            names: samples.clone(),
            elsewhere: samples.clone(),
        };
        let server = ServerSamples {
            engine_targets: samples.clone(),
            engine_gauges: samples.clone(),
            other_shards: samples,
        };
        Arc::new(ProbeResult::read(router, server, prometheus.kedas_limit()))
    });
    let mut observed = Manifests::of_newest_cluster(true).observe(&model_serving, router.clone());
    observed.probes = Arc::new(HashMap::from([(ProbeTarget { prometheus, router }, probe)]));
    let planned = plan(&observed, Capabilities::NEWEST, &defaults);
    let explanation = planned.explanation.expect("the model is opted in");
    let length = explanation.verdict.message.len();
    assert!((1..=MAX_MESSAGE_LENGTH).contains(&length), "a condition message of {length} bytes");
}

/// Number of samples of a response whose value is a number.
fn count_samples(data: &[u8]) -> usize {
    let response: Value = serde_json::from_slice(data).expect("a decoded response");
    let samples = response.pointer("/data/result").and_then(Value::as_array).expect("a decoded response");
    samples
        .iter()
        .filter_map(|sample| sample.pointer("/value/1")?.as_str())
        .filter(|text| text.parse::<f64>().is_ok())
        .count()
}
