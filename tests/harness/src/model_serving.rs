//! A builder and a handle for the ModelServings of tests.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    neighbours::{
        LOADING, MOCK, NODE,
        vllm::{PORT, RUNTIME},
    },
    stack::{Namespace, kinds},
    wait::{LIMIT, until, until_within},
};

/// Builder of a ModelServing; [`create`](Self::create) sends it.
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
    real: Option<RealEngine>,
    mocked: bool,
}

/// Settings of pods with a real engine.
#[derive(Clone, Debug, Default)]
pub struct RealEngine {
    /// Arguments of vLLM, except for the model's path and the address.
    pub arguments: Vec<String>,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// Seconds that a `preStop` hook sleeps; 0 for no hook.
    pub pre_stop_seconds: u32,
}

impl RealEngine {
    fn pod(&self, node: Option<&str>) -> Value {
        let mut container = container("engine", &[PORT]);
        container["args"] = json!(self.arguments);
        if self.pre_stop_seconds > 0 {
            container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": self.pre_stop_seconds}}});
        }
        json!({"nodeName": node, "terminationGracePeriodSeconds": self.grace_seconds, "containers": [container]})
    }
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
            real: None,
            mocked: false,
        }
    }

    /// Pod spec of the role. Without `crowded` its container declares no port, as is common for engines.
    fn pod(&self) -> Value {
        if let Some(real) = &self.real {
            return real.pod(self.node);
        }
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

    fn to_json(&self) -> Value {
        let annotations = match (&self.real, self.mocked) {
            (Some(_), _) => json!({RUNTIME: "vllm"}),
            (None, true) => json!({RUNTIME: MOCK, LOADING: self.loading}),
            (None, false) => json!({LOADING: self.loading}),
        };
        let template = json!({
            "metadata": {"annotations": annotations, "labels": self.labels},
            "spec": self.pod(),
        });
        json!({
            "name": self.name, "replicas": self.replicas, "workerReplicas": self.workers,
            "entryTemplate": template, "workerTemplate": template,
        })
    }
}

fn container(name: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|port| json!({"name": format!("p-{port}"), "containerPort": port})).collect();
    json!({"name": name, "image": "vllm/vllm-openai:latest", "ports": ports})
}

impl ModelServingBuilder {
    pub(crate) fn new(namespace: Namespace, name: &str) -> Self {
        let object = DynamicObject::new(name, &kinds::model_serving()).within(&namespace.name);
        Self { namespace, object, roles: vec![Role::named("engine")], replicas: 1 }
    }

    /// Opts in with a model name that is unique to the namespace.
    pub fn opts_in(self) -> Self {
        let name = self.namespace.model_name();
        self.opted_in(&name)
    }

    /// Opts in with these model names, separated by commas.
    pub fn opted_in(self, models: &str) -> Self {
        self.annotated("kthena.io/model-name", models)
    }

    /// Does not opt in.
    pub fn opted_out(mut self) -> Self {
        self.object.annotations_mut().remove("kthena.io/model-name");
        self
    }

    /// Sets an annotation.
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.object.annotations_mut().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the label that shards select by.
    pub fn in_shard(mut self, shard: &str) -> Self {
        self.object.labels_mut().insert("shard".to_owned(), shard.to_owned());
        self
    }

    /// Sets `spec.replicas`, the number of ServingGroups; 1 by default.
    pub fn replicas(mut self, replicas: i32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Replaces the default role `engine` by these roles.
    pub fn roles(mut self, roles: &[&str]) -> Self {
        self.roles = roles.iter().map(|role| Role::named(role)).collect();
        self
    }

    /// Adds a label to the pods of every role.
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        for role in &mut self.roles {
            role.labels.insert(key.to_owned(), value.to_owned());
        }
        self
    }

    /// Assigns its pods to the only node, so that they run.
    pub fn scheduled(mut self) -> Self {
        for role in &mut self.roles {
            role.node = Some(NODE);
        }
        self
    }

    /// Sets the instances of each role, and the workers of each instance in addition to its entry pod.
    pub fn pods(mut self, replicas: u32, workers: u32) -> Self {
        for role in &mut self.roles {
            (role.replicas, role.workers) = (replicas, workers);
        }
        self
    }

    /// Gives its pods several containers, some with several ports, and an init container.
    pub fn crowded(mut self) -> Self {
        for role in &mut self.roles {
            role.crowded = true;
        }
        self
    }

    /// Gives each of its pods a real engine, which [`Vllm`](crate::neighbours::Vllm) starts.
    pub fn real(mut self, engine: &RealEngine) -> Self {
        for role in &mut self.roles {
            role.real = Some(engine.clone());
        }
        self
    }

    /// Gives each of its pods a mock engine of its own at its address, which [`Kubelet`](crate::neighbours::Kubelet) starts.
    pub fn mocked(mut self) -> Self {
        for role in &mut self.roles {
            role.mocked = true;
        }
        self
    }

    /// Sets the time that its pods load before they are ready, such as `5s`; 200 ms by default.
    pub fn loading(mut self, time: &str) -> Self {
        for role in &mut self.roles {
            time.clone_into(&mut role.loading);
        }
        self
    }

    /// The object that [`create`](Self::create) sends.
    pub fn object(&self) -> DynamicObject {
        let mut object = self.object.clone();
        object.data = json!({"spec": {"schedulerName": "volcano", "replicas": self.replicas, "template": {"roles": roles_json(&self.roles)}}});
        object
    }

    /// Creates the ModelServing.
    pub async fn create(self) -> ModelServing {
        let object = self.object();
        let name = object.name_any();
        let api = self.namespace.api(&kinds::model_serving());
        api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        ModelServing { namespace: self.namespace, name, api, limit: LIMIT }
    }
}

fn roles_json(roles: &[Role]) -> Value {
    roles.iter().map(Role::to_json).collect()
}

/// A ModelServing that a test has created.
#[derive(Clone)]
pub struct ModelServing {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    api: Api<DynamicObject>,
    limit: Duration,
}

impl ModelServing {
    /// A ModelServing that another component creates, once it exists.
    pub async fn of_others(namespace: Namespace, name: &str) -> Self {
        let api = namespace.api(&kinds::model_serving());
        crate::wait::until(&api, name, "exists", |found| found.is_some()).await;
        Self { namespace, name: name.to_owned(), api, limit: LIMIT }
    }

    /// The same ModelServing with another time limit for waits.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// Its present state.
    pub async fn get(&self) -> DynamicObject {
        self.api.get(&self.name).await.expect("the ModelServing")
    }

    /// Sets annotations; `None` removes one.
    pub async fn annotate(&self, annotations: &[(&str, Option<&str>)]) {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.patch(json!({"metadata": {"annotations": annotations}})).await;
    }

    /// Applies a JSON merge patch, and returns the patched object.
    pub async fn patch(&self, patch: Value) -> DynamicObject {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a patch")
    }

    /// Replaces the roles.
    pub async fn set_roles(&self, names: &[&str]) {
        let roles: Vec<Role> = names.iter().map(|name| Role::named(name)).collect();
        self.patch(json!({"spec": {"template": {"roles": roles_json(&roles)}}})).await;
    }

    /// Applies a JSON merge patch to its status as the field manager of another controller.
    pub async fn patch_status(&self, manager: &str, patch: Value) -> kube::Result<DynamicObject> {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        self.api.patch_status(&self.name, &params, &Patch::Merge(json!({"status": patch}))).await
    }

    /// Deletes the ModelServing.
    pub async fn delete(&self) {
        self.api.delete(&self.name, &kube::api::DeleteParams::default()).await.expect("a deletion");
    }

    /// Waits until `done` accepts its state; `what` completes "waited until NAME …" in the failure message.
    pub async fn until(&self, what: &str, done: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        until_within(self.limit, &self.api, &self.name, what, |found| found.is_some_and(&done))
            .await
            .expect("the ModelServing")
    }

    /// Waits until the operator's condition has this reason, and returns the message.
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

    /// Waits until the operator's condition has this reason and a message that contains `text`, and returns
    /// the message.
    pub async fn says(&self, reason: &str, text: &str) -> String {
        let found = self
            .until(&format!("has the reason {reason} and the message {text:?}"), |found| {
                message(found, reason).is_some_and(|message| message.contains(text))
            })
            .await;
        message(&found, reason).map(str::to_owned).unwrap_or_default()
    }

    /// Waits until `status.labelSelector` has this value.
    pub async fn selector(&self, selector: &str) {
        self.until(&format!("has the label selector {selector}"), |found| {
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

    /// Waits until `done` accepts its ScaledObject.
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

/// Message of the operator's condition, if it has this reason.
fn message<'a>(model_serving: &'a DynamicObject, reason: &str) -> Option<&'a str> {
    condition(model_serving).filter(|condition| condition["reason"] == reason)?["message"].as_str()
}

/// The condition `AutoscalingReady` of a ModelServing.
pub fn condition(model_serving: &DynamicObject) -> Option<&Value> {
    let conditions = model_serving.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "AutoscalingReady")
}
