//! The admission policy and the operator's own reader judge annotations alike.

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

fn table() -> Vec<Row> {
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

#[tokio::test]
async fn annotations_are_refused_where_the_operator_refuses_them() {
    let rows = table();
    assert!(rows.len() > 60);
    for row in &rows {
        let read = Annotations::read(&row.annotations, None);
        assert_eq!(read.is_none_or(|read| read.is_ok()), row.accepted, "the operator: {}", row.note);
    }
    let stack = Stack::start(&[Crds::kthena()]).await;
    let models = stack.namespace().await;
    let api = models.api(&kinds::model_serving());
    // One that was bad before the policy came.
    let bad = BTreeMap::from([
        ("kthena.io/model-name".to_owned(), "chat".to_owned()),
        ("autoscaling.kthena.io/min-replicas".to_owned(), "x".to_owned()),
    ]);
    api.create(&PostParams::default(), &model_serving("old", &bad)).await.unwrap();
    apply_file(&models.client, &harness::stack::root().join("config/install/admissionpolicy.yaml")).await;

    let try_out = PostParams { dry_run: true, ..PostParams::default() };
    let refused = harness::wait::until_asked(
        "the policy is in force",
        async || api.create(&try_out, &model_serving("bad", &bad)).await.err().map(|error| error.to_string()),
        Option::is_some,
    );
    let refused = refused.await.unwrap();
    assert!(refused.contains("autoscaling.kthena.io/min-replicas") && refused.contains("\"x\""), "{refused}");
    let mut differ = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let answer = api.create(&try_out, &model_serving(&format!("row-{i}"), &row.annotations)).await;
        match (&answer, row.accepted) {
            (Ok(_), true) => {}
            (Err(kube::Error::Api(status)), false) if status.message.contains("kthena-keda-annotations") => {}
            _ => differ.push(format!("{}: {answer:?}", row.note)),
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");

    // The old one can still be changed, mended only to something good, and deleted.
    let patch = async |patch: serde_json::Value| {
        api.patch("old", &PatchParams::default(), &Patch::Merge(patch)).await
    };
    patch(json!({"metadata": {"labels": {"team": "a"}}, "spec": {"replicas": 2}}))
        .await
        .expect("a change that is not of our annotations");
    patch(json!({"metadata": {"annotations": {"autoscaling.kthena.io/min-replicas": "y"}}}))
        .await
        .expect_err("still bad");
    patch(json!({"metadata": {"finalizers": ["example.com/hold"]}})).await.expect("a finalizer");
    patch(json!({"metadata": {"finalizers": null}})).await.expect("no finalizer");
    patch(json!({"metadata": {"annotations": {"autoscaling.kthena.io/min-replicas": "1"}}}))
        .await
        .expect("good now");
    api.delete("old", &kube::api::DeleteParams::default()).await.expect("a deletion");
}
