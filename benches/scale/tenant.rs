//! A tenant who fills the ModelServings of a namespace with the longest annotations that the API server accepts, and for comparison
//! objects with the same annotations that the operator does not watch.

use futures::{StreamExt as _, stream};
use harness::{Namespace, kinds};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::models::{name, pod};

/// Concurrent requests that create models.
const CONCURRENCY: usize = 16;
/// Bytes of annotations; the API server allows 256 KiB for one object.
const ANNOTATIONS: usize = 240 * 1024;
/// Pod templates of 5 KB in one ModelServing: Kthena's CRD allows four roles with two each.
const ROLES: usize = 4;

/// Many large objects of one tenant.
pub struct Tenant {
    namespace: Namespace,
    kind: ApiResource,
    count: usize,
}

impl Tenant {
    /// Creates `count` ModelServings: half with settings of up to 120 KiB that are wrong, half with valid ones.
    pub async fn create(namespace: Namespace, count: usize) -> Self {
        Self::create_all(Self { namespace, kind: kinds::model_serving(), count }).await
    }

    /// Creates `count` objects with the same annotations, of the kind `ConfigMap`.
    pub async fn create_unwatched(namespace: Namespace, count: usize) -> Self {
        let kind = harness::stack::resource("", "v1", "ConfigMap", "configmaps");
        Self::create_all(Self { namespace, kind, count }).await
    }

    async fn create_all(tenant: Self) -> Self {
        let (api, count) = (tenant.api(), tenant.count);
        let object = async |i| api.create(&PostParams::default(), &tenant.object(i)).await;
        let failed = "an object of the tenant";
        let all = stream::iter(0..count);
        all.for_each_concurrent(CONCURRENCY, async |i| drop(object(i).await.expect(failed))).await;
        tenant
    }

    /// Changes one object after the other, without end.
    pub async fn change_all(&self) {
        let api = self.api();
        for i in (0..self.count).cycle() {
            let flipped =
                json!({"metadata": {"annotations": {"kthena.io/model-name": format!("other-{i}")}}});
            let restored =
                json!({"metadata": {"annotations": {"kthena.io/model-name": format!("tenant-{i}")}}});
            for patch in [flipped, restored] {
                let patched =
                    api.patch_metadata(&name(i), &PatchParams::default(), &Patch::Merge(patch)).await;
                patched.expect("a patch");
            }
        }
    }

    fn api(&self) -> Api<DynamicObject> {
        self.namespace.api(&self.kind)
    }

    fn object(&self, i: usize) -> DynamicObject {
        let mut object = DynamicObject::new(&name(i), &self.kind).within(&self.namespace.name);
        let annotations = object.annotations_mut();
        annotations.insert("kthena.io/model-name".to_owned(), format!("tenant-{i}"));
        if i.is_multiple_of(2) {
            let quarter = ANNOTATIONS / 4;
            annotations.insert("autoscaling.kthena.io/signals".to_owned(), "s=1,".repeat(quarter / 4));
            annotations.insert("autoscaling.kthena.io/min-replicas".to_owned(), "9".repeat(quarter));
        }
        let used: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        annotations.insert("example.com/ballast".to_owned(), "x".repeat(ANNOTATIONS - used));
        if self.kind.kind == "ModelServing" {
            object.data = spec();
        }
        object
    }
}

fn spec() -> Value {
    let role = |role: usize| {
        json!({
            "name": format!("role-{role}"), "replicas": 1, "workerReplicas": 1,
            "entryTemplate": pod("leader"), "workerTemplate": pod("worker"),
        })
    };
    let roles: Vec<Value> = (0..ROLES).map(role).collect();
    json!({"spec": {"schedulerName": "volcano", "replicas": 1, "template": {"roles": roles}}})
}
