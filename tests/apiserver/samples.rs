//! Samples: the API server and the operator accept each one, and its settings reach the generated objects.

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
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

#[tokio::test]
async fn every_sample_is_accepted_and_takes_effect() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let client = stack.client().await;
    for namespace in ["keda", "default"] {
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        objects::apply(&client, object).await;
    }
    for file in samples() {
        // Not read by the harness, which drops lines with placeholders.
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
        if name == "roles" {
            let refused = |found: Option<&DynamicObject>| {
                found.and_then(condition).is_some_and(|condition| {
                    condition["message"].as_str().is_some_and(|message| message.contains("roles.enabled"))
                })
            };
            wait::until(&models, &name, "is refused without the chart value", refused).await;
            continue;
        }
        wait::until(&scaled, &name, "has a ScaledObject", |found| found.is_some()).await;
        let accepted = |found: Option<&DynamicObject>| {
            found.and_then(condition).is_some_and(|condition| condition["reason"] == "Pending")
        };
        wait::until(&models, &name, "is accepted", accepted).await;
    }
    let contains = async |name: &str, text: &str| {
        let has_text = |found: Option<&DynamicObject>| {
            found.is_some_and(|found| serde_json::to_string(&found).unwrap().contains(text))
        };
        wait::until(&scaled, name, &format!("contains {text}"), has_text).await;
    };
    contains("engines", "vllm:kv_cache_usage_perc").await;
    contains("sleepy", "\"name\":\"activation\"").await;
    contains("launch", "autoscaling.keda.sh/paused-scale-in").await;
    contains("base", "gemma-3|gemma-3-it|poems|sql").await;
    contains("canary", "default/canary").await;
    contains("stable", "default/stable").await;
    let monitors: Api<DynamicObject> = Api::namespaced_with(client, "default", &kinds::pod_monitor());
    let on_8000 = |found: Option<&DynamicObject>| {
        found.is_some_and(|found| serde_json::to_string(&found.data).unwrap().contains("$1:8000"))
    };
    wait::until(&monitors, "kthena-keda-engines", "scrapes port 8000", on_8000).await;
}
