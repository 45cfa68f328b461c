//! ModelServers and ModelRoutes, which route clients' requests to pods.

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::stack::{Namespace, kinds};

impl Namespace {
    /// Creates a ModelServer that selects the entry pods of one ModelServing, with mock engines.
    pub async fn model_server(&self, name: &str, model_serving: &str, port: u16) -> DynamicObject {
        let labels =
            json!({"modelserving.volcano.sh/name": model_serving, "modelserving.volcano.sh/entry": "true"});
        let spec = json!({"workloadSelector": {"matchLabels": labels}, "workloadPort": {"port": port}, "inferenceEngine": "vLLM", "model": engine::MODEL});
        self.create(&kinds::model_server(), json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Applies a JSON merge patch to the spec of a ModelServer.
    pub async fn edit_model_server(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api(&kinds::model_server()).patch(name, &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Creates a ModelRoute from a model name to ModelServers, each with its weight.
    pub async fn model_route(&self, name: &str, model: &str, servers: &[(&str, u32)]) -> DynamicObject {
        let spec = json!({"modelName": model, "rules": rules(servers)});
        self.create(&kinds::model_route(), json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Replaces the targets of a ModelRoute.
    pub async fn reroute(&self, name: &str, servers: &[(&str, u32)]) {
        self.edit_model_route(name, json!({"rules": rules(servers)})).await;
    }

    /// Applies a JSON merge patch to the spec of a ModelRoute.
    pub async fn edit_model_route(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.api(&kinds::model_route()).patch(name, &PatchParams::default(), &patch).await.expect("a patch");
    }

    /// Deletes a ModelRoute.
    pub async fn delete_model_route(&self, name: &str) {
        self.api(&kinds::model_route()).delete(name, &DeleteParams::default()).await.expect("a deletion");
    }
}

fn rules(servers: &[(&str, u32)]) -> Value {
    let targets: Vec<Value> =
        servers.iter().map(|(server, weight)| json!({"modelServerName": server, "weight": weight})).collect();
    json!([{"name": "default", "targetModels": targets}])
}
