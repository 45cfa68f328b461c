//! Objects of any kind, from YAML files or JSON, with server-side apply.

use std::path::Path;

use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, GroupVersionKind, Patch, PatchParams},
    discovery::{self, Scope},
};
use serde_json::Value;

/// Reads all objects of a YAML file. Lines with template expressions are removed, so that conditional parts
/// of a chart are included.
pub fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let plain: Vec<&str> = text.lines().filter(|line| !line.contains("{{")).collect();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&plain.join("\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// Applies all objects of a YAML file.
pub async fn apply_file(client: &Client, path: &Path) {
    for object in read(path) {
        apply(client, object).await;
    }
}

/// Applies one object as the field manager `harness`, with force.
pub async fn apply(client: &Client, object: Value) -> DynamicObject {
    apply_as(client, "harness", object).await
}

/// Applies one object as any field manager, with force.
pub async fn apply_as(client: &Client, manager: &str, object: Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let types = object.types.clone().expect("a kind");
    let gvk = GroupVersionKind::try_from(&types).expect("a kind");
    let (resource, capabilities) =
        discovery::pinned_kind(client, &gvk).await.unwrap_or_else(|error| panic!("{gvk:?}: {error}"));
    let api: Api<DynamicObject> = match (capabilities.scope, object.namespace()) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let applied =
        api.patch(&object.name_any(), &PatchParams::apply(manager).force(), &Patch::Apply(&object)).await;
    applied.unwrap_or_else(|error| panic!("{} {}: {error}", gvk.kind, object.name_any()))
}

/// `true` if the condition `Ready` of a pod is `True`.
pub fn is_ready(pod: &DynamicObject) -> bool {
    let conditions = pod.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| found["type"] == "Ready" && found["status"] == "True")
}
