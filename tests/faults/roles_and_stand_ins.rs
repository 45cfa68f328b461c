//! Objects of roles and stand-ins while requests fail and the operator is killed: none is missing, left over or written twice.

use std::{collections::BTreeSet, time::Duration};

use harness::{
    Fault, FaultProxy, ModelServing, Namespace, OPERATOR, Process, Settings, kinds, objects,
    stack::{resource, root},
    wait::until_asked_within,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    convergence::LIMIT,
    shared::{BINARY, Cluster},
};

/// Models of each kind.
const MODELS: usize = 8;
/// Rounds of changes; after each one the operator is killed.
const ROUNDS: usize = 4;
const ROLES: &str = "prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 max=16";
const IMAGE: &str = concat!("ghcr.io/volcano-sh/kthena-keda:", env!("CARGO_PKG_VERSION"));

/// Models with scaled roles, and models that sleep behind a stand-in.
struct Fleet {
    cluster: Cluster,
    models: Namespace,
    with_roles: Vec<ModelServing>,
    asleep: Vec<ModelServing>,
    /// Changes of the number of a role so far.
    scaled: usize,
}

impl Fleet {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        cluster.stack.allow_roles().await;
        let models = cluster.models.clone();
        objects::apply_file(&models.client, &root().join("config/stand-ins/standins.yaml")).await;
        // Pods need one, and its controller does not run.
        let account = resource("", "v1", "ServiceAccount", "serviceaccounts");
        models.create(&account, json!({"metadata": {"name": "default"}})).await;
        let profile = json!({
            "apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "holding"},
            "spec": {"replicas": {"min": 0}, "scaleToZero": {"hold": {}}},
        });
        objects::apply(&models.client, profile).await;
        let (mut with_roles, mut asleep) = (Vec::new(), Vec::new());
        for i in 0..MODELS {
            with_roles.push(with_scaled_roles(&models, &format!("roles-{i}")).await);
            asleep.push(sleeping(&models, &format!("asleep-{i}")).await);
        }
        Self { cluster, models, with_roles, asleep, scaled: 0 }
    }

    /// Sets the number of a random role of each model, as the HPA does, and deletes some of the generated objects.
    async fn change(&mut self) {
        for chat in &self.with_roles {
            let targets = objects_of(&self.models, &kinds::model_serving_role()).await;
            let own: Vec<_> = targets.into_iter().filter(|target| is_owned(target, &chat.name)).collect();
            let Some(target) = own.get(usize::try_from(self.cluster.random.below(2)).unwrap()) else {
                continue;
            };
            let number = 1 + self.cluster.random.below(8);
            let patch = Patch::Merge(json!({"spec": {"replicas": number}}));
            let api: Api<DynamicObject> = self.models.api(&kinds::model_serving_role());
            api.patch_scale(&target.name_any(), &PatchParams::default(), &patch).await.unwrap();
            self.scaled += 1;
            sleep(self.cluster.random.millis(0, 100)).await;
        }
        for kind in [kinds::pod(), kinds::scaled_object()] {
            for found in objects_of(&self.models, &kind).await {
                if self.cluster.random.below(6) == 0 && !self.cluster.is_foreign(&found.name_any()) {
                    let at_once = DeleteParams::default().grace_period(0);
                    // The operator may have deleted it already.
                    let _ = self.models.api(&kind).delete(&found.name_any(), &at_once).await;
                }
            }
        }
    }

    /// Everything that differs from what the models ask for.
    async fn differences(&self) -> Vec<String> {
        let targets = objects_of(&self.models, &kinds::model_serving_role()).await;
        let mut expected = BTreeSet::new();
        let mut all = Vec::new();
        for chat in &self.with_roles {
            let own: Vec<_> = targets.iter().filter(|target| is_owned(target, &chat.name)).collect();
            if own.len() != 2 {
                all.push(format!("{} has {} scale targets", chat.name, own.len()));
            }
            let roles = chat.get().await.data["spec"]["template"]["roles"].clone();
            for target in own {
                expected.insert(format!("ScaledObject {}", target.name_any()));
                let (asked, role) = (&target.data["spec"]["replicas"], &target.data["spec"]["role"]);
                let number = roles.as_array().unwrap().iter().find(|found| found["name"] == *role);
                if number.map(|found| &found["replicas"]) != Some(asked) {
                    all.push(format!("{} has another number of {role} than {asked}: {roles}", chat.name));
                }
            }
        }
        for chat in &self.asleep {
            expected.insert(format!("ScaledObject {}", chat.name));
            expected.insert(format!("Pod {}-stand-in, which takes requests", chat.name));
            expected.insert(format!("Service {}-stand-in", chat.name));
        }
        let found = self.generated().await;
        all.extend(expected.difference(&found).map(|object| format!("{object} is missing")));
        all.extend(found.difference(&expected).map(|object| format!("{object} is extra")));
        all
    }

    /// ScaledObjects, pods and Services that are not foreign.
    async fn generated(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for kind in [kinds::scaled_object(), kinds::pod(), kinds::service()] {
            let found = objects_of(&self.models, &kind).await;
            let own = found.iter().filter(|object| !self.cluster.is_foreign(&object.name_any()));
            all.extend(own.map(|object| {
                let state = if takes_requests(object) { ", which takes requests" } else { "" };
                format!("{} {}{state}", kind.kind, object.name_any())
            }));
        }
        all
    }

    /// Successful writes of a spec of a ModelServing.
    fn spec_writes(&self) -> usize {
        let is_spec = |request: &&harness::Request| {
            let object = &request.object_ref;
            object.resource == "modelservings" && object.subresource.is_empty() && request.code() == 200
        };
        self.cluster.stack.writes().iter().filter(is_spec).count()
    }
}

async fn with_scaled_roles(models: &Namespace, name: &str) -> ModelServing {
    let builder = models.model_serving(name).roles(&["prefill", "decode"]).opted_in(name);
    builder
        .annotated("autoscaling.kthena.io/roles", ROLES)
        .annotated("autoscaling.kthena.io/engine", "vllm")
        .annotated("autoscaling.kthena.io/engine-port", "8000")
        .create()
        .await
}

async fn sleeping(models: &Namespace, name: &str) -> ModelServing {
    models.model_server(name, name, 8000).await;
    models.model_route(name, name, &[(name, 100)]).await;
    let builder = models.model_serving(name).opted_in(name).replicas(0);
    builder.annotated("autoscaling.kthena.io/profile", "holding").create().await
}

async fn objects_of(models: &Namespace, kind: &ApiResource) -> Vec<DynamicObject> {
    models.api(kind).list(&ListParams::default()).await.unwrap().items
}

fn is_owned(object: &DynamicObject, name: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.name == name)
}

fn takes_requests(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    let is_open =
        |found: &Value| found["type"] == "autoscaling.kthena.io/takes-requests" && found["status"] == "True";
    conditions.is_some_and(|all| all.iter().any(is_open))
}

fn settings() -> Settings {
    Settings::new(BINARY).with("--scale-roles=true").with(&format!("--stand-in-image={IMAGE}"))
}

#[tokio::test]
async fn converge_after_failed_requests_and_kills() {
    let mut fleet = Fleet::start().await;
    let proxy = FaultProxy::start(&fleet.cluster.stack.control_plane, &OPERATOR, Fault::None).await;
    let start = |fleet: &Fleet| -> Process {
        settings().start(&fleet.cluster.stack.control_plane.folder, &proxy.kubeconfig())
    };
    let mut operator = start(&fleet);
    let waiting = async || fleet.differences().await;
    until_asked_within(LIMIT, "all objects exist", waiting, Vec::is_empty).await;
    for _ in 0..ROUNDS {
        proxy.set(Fault::Mixed(fleet.cluster.random.below(u64::MAX)));
        fleet.change().await;
        sleep(fleet.cluster.random.millis(0, 2000)).await;
        drop(operator);
        fleet.change().await;
        operator = start(&fleet);
        sleep(fleet.cluster.random.millis(0, 3000)).await;
    }
    proxy.set(Fault::None);
    let waiting = async || fleet.differences().await;
    until_asked_within(LIMIT, "every object is as asked for", waiting, Vec::is_empty).await;
    assert!(!operator.has_ended(), "{}", operator.log());
    fleet.cluster.assert_foreign_unchanged().await;
    let writes = fleet.spec_writes();
    assert!(writes <= fleet.scaled, "{writes} writes of specs for {} changes", fleet.scaled);

    // At rest nothing is written.
    sleep(Duration::from_secs(2)).await;
    let before = fleet.cluster.stack.writes().len();
    sleep(Duration::from_secs(6)).await;
    let since = fleet.cluster.stack.writes().split_off(before);
    let since: Vec<_> = since.into_iter().filter(|write| write.object_ref.resource != "leases").collect();
    assert!(since.is_empty(), "{:?}", harness::audit::summary(&since));
}
