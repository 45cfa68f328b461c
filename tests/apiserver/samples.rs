//! Every sample is accepted by the API server and does what it is for.

use std::{fs, path::PathBuf};

use harness::{Crds, Settings, Stack, condition, kinds, objects, wait};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
};

use super::shared::BINARY;

fn samples() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir("config/samples").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn each_is_accepted_and_does_what_it_is_for() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let client = stack.client().await;
    for namespace in ["keda", "default"] {
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        objects::apply(&client, object).await;
    }
    for file in samples() {
        // Not by the harness's reader, which leaves lines with placeholders out.
        for object in serde_saphyr::from_multiple(&fs::read_to_string(&file).unwrap()).unwrap() {
            objects::apply(&client, object).await;
        }
    }
    let profiles: Api<DynamicObject> = Api::all_with(client.clone(), &kinds::profile());
    let all = profiles.list(&ListParams::default()).await.unwrap().items;
    assert!(all.len() >= 6, "{}", all.len());
    for profile in all {
        let is_ready = |found: Option<&DynamicObject>| {
            let conditions = found.and_then(|found| found.data["status"]["conditions"].as_array());
            conditions.is_some_and(|all| {
                all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            })
        };
        wait::until(&profiles, &profile.name_any(), "is ready", is_ready).await;
    }
    let models: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kinds::model_serving());
    let scaled: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kinds::scaled_object());
    let all = models.list(&ListParams::default()).await.unwrap().items;
    assert!(all.len() >= 7, "{}", all.len());
    for model in all {
        let name = model.name_any();
        wait::until(&scaled, &name, "'s ScaledObject exists", |found| found.is_some()).await;
        let accepted = |found: Option<&DynamicObject>| {
            found.and_then(condition).is_some_and(|condition| condition["reason"] == "Pending")
        };
        wait::until(&models, &name, "is accepted", accepted).await;
    }
    let says = async |name: &str, what: &str| {
        let asks = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| serde_json::to_string(&found).unwrap().contains(what))
        };
        wait::until(&scaled, name, &format!("holds {what}"), asks).await;
    };
    says("engines", "vllm:kv_cache_usage_perc").await;
    says("sleepy", "\"name\":\"activation\"").await;
    says("launch", "autoscaling.keda.sh/paused-scale-in").await;
    says("base", "gemma-3|gemma-3-it|poems|sql").await;
    says("canary", "default/canary").await;
    says("stable", "default/stable").await;
    let monitors: Api<DynamicObject> = Api::namespaced_with(client, "default", &kinds::pod_monitor());
    let on_8080 = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| serde_json::to_string(&found.data).unwrap().contains("$1:8080"))
    };
    wait::until(&monitors, "kthena-keda-engines", "scrapes 8080", on_8080).await;
}
