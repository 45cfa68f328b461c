//! Scaled roles through the life of a release: an upgrade changes nothing of them, and an uninstallation leaves their objects and numbers.

use harness::{Crds, ModelServing, Release, Settings, Stack, kinds, stack::root, wait::until_asked};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");
const ROLES: &str = "prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 max=16";

fn values(more: &[&str]) -> Vec<String> {
    let base = ["prometheus.url=http://prometheus:9090", "roles.enabled=true"];
    base.iter().chain(more).map(|value| (*value).to_owned()).collect()
}

fn number(found: &DynamicObject, role: usize) -> i64 {
    found.data["spec"]["template"]["roles"][role]["replicas"].as_i64().unwrap_or(-1)
}

/// Scale targets and ScaledObjects, by name, with their UIDs.
async fn objects(chat: &ModelServing) -> Vec<(String, Option<String>)> {
    let targets: Api<DynamicObject> = chat.namespace.api(&kinds::model_serving_role());
    let mut all = Vec::new();
    for api in [&targets, &chat.scaled_objects()] {
        let found = api.list(&ListParams::default()).await.unwrap().items;
        all.extend(found.into_iter().map(|object| (object.name_any(), object.uid())));
    }
    all
}

/// Sets the number of instances of decode as the HPA does.
async fn scale_decode(chat: &ModelServing, replicas: i32) {
    let targets: Api<DynamicObject> = chat.namespace.api(&kinds::model_serving_role());
    let all = targets.list(&ListParams::default()).await.unwrap().items;
    let decode = all.into_iter().find(|found| found.data["spec"]["role"] == "decode").unwrap();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    targets.patch_scale(&decode.name_any(), &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn an_upgrade_and_an_uninstallation_keep_scaled_roles() {
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let helm = Release::prepare(&stack.control_plane, BINARY.as_ref()).await;
    helm.install(&root().join("charts/kthena-keda"), &values(&[])).unwrap();
    let settings = || Settings::new(BINARY).with("--scale-roles=true");
    let operator = stack.start_operator(&settings());
    let builder = stack.namespace().await.model_serving("chat").roles(&["prefill", "decode"]).opts_in();
    let annotated = builder
        .annotated("autoscaling.kthena.io/roles", ROLES)
        .annotated("autoscaling.kthena.io/engine", "vllm")
        .annotated("autoscaling.kthena.io/engine-port", "8000");
    let chat = annotated.create().await;
    let all =
        until_asked("each role has its objects", async || objects(&chat).await, |all| all.len() == 4).await;
    scale_decode(&chat, 3).await;
    chat.until("has 3 instances of decode", |found| number(found, 1) == 3).await;
    assert!(operator.terminate());

    let before = stack.writes().len();
    helm.upgrade(&values(&["log.level=debug"])).unwrap();
    let operator = stack.start_operator(&settings());
    // Its reconcile is queued behind that of the model.
    let sentinel = chat.namespace.model_serving("sentinel").opted_in("sentinel").create().await;
    sentinel.scaled_object().await;
    let of_model = |write: &harness::Request| write.describe().contains("chat");
    let writes: Vec<String> = stack
        .writes()
        .split_off(before)
        .iter()
        .filter(|write| of_model(write))
        .map(harness::Request::describe)
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
    scale_decode(&chat, 4).await;
    chat.until("has 4 instances of decode", |found| number(found, 1) == 4).await;

    helm.uninstall().unwrap();
    assert!(operator.terminate());
    let mut kept = objects(&chat).await;
    kept.retain(|(name, _)| *name != sentinel.name);
    assert_eq!(kept, all);
    let found = chat.get().await;
    assert_eq!((number(&found, 0), number(&found, 1)), (1, 4));
}
