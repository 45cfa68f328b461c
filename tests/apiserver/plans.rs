//! Random annotations: the plan never panics, and the API server accepts every planned ScaledObject.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use harness::kinds;
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Capabilities, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    observed::Observed,
    plan::{Desired, Plan, plan},
    signals::RouterSeries,
};
use kube::api::PostParams;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    string::string_regex,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::shared::namespace;

/// Mostly valid values, so that most plans contain an object, mixed with arbitrary text.
fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let or_any = |valid: BoxedStrategy<String>| prop_oneof![8 => valid.prop_map(Some), 1 => ".{0,20}".prop_map(Some), 6 => Just(None)];
    let model = prop_oneof![
        "[a-zA-Z0-9./_-]{1,40}",
        r"[^,\p{Cc}]{1,40}",
        r#"["\\{}=~|a-c]{1,12}(,["\\a-c]{1,8}){0,3}"#
    ];
    let target = "(0\\.[0-9]{0,2}[1-9]|[1-9][0-9]{0,8})";
    let signals = format!(
        "active-requests={target}(,queued-requests={target})?(, output-tokens={target})?(,request-rate={target})?(,kv-cache={target})?"
    );
    (
        model,
        or_any((0..50i32).prop_map(|n| n.to_string()).boxed()),
        or_any((1..2000i32).prop_map(|n| n.to_string()).boxed()),
        or_any(string_regex(&signals).unwrap().boxed()),
        or_any(prop_oneof!["true", "false", "scale-in", "scale-out"].boxed()),
        or_any(prop_oneof!["vllm", "sglang"].boxed()),
        prop_oneof![9 => Just(None), 1 => ("[a-z-]{1,12}", ".{0,8}").prop_map(Some)],
    )
        .prop_map(|(model, min, max, signals, paused, engine, unknown)| {
            let named = [
                ("min-replicas", min),
                ("max-replicas", max),
                ("signals", signals),
                ("paused", paused),
                ("engine", engine),
            ];
            let named =
                named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).chain(unknown);
            let mut annotations: BTreeMap<String, String> =
                named.map(|(key, value)| (format!("autoscaling.kthena.io/{key}"), value)).collect();
            annotations.insert("kthena.io/model-name".to_owned(), model);
            annotations
        })
}

fn plan_for(name: &str, namespace: &str, annotations: &BTreeMap<String, String>) -> Plan {
    let model_serving: ModelServing = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "uid": "7e1f", "annotations": annotations},
        "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}},
    }))
    .unwrap();
    let router = RouterSeries::assumed("kthena-system");
    let prometheus =
        Some(PrometheusSettings::from("http://prometheus:9090".parse::<PrometheusUrl>().unwrap()));
    let observed = Observed::of(model_serving, router);
    plan(&observed, Capabilities::NEWEST, &Profile { prometheus, ..Profile::built_in() })
}

#[tokio::test]
async fn the_api_server_accepts_every_planned_scaled_object() {
    let namespace = namespace().await;
    let mut runner = TestRunner::new(Config::default());
    let cases: Vec<_> = (0..400).map(|_| annotations().new_tree(&mut runner).unwrap().current()).collect();
    let plans = cases
        .iter()
        .enumerate()
        .map(|(i, annotations)| (annotations, plan_for(&format!("m-{i}"), &namespace.name, annotations)));
    let objects: Vec<(&BTreeMap<String, String>, Value)> = plans
        .filter_map(|(annotations, plan)| match plan.scaled_object {
            Desired::Apply(object) => Some((annotations, serde_json::to_value(&object).unwrap())),
            Desired::Keep | Desired::Remove => {
                assert!(!plan.findings.is_empty(), "neither a ScaledObject nor a finding: {annotations:?}");
                None
            }
        })
        .collect();
    assert!(objects.len() > 50, "too few plans contain a ScaledObject: {}", objects.len());
    let api = namespace.api(&kinds::scaled_object());
    let dry_run = PostParams { dry_run: true, field_manager: None };
    let attempts = stream::iter(objects.iter().map(|(annotations, object)| {
        let (api, dry_run) = (&api, &dry_run);
        async move {
            (annotations, object, api.create(dry_run, &serde_json::from_value(object.clone()).unwrap()).await)
        }
    }));
    let rejected: Vec<String> = attempts
        .buffer_unordered(8)
        .filter_map(|(annotations, object, result)| async move {
            result.err().map(|error| format!("{annotations:?}\n{object}\n{error}"))
        })
        .collect()
        .await;
    assert!(rejected.is_empty(), "{}", rejected.join("\n\n"));
}
