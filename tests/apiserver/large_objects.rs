//! Objects as large as the API server accepts, of a tenant who may edit ModelServings.

use harness::{Crds, ModelServing, Settings, Stack, kinds};
use kube::{
    Api,
    api::{DynamicObject, PostParams},
};
use serde_json::json;

use super::shared::BINARY;

/// Memory limit of the chart, in KiB.
const LIMIT: u64 = 128 * 1024;
/// Large ModelServings: all in one page of a list would be more than the limit.
const COUNT: usize = 100;
/// Bytes of one, a little below the 1.5 MiB that etcd accepts.
const SIZE: usize = 1_400_000;

/// A ModelServing that is long and not opted in.
fn large(namespace: &str, number: usize) -> DynamicObject {
    let container = json!({"name": "engine", "image": "vllm", "args": ["x".repeat(SIZE)]});
    let role = json!({
        "name": "engine", "replicas": 1, "workerReplicas": 0,
        "entryTemplate": {"spec": {"containers": [container]}},
    });
    let mut object =
        DynamicObject::new(&format!("large-{number}"), &kinds::model_serving()).within(namespace);
    object.data = json!({"spec": {"replicas": 1, "schedulerName": "volcano", "template": {"roles": [role]}}});
    object
}

#[tokio::test]
async fn a_start_beside_large_objects_stays_within_the_memory_limit() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let (models, tenant) = (stack.namespace().await, stack.namespace().await);
    let api: Api<DynamicObject> = tenant.api(&kinds::model_serving());
    for number in 0..COUNT {
        api.create(&PostParams::default(), &large(&tenant.name, number)).await.unwrap();
    }
    let chat: ModelServing = models.model_serving("chat").opts_in().create().await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    chat.scaled_object().await;
    let (_, peak) = operator.memory().unwrap();
    assert!(peak < LIMIT, "{peak} KiB");
}
