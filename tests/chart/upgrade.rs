//! The upgrade from an earlier release: names, labels, the field manager and the settings of ScaledObjects are promises to
//! the clusters that have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use harness::{
    Crds, Namespace, Release, Settings, Stack, audit::summary, kinds, objects, stack::root, wait::until_asked,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_kthena-keda");
const VALUES: [&str; 1] = ["prometheus.url=http://prometheus:9090"];

/// Folder with the chart of a release, models in every state that it knows, and the objects that it wrote for them.
fn folder(release: &str) -> PathBuf {
    root().join("tests/chart/releases").join(release)
}

fn documents(file: &PathBuf) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

#[rstest::rstest]
#[case("0.1.0")]
#[tokio::test]
async fn an_upgrade_changes_what_the_changelog_says(#[case] release: &str) {
    let stack = Stack::bare(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let (client, helm) =
        (stack.client().await, Release::prepare(&stack.control_plane, BINARY.as_ref()).await);
    let values = VALUES.map(str::to_owned);
    helm.install(&folder(release).join("chart.tgz"), &values).unwrap();
    objects::apply(&client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}}))
        .await;
    let models = Namespace { client: client.clone(), name: "models".to_owned() };
    for object in documents(&folder(release).join("models.yaml")) {
        objects::apply(&client, object).await;
    }
    has_run(&models, &folder(release)).await;
    // Edited after its ScaledObject was written.
    let edit = json!({"metadata": {"annotations": {"autoscaling.kthena.io/profile": "absent"}}});
    let servings = models.api(&kinds::model_serving());
    servings.patch("invalid", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let before = written(&client).await;

    // In the order of docs/upgrading.md.
    for crd in
        objects::read(&root().join("charts/kthena-keda/crds/autoscaling.kthena.io_autoscalingprofiles.yaml"))
    {
        objects::apply(&client, crd).await;
    }
    helm.upgrade(&values).unwrap();
    let settings = Settings::new(BINARY);
    let operator = stack.start_operator(&settings);
    has_reported(&servings).await;
    assert!(operator.terminate());
    let after = written(&client).await;
    insta::assert_snapshot!(format!("upgrade_from_{release}"), differences(&before, &after));
    for (name, old) in &before {
        let new = &after[name];
        assert_eq!(new.uid(), old.uid(), "{name} was changed in place");
        assert_eq!(managers(new), ["kthena-keda"], "{name}");
    }
    let writes = || {
        let all = stack.writes().into_iter();
        let objects = all.filter(|write| write.object_ref.subresource.is_empty());
        summary(&objects.filter(|write| write.object_ref.resource != "leases").collect::<Vec<_>>())
    };
    let of_upgrade = writes();
    assert!(of_upgrade.values().all(|count| *count == 1), "at most one write an object: {of_upgrade:?}");
    assert!(!of_upgrade.keys().any(|write| write.contains("delete")), "{of_upgrade:?}");

    let restarted = stack.start_operator(&settings);
    // Its reconcile is queued behind those of the others.
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    assert!(restarted.terminate());
    let mut of_restart = writes();
    of_restart.retain(|write, count| of_upgrade.get(write) != Some(count));
    assert!(of_restart.len() == 1 && of_restart.values().all(|count| *count == 1), "{of_restart:?}");
}

/// Applies what a release wrote, as its field manager and with the owners that it set.
async fn has_run(models: &Namespace, folder: &Path) {
    for mut object in documents(&folder.join("objects.yaml")) {
        if object["kind"] != "ServiceMonitor" {
            let owner =
                object["metadata"]["name"].as_str().unwrap().trim_start_matches("kthena-keda-").to_owned();
            let model = models.api(&kinds::model_serving()).get(&owner).await.unwrap();
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": owner,
                "uid": model.uid(), "controller": true, "blockOwnerDeletion": false,
            }]);
        }
        objects::apply_as(&models.client, "kthena-keda", object).await;
    }
}

/// Waits until every model has a condition.
async fn has_reported(models: &Api<DynamicObject>) {
    let without = async || {
        let all = models.list(&ListParams::default()).await.unwrap().items;
        let has_condition = |model: &DynamicObject| {
            model.data["status"]["conditions"].to_string().contains("AutoscalingReady")
        };
        all.iter().filter(|model| !has_condition(model)).map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    until_asked("every model has a condition", without, Vec::is_empty).await;
}

/// ScaledObjects and monitors, by kind and name.
async fn written(client: &Client) -> BTreeMap<String, DynamicObject> {
    let mut all = BTreeMap::new();
    for kind in [kinds::scaled_object(), kinds::pod_monitor(), kinds::service_monitor()] {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let found = api
            .list(&ListParams::default().labels("app.kubernetes.io/managed-by=kthena-keda"))
            .await
            .unwrap();
        all.extend(
            found.items.into_iter().map(|object| (format!("{} {}", kind.kind, object.name_any()), object)),
        );
    }
    all
}

fn managers(object: &DynamicObject) -> Vec<&str> {
    object.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref()).collect()
}

/// The fields that differ, one a line, with their old and new values. Queries are left out but for the fact that they differ.
fn differences(before: &BTreeMap<String, DynamicObject>, after: &BTreeMap<String, DynamicObject>) -> String {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut lines = Vec::new();
    for name in names {
        lines.push(name.clone());
        let [old, new] = [before, after].map(|all| all.get(name).map_or(Value::Null, content));
        compare("", &old, &new, &mut lines);
    }
    lines.join("\n")
}

/// The fields of an object that the operator writes.
fn content(object: &DynamicObject) -> Value {
    json!({"labels": object.labels(), "annotations": object.annotations(), "owners": object.owner_references(), "spec": object.data["spec"]})
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(olds), Value::Object(news)) => {
            let keys: BTreeSet<&String> = olds.keys().chain(news.keys()).collect();
            for key in keys {
                compare(&format!("{path}.{key}"), &old[key], &new[key], lines);
            }
        }
        (Value::Array(olds), Value::Array(news)) if olds.len() == news.len() => {
            for (index, (old, new)) in olds.iter().zip(news).enumerate() {
                compare(&format!("{path}[{index}]"), old, new, lines);
            }
        }
        _ if path.rsplit('.').next() == Some("query") => lines.push(format!("  {path}: another query")),
        _ => lines.push(format!("  {path}: {old} -> {new}")),
    }
}
