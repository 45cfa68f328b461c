//! ModelServings that a ModelBooster controls. Kthena's controllers do not run here: the tests rewrite the ModelServing as they do.

use std::{path::Path, time::Duration};

use harness::{Crds, Identity, ModelServing, Namespace, Settings, Stack, kinds};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy},
};
use serde_json::{Value, json};

use super::shared::{BINARY, namespace, stack};

const MODEL_NAME: &str = "kthena.io/model-name";

/// A ModelBooster with the fewest fields that its CRD accepts.
async fn booster(namespace: &Namespace, annotations: Value) -> DynamicObject {
    let backend = json!({
        "name": "backend", "type": "vLLM", "modelURI": "hf://a/b", "replicas": 1,
        "workers": [{"type": "server", "image": "vllm", "resources": {}}],
    });
    let metadata = json!({"name": "demo", "annotations": annotations});
    let content = json!({"metadata": metadata, "spec": {"backend": backend}});
    namespace.create(&kinds::model_booster(), content).await
}

/// The ModelServing of a ModelBooster.
async fn controlled_by(booster: &DynamicObject, namespace: &Namespace) -> ModelServing {
    let serving = namespace.model_serving("demo-backend").create().await;
    let owner = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelBooster", "name": "demo",
        "uid": booster.metadata.uid, "controller": true, "blockOwnerDeletion": true,
    });
    serving.patch(json!({"metadata": {"ownerReferences": [owner]}})).await;
    serving
}

async fn annotate(namespace: &Namespace, annotations: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let api = namespace.api(&kinds::model_booster());
    api.patch("demo", &PatchParams::default(), &patch).await.expect("a patch");
}

#[tokio::test]
async fn annotations_of_a_booster_count_and_survive_a_rewrite_of_its_model_serving() {
    let models = namespace().await;
    let demo = booster(&models, json!({})).await;
    let serving = controlled_by(&demo, &models).await;
    let max = "autoscaling.kthena.io/max-replicas";
    annotate(&models, json!({MODEL_NAME: models.model_name(), max: "4"})).await;
    serving
        .scaled_object_until("has a maximum of 4", |found| found.data["spec"]["maxReplicaCount"] == 4)
        .await;
    serving.reason("Pending").await;
    // An annotation of the ModelServing overrides that of the ModelBooster, until Kthena rewrites it.
    serving.annotate(&[(max, Some("6"))]).await;
    serving
        .scaled_object_until("has a maximum of 6", |found| found.data["spec"]["maxReplicaCount"] == 6)
        .await;
    let message = serving.says("Pending", "erases autoscaling.kthena.io/max-replicas").await;
    assert!(message.contains(r#"the ModelBooster "demo" controls this ModelServing"#), "{message}");
    serving.patch(json!({"metadata": {"annotations": null}, "spec": {"replicas": 1}})).await;
    serving
        .scaled_object_until("has a maximum of 4", |found| found.data["spec"]["maxReplicaCount"] == 4)
        .await;
    annotate(&models, json!({max: "3"})).await;
    serving
        .scaled_object_until("has a maximum of 3", |found| found.data["spec"]["maxReplicaCount"] == 3)
        .await;
    annotate(&models, json!({MODEL_NAME: null})).await;
    serving.scaled_object_gone().await;
    let model = format!("{}/{}", models.name, serving.name);
    let kubeconfig = stack().await.control_plane.kubeconfig(&Identity::Admin);
    let (report, _) = harness::explain(Path::new(BINARY), &kubeconfig, &[&model]);
    let error = report.unwrap_err();
    assert!(error.contains("erases the annotations of the ModelServing"), "{error}");
    serving.until("has no condition", |found| harness::condition(found).is_none()).await;
}

#[tokio::test]
async fn a_model_serving_stays_as_it_is_while_its_booster_is_gone() {
    let models = namespace().await;
    let demo = booster(&models, json!({MODEL_NAME: models.model_name()})).await;
    let serving = controlled_by(&demo, &models).await;
    let before = serving.scaled_object().await;
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    models.api(&kinds::model_booster()).delete("demo", &params).await.expect("a deletion");
    serving.says("Pending", r#"the ModelBooster "demo""#).await;
    // A ModelBooster of the same name is another object.
    booster(&models, json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(serving.scaled_object().await.metadata.uid, before.metadata.uid);
}

/// An upgrade with the roles of an older release.
#[tokio::test]
async fn a_model_serving_stays_as_it_is_while_boosters_are_forbidden() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    let demo = booster(&models, json!({MODEL_NAME: models.model_name()})).await;
    let serving = controlled_by(&demo, &models).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let before = serving.scaled_object().await;
    let beside = models.model_serving("beside").opted_in("beside").create().await;
    beside.scaled_object().await;
    assert!(operator.terminate());
    set_booster_rule(&models, "nothing").await;
    beside.annotate(&[("autoscaling.kthena.io/max-replicas", Some("3"))]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let message = serving.says("MissingPermission", "no permission to list modelboosters").await;
    assert!(message.contains("list and watch on modelboosters"), "{message}");
    // Others are planned although nothing changes after the last list has failed.
    beside
        .scaled_object_until("has a maximum of 3", |found| found.data["spec"]["maxReplicaCount"] == 3)
        .await;
    assert_eq!(serving.scaled_object().await.metadata.resource_version, before.metadata.resource_version);
    set_booster_rule(&models, "modelboosters").await;
    annotate(&models, json!({MODEL_NAME: null})).await;
    serving.within(Duration::from_secs(90)).scaled_object_gone().await;
    assert!(operator.terminate());
}

/// Replaces the resource of the operator's rule for ModelBoosters.
async fn set_booster_rule(models: &Namespace, resource: &str) {
    use k8s_openapi::api::rbac::v1::ClusterRole;
    let roles: Api<ClusterRole> = Api::all(models.client.clone());
    let mut role = roles.get("kthena-keda").await.expect("the role");
    for rule in role.rules.iter_mut().flatten() {
        let resources = rule.resources.iter_mut().flatten();
        for found in resources.filter(|found| ["modelboosters", "nothing"].contains(&found.as_str())) {
            resource.clone_into(found);
        }
    }
    roles.replace("kthena-keda", &kube::api::PostParams::default(), &role).await.expect("an update");
}
