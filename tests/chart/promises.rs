//! Objects of earlier releases: names, labels and the field manager are promises to clusters that upgrade.

use std::fs;

use harness::{Crds, Settings, Stack, objects, stack::root};
use kube::ResourceExt as _;
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");

/// The cases are the earlier releases; each has a file with the objects that it wrote for the same model.
#[rstest::rstest]
#[case("0.1.0")]
#[tokio::test]
async fn takes_objects_of_an_earlier_release_over_with_at_most_one_write(#[case] release: &str) {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    let chat = models
        .model_serving("chat")
        .opted_in("llama")
        .annotated("autoscaling.kthena.io/signals", "active-requests=10,engine-queue=4");
    let chat = chat.annotated("autoscaling.kthena.io/engine", "vllm").create().await;
    let owner = chat.get().await;
    let selector = "modelserving.volcano.sh/entry=true,modelserving.volcano.sh/name=chat,modelserving.volcano.sh/role-id=engine-0,modelserving.volcano.sh/role=engine";
    chat.patch_status("kthena", json!({"labelSelector": selector})).await.unwrap();
    objects::apply_file(&models.client, &root().join("config/samples/router-service.yaml")).await;
    let manifest = fs::read_to_string(root().join(format!("tests/chart/releases/{release}.yaml"))).unwrap();
    let manifest = manifest.replace("$NAMESPACE", &models.name).replace("$UID", &owner.uid().unwrap());
    let earlier: Vec<Value> = serde_saphyr::from_multiple(&manifest).unwrap();
    let earlier: Vec<Value> = earlier.into_iter().filter(|object| !object.is_null()).collect();
    assert_eq!(earlier.len(), 2, "a ScaledObject and a PodMonitor");
    for object in earlier {
        objects::apply_as(&models.client, "kthena-keda", object).await;
    }
    let before = chat.scaled_object().await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    chat.reason("Pending").await;
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    let written = stack
        .writes()
        .into_iter()
        .filter(|write| write.object_ref.name != "sentinel" && write.object_ref.subresource.is_empty());
    let written: Vec<_> = written.filter(|write| write.object_ref.namespace == models.name).collect();
    let mut resources: Vec<_> = written.iter().map(|write| write.object_ref.resource.clone()).collect();
    resources.sort();
    resources.dedup();
    assert_eq!(resources.len(), written.len(), "{:?}", harness::audit::summary(&written));
    // In place, under the same field manager. The cooldown is unused with a minimum above zero.
    let after = chat.scaled_object().await;
    assert_eq!(after.uid(), before.uid());
    let fields = |found: &kube::api::DynamicObject| {
        let spec = &found.data["spec"];
        json!([spec["minReplicaCount"], spec["maxReplicaCount"], spec["advanced"], spec["pollingInterval"]])
    };
    assert_eq!(fields(&after), fields(&before));
    assert_eq!(after.data["spec"].get("cooldownPeriod"), None);
    let managers =
        after.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref());
    assert_eq!(managers.collect::<Vec<_>>(), ["kthena-keda"]);
}
