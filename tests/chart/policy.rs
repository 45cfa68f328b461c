//! The admission policy and the operator's parser accept the same annotations.

use std::{collections::BTreeMap, fs};

use harness::{Crds, Stack, kinds, objects::apply_file};
use kthena_keda_core::intent::Annotations;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Row {
    note: String,
    accepted: bool,
    annotations: BTreeMap<String, String>,
}

fn rows() -> Vec<Row> {
    serde_saphyr::from_str(&fs::read_to_string("tests/chart/annotations.yaml").unwrap()).unwrap()
}

fn model_serving(name: &str, annotations: &BTreeMap<String, String>) -> DynamicObject {
    let kind = kinds::model_serving();
    let template = json!({"roles": [{"name": "engine", "replicas": 1, "workerReplicas": 0, "entryTemplate": {"spec": {"containers": [{"name": "e", "image": "e"}]}}}]});
    serde_json::from_value(json!({
        "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "annotations": annotations},
        "spec": {"replicas": 1, "schedulerName": "volcano", "template": template},
    }))
    .unwrap()
}

fn model_booster(annotations: &BTreeMap<String, String>) -> DynamicObject {
    let kind = kinds::model_booster();
    let worker = json!({"type": "server", "image": "vllm"});
    let backend =
        json!({"name": "b", "type": "vLLM", "modelURI": "hf://a/b", "replicas": 1, "workers": [worker]});
    serde_json::from_value(json!({
        "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "demo", "annotations": annotations},
        "spec": {"backend": backend},
    }))
    .unwrap()
}

#[tokio::test]
async fn the_policy_rejects_the_annotations_that_the_operator_rejects() {
    let rows = rows();
    assert!(rows.len() > 60);
    for row in &rows {
        let parsed = Annotations::parse(&row.annotations, None);
        assert_eq!(parsed.is_none_or(|parsed| parsed.is_ok()), row.accepted, "the operator: {}", row.note);
    }
    let stack = Stack::start(&[Crds::kthena()]).await;
    let models = stack.namespace().await;
    let api = models.api(&kinds::model_serving());
    // This ModelServing has invalid annotations from before the policy was installed.
    let invalid = BTreeMap::from([
        ("kthena.io/model-name".to_owned(), "chat".to_owned()),
        ("autoscaling.kthena.io/min-replicas".to_owned(), "x".to_owned()),
    ]);
    api.create(&PostParams::default(), &model_serving("old", &invalid)).await.unwrap();
    apply_file(&models.client, &harness::stack::root().join("config/install/admissionpolicy.yaml")).await;

    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let rejection = harness::wait::until_asked(
        "the policy is enforced",
        async || {
            api.create(&dry_run, &model_serving("invalid", &invalid))
                .await
                .err()
                .map(|error| error.to_string())
        },
        Option::is_some,
    );
    let rejection = rejection.await.unwrap();
    assert!(
        rejection.contains("autoscaling.kthena.io/min-replicas") && rejection.contains("\"x\""),
        "{rejection}"
    );
    let mut differences = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let result = api.create(&dry_run, &model_serving(&format!("row-{i}"), &row.annotations)).await;
        match (&result, row.accepted) {
            (Ok(_), true) => {}
            (Err(kube::Error::Api(status)), false) if status.message.contains("kthena-keda-annotations") => {}
            _ => differences.push(format!("{}: {result:?}", row.note)),
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");

    // A ModelBooster's annotations count for its ModelServing.
    let boosters = models.api(&kinds::model_booster());
    let error = boosters.create(&dry_run, &model_booster(&invalid)).await.unwrap_err().to_string();
    assert!(error.contains("kthena-keda-annotations") && error.contains("\"x\""), "{error}");
    boosters
        .create(&dry_run, &model_booster(&BTreeMap::new()))
        .await
        .expect("a ModelBooster without annotations");

    // The existing ModelServing can still be changed and deleted, and its annotations can only become valid.
    let patch = async |patch: serde_json::Value| {
        api.patch("old", &PatchParams::default(), &Patch::Merge(patch)).await
    };
    patch(json!({"metadata": {"labels": {"team": "a"}}, "spec": {"replicas": 2}}))
        .await
        .expect("a change of other fields");
    patch(json!({"metadata": {"annotations": {"autoscaling.kthena.io/min-replicas": "y"}}}))
        .await
        .expect_err("annotations that are still invalid");
    patch(json!({"metadata": {"finalizers": ["example.com/hold"]}})).await.expect("a finalizer");
    patch(json!({"metadata": {"finalizers": null}})).await.expect("no finalizer");
    patch(json!({"metadata": {"annotations": {"autoscaling.kthena.io/min-replicas": "1"}}}))
        .await
        .expect("valid annotations");
    api.delete("old", &kube::api::DeleteParams::default()).await.expect("a deletion");
}
