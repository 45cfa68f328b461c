//! Convergence: the cluster has exactly the objects that `render` prints for the same models, and foreign
//! objects are unchanged.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use harness::{Process, condition, kinds, wait::until_asked_within};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::shared::{BINARY, Cluster};

/// Time limit for convergence after the end of a fault.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Expected state of a model.
struct Expected {
    scaled_object: Option<Value>,
    reason: Option<String>,
}

/// Waits until the cluster has the expected state, and checks that the operator still runs.
pub async fn converges(cluster: &Cluster, operator: &mut Process) {
    converges_within(LIMIT, cluster, operator).await;
}

/// Like [`converges`], with another time limit.
pub async fn converges_within(limit: Duration, cluster: &Cluster, operator: &mut Process) {
    let differences = async || differences(cluster).await.unwrap_or_else(|error| vec![error.to_string()]);
    until_asked_within(limit, "the cluster matches the output of render", differences, Vec::is_empty).await;
    assert!(!operator.has_ended(), "{}", operator.log());
    cluster.assert_foreign_unchanged().await;
}

async fn differences(cluster: &Cluster) -> kube::Result<Vec<String>> {
    let model_servings = list(cluster.models.api(&kinds::model_serving()), &kinds::model_serving()).await?;
    let profiles =
        list(Api::all_with(cluster.models.client.clone(), &kinds::profile()), &kinds::profile()).await?;
    let mut scaled_objects: BTreeMap<String, DynamicObject> =
        list(cluster.models.api(&kinds::scaled_object()), &kinds::scaled_object())
            .await?
            .into_iter()
            .map(by_name)
            .collect();
    let mut all = Vec::new();
    for (model_serving, expected) in model_servings.iter().zip(render(cluster, &model_servings, &profiles)) {
        let found = expected
            .scaled_object
            .as_ref()
            .and_then(|wanted| scaled_objects.remove(wanted["metadata"]["name"].as_str()?));
        all.extend(difference(model_serving, &expected, found.as_ref()));
    }
    all.extend(
        scaled_objects
            .into_keys()
            .filter(|name| !cluster.is_foreign(name))
            .map(|name| format!("{name} is extra")),
    );
    Ok(all)
}

async fn list(api: Api<DynamicObject>, kind: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
    let mut objects = api.list(&ListParams::default()).await?.items;
    for object in &mut objects {
        object.types =
            Some(kube::api::TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
        object.metadata.managed_fields = None;
    }
    Ok(objects)
}

fn by_name(object: DynamicObject) -> (String, DynamicObject) {
    (object.name_any(), object)
}

/// Expected state of each model, from the output of the operator's own `render`.
fn render(cluster: &Cluster, model_servings: &[DynamicObject], profiles: &[DynamicObject]) -> Vec<Expected> {
    let file = cluster.stack.control_plane.folder.join("models.json");
    fs::write(&file, json!({"items": ([model_servings, profiles].concat())}).to_string()).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["render", "-o", "json", "--prometheus-url=http://prometheus:9090"]).arg(&file).env_clear();
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let printed: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let mut objects: BTreeMap<&str, &Value> =
        printed["items"].as_array().into_iter().flatten().filter_map(by_owner).collect();
    let expected = |(i, model_serving): (usize, &DynamicObject)| {
        let is_opted_in = model_serving.annotations().contains_key("kthena.io/model-name");
        let problem = reason(&errors, i + 1);
        let reason = is_opted_in.then(|| problem.unwrap_or("Pending").to_owned());
        Expected { scaled_object: objects.remove(model_serving.uid().unwrap().as_str()).cloned(), reason }
    };
    let expected: Vec<Expected> = model_servings.iter().enumerate().map(expected).collect();
    assert!(objects.is_empty() && !errors.contains("cannot"), "{errors}");
    expected
}

/// The UID of a ScaledObject's owner, and the ScaledObject; `None` for other kinds.
fn by_owner(object: &Value) -> Option<(&str, &Value)> {
    let is_scaled_object = object["kind"] == "ScaledObject";
    object
        .pointer("/metadata/ownerReferences/0/uid")?
        .as_str()
        .filter(|_| is_scaled_object)
        .map(|owner| (owner, object))
}

/// The reason in the error that `render` prints for an item of its file.
fn reason(errors: &str, item: usize) -> Option<&str> {
    let place = format!(", item {item}: ");
    errors.lines().find_map(|line| line.strip_prefix("error: ")?.split_once(&place)?.1.split(':').next())
}

fn difference(
    model_serving: &DynamicObject,
    expected: &Expected,
    found: Option<&DynamicObject>,
) -> Vec<String> {
    let name = model_serving.name_any();
    let mut all = Vec::new();
    match (&expected.scaled_object, found) {
        (Some(_), None) => all.push(format!("{name} has no ScaledObject")),
        (Some(wanted), Some(found)) if !matches(wanted, found) => {
            all.push(format!("{name}'s ScaledObject is {found:?}, not {wanted}"));
        }
        _ => {}
    }
    let reason = condition(model_serving).and_then(|condition| condition["reason"].as_str());
    if reason != expected.reason.as_deref() {
        all.push(format!("{name} has the reason {reason:?}, not {:?}", expected.reason));
    }
    let selector = &model_serving.data["status"]["labelSelector"];
    if *selector != selector_of(&name) {
        all.push(format!("{name} has the selector {selector}"));
    }
    all
}

/// `true` if the ScaledObject has the wanted content. Other writers may add labels and annotations.
fn matches(wanted: &Value, found: &DynamicObject) -> bool {
    let found = serde_json::to_value(found).unwrap();
    let contains = |field: &str| {
        let wanted = wanted["metadata"][field].as_object().into_iter().flatten();
        wanted.into_iter().all(|(key, value)| found["metadata"][field][key] == *value)
    };
    wanted["spec"] == found["spec"]
        && wanted["metadata"]["ownerReferences"] == found["metadata"]["ownerReferences"]
        && contains("labels")
        && contains("annotations")
}

fn selector_of(name: &str) -> String {
    ["entry=true".to_owned(), format!("name={name}"), "role-id=engine-0".to_owned(), "role=engine".to_owned()]
        .map(|label| format!("modelserving.volcano.sh/{label}"))
        .join(",")
}
