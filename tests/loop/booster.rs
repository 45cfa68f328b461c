//! A ModelBooster whose ModelServing Kthena's own controllers create and replace.

use std::process::Command;

use harness::{
    Chain, Identity, ModelServing, Namespace, condition, control_plane::binary, kinds, objects::apply,
    wait::until_asked,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::shared::{SETTLED, chain};

const REVISION: &str = "workload.serving.volcano.sh/revision";
const KTHENA: Identity = Identity::ServiceAccount("kthena-system", "kthena-controller-manager");

async fn change(namespace: &Namespace, patch: Value) {
    let api = namespace.api(&kinds::model_booster());
    api.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
}

/// Annotates the ModelBooster.
async fn annotate(namespace: &Namespace, key: &str, value: &str) {
    change(namespace, json!({"metadata": {"annotations": {key: value}}})).await;
}

/// Changes the backend, and waits until Kthena has replaced the ModelServing.
async fn replace(serving: &ModelServing, variable: &str) -> DynamicObject {
    let revision =
        |found: &DynamicObject| found.metadata.labels.clone().unwrap_or_default()[REVISION].clone();
    let before = revision(&serving.get().await);
    let env = json!([{"name": variable, "value": "1"}]);
    change(&serving.namespace, json!({"spec": {"backend": {"env": env}}})).await;
    serving.until("is replaced", |found| revision(found) != before).await
}

/// A ModelBooster and the ModelServing that Kthena creates for it.
async fn boosted(chain: &Chain) -> ModelServing {
    let namespace = chain.stack.namespace().await;
    let worker =
        json!({"type": "server", "image": "vllm", "replicas": 1, "pods": 1, "config": {"max-model-len": 1}});
    let backend = json!({
        "name": "backend", "type": "vLLM", "modelURI": "hf://a/b", "replicas": 1, "workers": [worker],
    });
    let content = json!({"metadata": {"name": "demo"}, "spec": {"backend": backend}});
    namespace.create(&kinds::model_booster(), content).await;
    ModelServing::of_others(namespace, "demo-backend").await
}

fn replicas(found: &DynamicObject) -> i64 {
    found.data["spec"]["replicas"].as_i64().unwrap_or_default()
}

async fn has_replicas(serving: &ModelServing, count: i64) {
    serving.until(&format!("wants {count} ServingGroups"), |found| replicas(found) == count).await;
}

/// Installs the chart's policy, and waits until it is in force for a ModelServing with 3 ServingGroups.
async fn keep_scaling(chain: &Chain, serving: &ModelServing) {
    let output = Command::new(binary("helm"))
        .args(["template", "kthena-keda", "charts/kthena-keda", "--kube-version=1.36.0"])
        .args(["--show-only=templates/keepscaling.yaml", "--set=prometheus.url=http://prometheus:9090"])
        .args(["--set=modelBooster.keepScaling=true"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
        apply(&serving.namespace.client, object).await;
    }
    let client = chain.stack.control_plane.client(&KTHENA).await;
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, &serving.namespace.name, &kinds::model_serving());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION: "x"}}, "spec": {"replicas": 1}}));
    let attempt = async || replicas(&api.patch(&serving.name, &params, &patch).await.unwrap());
    until_asked("the policy is in force", attempt, |replicas| *replicas == 3).await;
}

#[tokio::test]
async fn a_changed_booster_keeps_its_model_scaled() {
    let Some(chain) = chain().await else { return };
    let serving = boosted(chain).await;
    annotate(&serving.namespace, "kthena.io/model-name", "demo").await;
    annotate(&serving.namespace, "autoscaling.kthena.io/min-replicas", "3").await;
    let scaled_object = serving.scaled_object().await;
    has_replicas(&serving, 3).await;

    // Kthena resets the number, and the HPA corrects it. The annotation of the ModelServing is erased, and that of the ModelBooster counts.
    serving.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    serving
        .until("warns of the annotation", |found| {
            condition(found)
                .is_some_and(|found| found["message"].as_str().unwrap_or_default().contains("erases"))
        })
        .await;
    let replaced = replace(&serving, "FIRST").await;
    assert_eq!((replicas(&replaced), replaced.metadata.annotations), (1, None));
    has_replicas(&serving, 3).await;
    serving
        .scaled_object_until("has the profile's maximum", |found| found.data["spec"]["maxReplicaCount"] == 10)
        .await;

    // With the policy the number and the annotations stay, however often the ModelBooster changes.
    keep_scaling(chain, &serving).await;
    serving.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7")), ("note", Some("erased"))]).await;
    for variable in ["SECOND", "THIRD"] {
        let replaced = replace(&serving, variable).await;
        let annotations = replaced.metadata.annotations.clone().unwrap_or_default();
        let annotations: Vec<(&str, &str)> =
            annotations.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            (replicas(&replaced), annotations),
            (3, vec![("autoscaling.kthena.io/max-replicas", "7")])
        );
    }
    annotate(&serving.namespace, "autoscaling.kthena.io/min-replicas", "4").await;
    has_replicas(&serving, 4).await;
    assert_eq!(replicas(&replace(&serving, "FOURTH").await), 4);
    tokio::time::sleep(SETTLED).await;
    let live = serving.get().await;
    assert_eq!(replicas(&live), 4);
    assert!(
        !condition(&live).unwrap()["message"].as_str().unwrap().contains("reset spec.replicas"),
        "{live:?}"
    );
    assert_eq!(serving.scaled_object().await.metadata.uid, scaled_object.metadata.uid);

    // A model that is not autoscaled follows its ModelBooster.
    change(&serving.namespace, json!({"metadata": {"annotations": null}})).await;
    serving.annotate(&[("autoscaling.kthena.io/max-replicas", None)]).await;
    serving.scaled_object_gone().await;
    serving.until("has no condition", |found| condition(found).is_none()).await;
    assert_eq!(replicas(&replace(&serving, "FIFTH").await), 1);
}
