//! The benchmark's models: many ModelServings of realistic size that share one profile.

use futures::{StreamExt as _, stream};
use harness::{Namespace, kinds};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Concurrent requests that create or change models.
const CONCURRENCY: usize = 16;
/// Annotation that opts a model in.
const MODEL_NAME: &str = "kthena.io/model-name";
/// Name of the shared profile.
const PROFILE: &str = "bench";

/// Many ModelServings in one namespace.
pub struct Models {
    namespace: Namespace,
    count: usize,
}

impl Models {
    /// Creates a profile and `count` ModelServings that use it, alternating between the shards `a` and `b`.
    pub async fn create(namespace: Namespace, count: usize) -> Self {
        let profiles: Api<DynamicObject> = Api::all_with(namespace.client.clone(), &kinds::profile());
        let mut profile = DynamicObject::new(PROFILE, &kinds::profile());
        profile.data = json!({"spec": {"replicas": {"max": 10}}});
        profiles.create(&PostParams::default(), &profile).await.expect("a profile");
        let models = Self { namespace, count };
        let api = models.api();
        stream::iter(0..count)
            .for_each_concurrent(CONCURRENCY, async |i| {
                api.create(&PostParams::default(), &models.object(i)).await.expect("a ModelServing");
            })
            .await;
        models
    }

    fn api(&self) -> Api<DynamicObject> {
        self.namespace.api(&kinds::model_serving())
    }

    fn object(&self, i: usize) -> DynamicObject {
        let mut object = DynamicObject::new(&name(i), &kinds::model_serving()).within(&self.namespace.name);
        object
            .labels_mut()
            .insert("shard".to_owned(), if i.is_multiple_of(2) { "a" } else { "b" }.to_owned());
        object.annotations_mut().insert(MODEL_NAME.to_owned(), name(i));
        object.annotations_mut().insert("autoscaling.kthena.io/profile".to_owned(), PROFILE.to_owned());
        object.data = json!({"spec": {"schedulerName": "volcano", "replicas": 1, "template": {"roles": [{
            "name": "engine", "replicas": 1, "workerReplicas": 1, "entryTemplate": pod("leader"), "workerTemplate": pod("worker"),
        }]}}});
        object
    }

    /// Number of models.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Present state of all models.
    pub async fn list(&self) -> Vec<DynamicObject> {
        self.api().list(&ListParams::default()).await.expect("ModelServings").items
    }

    /// Size of a ModelServing as JSON, in bytes.
    pub async fn size(&self) -> usize {
        let one = self.api().get(&name(0)).await.expect("a ModelServing");
        serde_json::to_vec(&one).expect("JSON").len()
    }

    /// The shared profile.
    pub async fn profile(&self) -> DynamicObject {
        let profiles: Api<DynamicObject> = Api::all_with(self.namespace.client.clone(), &kinds::profile());
        profiles.get(PROFILE).await.expect("the profile")
    }

    /// Changes the shared profile, which affects all models.
    pub async fn change_profile(&self) {
        let profiles: Api<DynamicObject> = Api::all_with(self.namespace.client.clone(), &kinds::profile());
        let patch = Patch::Merge(json!({"spec": {"replicas": {"max": 20}}}));
        profiles.patch(PROFILE, &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Has the operator measure the service time of all models.
    pub async fn measure_service_times(&self) {
        let profiles: Api<DynamicObject> = Api::all_with(self.namespace.client.clone(), &kinds::profile());
        let patch = Patch::Merge(json!({"spec": {"backlog": {"serviceTime": "auto"}}}));
        profiles.patch(PROFILE, &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Sets or removes an annotation of one model.
    pub async fn annotate(&self, i: usize, key: &str, value: Option<&str>) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.api().patch(&name(i), &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Opts all models out.
    pub async fn opt_out(&self) {
        stream::iter(0..self.count)
            .for_each_concurrent(CONCURRENCY, |i| self.annotate(i, MODEL_NAME, None))
            .await;
    }

    /// Panics unless every model has a selector, the condition `Pending` and a ScaledObject, and there is no
    /// other ScaledObject.
    pub async fn are_complete(&self) {
        let scaled_objects = self.scaled_objects().await;
        assert_eq!(scaled_objects.len(), self.count, "ScaledObjects");
        for model in self.list().await {
            let status = &model.data["status"];
            let conditions: Vec<Condition> =
                serde_json::from_value(status["conditions"].clone()).expect("conditions");
            let reason = conditions
                .iter()
                .find(|condition| condition.type_ == "AutoscalingReady")
                .map(|condition| condition.reason.as_str());
            assert!(
                status["labelSelector"].is_string() && reason == Some("Pending"),
                "{}: {status}",
                model.name_any()
            );
        }
    }

    /// All ScaledObjects.
    pub async fn scaled_objects(&self) -> Vec<DynamicObject> {
        self.namespace
            .api(&kinds::scaled_object())
            .list(&ListParams::default())
            .await
            .expect("ScaledObjects")
            .items
    }

    /// Namespace of the models.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// Name of a model.
pub fn name(i: usize) -> String {
    format!("chat-{i}")
}

/// Pod template of an inference engine, which makes up most of a ModelServing's size.
pub fn pod(role: &str) -> Value {
    let env: Vec<Value> =
        (0..56).map(|i| json!({"name": format!("ENGINE_SETTING_{i}"), "value": format!("a value of {role} that is {i}")})).collect();
    let mounts: Vec<Value> = (0..4)
        .map(|i| json!({"name": format!("volume-{i}"), "mountPath": format!("/mnt/volume-{i}")}))
        .collect();
    let volumes: Vec<Value> =
        (0..4).map(|i| json!({"name": format!("volume-{i}"), "emptyDir": {}})).collect();
    let resources = json!({"limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "8", "memory": "64Gi"}});
    let command = json!([
        "python3",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "/mnt/volume-0",
        "--tensor-parallel-size",
        "2"
    ]);
    let engine = json!({"name": "engine", "image": "vllm/vllm-openai:v0.10.0", "command": command, "env": env, "volumeMounts": mounts, "resources": resources});
    json!({"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [engine], "volumes": volumes}})
}
