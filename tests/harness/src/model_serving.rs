//! ModelServings as tests tell of them.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    neighbours::{LOADING, NODE},
    stack::{Namespace, kinds},
    wait::{LIMIT, until, until_within},
};

/// A ModelServing that does not exist yet.
#[must_use]
pub struct ModelServingBuilder {
    namespace: Namespace,
    object: DynamicObject,
    roles: Vec<Role>,
    replicas: i32,
}

#[derive(Clone, Debug)]
struct Role {
    name: String,
    replicas: u32,
    workers: u32,
    node: Option<&'static str>,
    loading: String,
    labels: BTreeMap<String, String>,
    crowded: bool,
}

impl Role {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            replicas: 1,
            workers: 0,
            node: None,
            loading: "200ms".to_owned(),
            labels: BTreeMap::new(),
            crowded: false,
        }
    }

    /// Engines often declare no port.
    fn pod(&self) -> Value {
        let container = |name: &str, ports: &[u16]| {
            let ports: Vec<Value> = ports
                .iter()
                .map(|port| json!({"name": format!("p-{port}"), "containerPort": port}))
                .collect();
            json!({"name": name, "image": "vllm/vllm-openai:latest", "ports": ports})
        };
        if self.crowded {
            let containers = [
                container("engine", &[8000, 9999]),
                container("sidecar", &[15020]),
                container("helper", &[]),
            ];
            return json!({"nodeName": self.node, "initContainers": [container("fetch", &[1234])], "containers": containers});
        }
        json!({"nodeName": self.node, "containers": [container("engine", &[])]})
    }

    fn object(&self) -> Value {
        let template = json!({
            "metadata": {"annotations": {LOADING: self.loading}, "labels": self.labels},
            "spec": self.pod(),
        });
        json!({
            "name": self.name, "replicas": self.replicas, "workerReplicas": self.workers,
            "entryTemplate": template, "workerTemplate": template,
        })
    }
}

impl ModelServingBuilder {
    pub(crate) fn new(namespace: Namespace, name: &str) -> Self {
        let object = DynamicObject::new(name, &kinds::model_serving()).within(&namespace.name);
        Self { namespace, object, roles: vec![Role::named("engine")], replicas: 1 }
    }

    /// Asks for autoscaling under a model name of its namespace's own.
    pub fn opts_in(self) -> Self {
        let name = self.namespace.model_name();
        self.opted_in(&name)
    }

    /// Asks for autoscaling under these model names.
    pub fn opted_in(self, models: &str) -> Self {
        self.annotated("kthena.io/model-name", models)
    }

    /// Sets an annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.object.annotations_mut().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the label by which shards tell theirs.
    pub fn in_shard(mut self, shard: &str) -> Self {
        self.object.labels_mut().insert("shard".to_owned(), shard.to_owned());
        self
    }

    /// Sets the number of ServingGroups.
    pub fn replicas(mut self, replicas: i32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Names the roles of its ServingGroups.
    pub fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = roles.iter().map(|role| Role::named(role)).collect();
        self
    }

    /// Labels its entry pods.
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        for role in &mut self.roles {
            role.labels.insert(key.to_owned(), value.to_owned());
        }
        self
    }

    /// Has its pods run, on the one node that there is.
    pub fn scheduled(mut self) -> Self {
        for role in &mut self.roles {
            role.node = Some(NODE);
        }
        self
    }

    /// Gives each role so many instances, and each instance so many workers besides its entry pod.
    pub fn pods(mut self, replicas: u32, workers: u32) -> Self {
        for role in &mut self.roles {
            (role.replicas, role.workers) = (replicas, workers);
        }
        self
    }

    /// Gives its pods several containers, some with several ports, and one that runs before them.
    pub fn crowded(mut self) -> Self {
        for role in &mut self.roles {
            role.crowded = true;
        }
        self
    }

    /// Has its pods load that long before they are ready, such as `5s`.
    pub fn loading(mut self, time: &str) -> Self {
        for role in &mut self.roles {
            time.clone_into(&mut role.loading);
        }
        self
    }

    /// The object as it would be sent.
    pub fn object(&self) -> DynamicObject {
        let mut object = self.object.clone();
        object.data = json!({"spec": {"schedulerName": "volcano", "replicas": self.replicas, "template": {"roles": objects(&self.roles)}}});
        object
    }

    /// Creates it.
    pub async fn create(self) -> ModelServing {
        let object = self.object();
        let name = object.name_any();
        let api = self.namespace.api(&kinds::model_serving());
        api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        ModelServing { namespace: self.namespace, name, api, limit: LIMIT }
    }
}

fn objects(roles: &[Role]) -> Value {
    roles.iter().map(Role::object).collect()
}

/// A ModelServing of one test.
#[derive(Clone)]
pub struct ModelServing {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    api: Api<DynamicObject>,
    limit: Duration,
}

impl ModelServing {
    /// The same, waited for that long.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// As it stands now.
    pub async fn get(&self) -> DynamicObject {
        self.api.get(&self.name).await.expect("the ModelServing")
    }

    /// Sets or removes annotations.
    pub async fn annotate(&self, annotations: &[(&str, Option<&str>)]) {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.patch(json!({"metadata": {"annotations": annotations}})).await;
    }

    /// Merges into it.
    pub async fn patch(&self, patch: Value) {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch");
    }

    /// Renames the roles.
    pub async fn set_roles(&self, names: &[&str]) {
        let roles: Vec<Role> = names.iter().map(|name| Role::named(name)).collect();
        self.patch(json!({"spec": {"template": {"roles": objects(&roles)}}})).await;
    }

    /// Merges into its status, as another controller.
    pub async fn patch_status(&self, manager: &str, patch: Value) -> kube::Result<DynamicObject> {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.api.patch_status(&self.name, &params, &Patch::Merge(json!({"status": patch}))).await
    }

    /// Deletes it.
    pub async fn delete(&self) {
        self.api.delete(&self.name, &kube::api::DeleteParams::default()).await.expect("a deletion");
    }

    /// Waits until it is as `done` wants it.
    pub async fn until(&self, what: &str, done: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        until_within(self.limit, &self.api, &self.name, what, |found| found.is_some_and(&done))
            .await
            .expect("the ModelServing")
    }

    /// Waits until our condition has this reason; answers its message.
    pub async fn reason(&self, reason: &str) -> String {
        let found = self
            .until(&format!("has the reason {reason}"), |found| {
                condition(found).is_some_and(|c| c["reason"] == reason)
            })
            .await;
        condition(&found)
            .and_then(|condition| condition["message"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Waits until our condition has this reason and its message says this; answers the message.
    pub async fn says(&self, reason: &str, what: &str) -> String {
        let message = |found: &DynamicObject| {
            let condition = condition(found).filter(|condition| condition["reason"] == reason)?;
            condition["message"].as_str().filter(|message| message.contains(what)).map(str::to_owned)
        };
        let found = self.until(&format!("says {reason}: {what}"), |found| message(found).is_some()).await;
        message(&found).unwrap_or_default()
    }

    /// Waits until there is a label selector.
    pub async fn selector(&self, selector: &str) {
        self.until(&format!("has the selector {selector}"), |found| {
            found.data["status"]["labelSelector"] == selector
        })
        .await;
    }

    /// The ScaledObjects of its namespace.
    pub fn scaled_objects(&self) -> Api<DynamicObject> {
        self.namespace.api(&kinds::scaled_object())
    }

    /// Waits until its ScaledObject exists.
    pub async fn scaled_object(&self) -> DynamicObject {
        self.scaled_object_until("exists", |_| true).await
    }

    /// Waits until its ScaledObject is as `done` wants it.
    pub async fn scaled_object_until(
        &self,
        what: &str,
        done: impl Fn(&DynamicObject) -> bool,
    ) -> DynamicObject {
        let what = format!("'s ScaledObject {what}");
        until(&self.scaled_objects(), &self.name, &what, |found| found.is_some_and(&done))
            .await
            .expect("the ScaledObject")
    }

    /// Waits until its ScaledObject is gone.
    pub async fn scaled_object_gone(&self) {
        until(&self.scaled_objects(), &self.name, "'s ScaledObject is gone", |found| found.is_none()).await;
    }
}

/// Our condition on a ModelServing.
pub fn condition(model_serving: &DynamicObject) -> Option<&Value> {
    let conditions = model_serving.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "AutoscalingReady")
}
