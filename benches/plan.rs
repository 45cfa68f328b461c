//! Plans per second on one core.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a benchmark stops by panicking"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kthena_keda::sources::Manifests;
use kthena_keda_core::{
    domain::{Capabilities, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    observed::Observed,
    plan::plan,
    signals::RouterSeries,
};
use serde_json::{Value, json};

/// Inputs of a plan: a ModelServing with a profile, a ModelRoute and a ModelServer, and no generated objects.
fn observed(annotations: &Value) -> Observed {
    let mut manifests = Manifests::of_cluster(true);
    let objects = [
        json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "default"}, "spec": {"replicas": {"max": 20}}}),
        json!({
            "apiVersion": "networking.serving.volcano.sh/v1alpha1", "kind": "ModelRoute", "metadata": {"name": "chat", "namespace": "models"},
            "spec": {"modelName": "llama-3", "rules": [{"targetModels": [{"modelServerName": "chat"}]}]},
        }),
        json!({
            "apiVersion": "networking.serving.volcano.sh/v1alpha1", "kind": "ModelServer", "metadata": {"name": "chat", "namespace": "models"},
            "spec": {"inferenceEngine": "vLLM", "workloadPort": {"port": 8000}, "workloadSelector": {"matchLabels": {"modelserving.volcano.sh/name": "chat"}}},
        }),
        json!({
            "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing",
            "metadata": {"name": "chat", "namespace": "models", "uid": "1", "resourceVersion": "1", "annotations": annotations},
            "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}},
        }),
    ];
    for object in objects {
        manifests.add("benchmark", object).expect("an object");
    }
    let (_, model_serving) = manifests.model_servings.first().expect("a ModelServing");
    manifests.observe(model_serving, RouterSeries::assumed("kthena-system"))
}

fn plans(criterion: &mut Criterion) {
    let mut defaults = Profile::built_in();
    defaults.prometheus =
        "http://prometheus:9090".parse::<PrometheusUrl>().ok().map(PrometheusSettings::from);
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("one annotation", json!({"kthena.io/model-name": "llama-3"})),
        (
            "many annotations",
            json!({
                "kthena.io/model-name": "llama-3", "autoscaling.kthena.io/min-replicas": "2", "autoscaling.kthena.io/max-replicas": "30",
                "autoscaling.kthena.io/signals": "active-requests=20, request-rate=5",
            }),
        ),
        ("not opted in", json!({})),
    ];
    for (name, annotations) in cases {
        let observed = observed(&annotations);
        let planned = plan(&observed, Capabilities::NEWEST, &defaults);
        assert!(planned.findings.is_empty(), "{name}: {:?}", planned.findings);
        group.bench_function(name, |bencher| {
            bencher.iter(|| plan(black_box(&observed), Capabilities::NEWEST, &defaults));
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
