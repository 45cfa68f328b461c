//! Stand-in pods: ownership, the readiness gate, adoption after a restart, objects of other owners, and a missing
//! permission.

use std::time::Duration;

use harness::{
    Crds, ModelServing, Namespace, Process, Settings, Stack, kinds,
    objects::{apply, apply_file, read},
    stack::{resource, root},
    wait::{until, until_asked},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{conflicts::Denial, shared::BINARY};

const NAME: &str = "chat-stand-in";
/// The image that the admission policy allows.
const IMAGE: &str = concat!("ghcr.io/volcano-sh/kthena-keda:", env!("CARGO_PKG_VERSION"));

/// A stack whose operator may make stand-ins.
struct Holding {
    stack: Stack,
    models: Namespace,
}

impl Holding {
    /// A stack whose operator has no permission for stand-ins yet.
    async fn start() -> Self {
        let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
        let client = stack.client().await;
        hold_by_default(&client).await;
        let models = stack.namespace().await;
        // Pods need one, and its controller does not run.
        models
            .create(
                &resource("", "v1", "ServiceAccount", "serviceaccounts"),
                json!({"metadata": {"name": "default"}}),
            )
            .await;
        Self { stack, models }
    }

    async fn permit(&self) {
        apply_file(&self.models.client, &root().join("config/stand-ins/standins.yaml")).await;
    }

    fn operator(&self) -> Process {
        self.stack.start_operator(&settings())
    }

    /// A sleeping model with a ModelServer and a route.
    async fn asleep(&self) -> ModelServing {
        self.models.model_server("chat", "chat", 8000).await;
        self.models.model_route("chat", &self.models.model_name(), &[("chat", 100)]).await;
        let min = "autoscaling.kthena.io/min-replicas";
        self.models.model_serving("chat").opts_in().annotated(min, "0").replicas(0).create().await
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.models.api(&kinds::pod())
    }

    fn services(&self) -> Api<DynamicObject> {
        self.models.api(&kinds::service())
    }

    async fn pod_until(&self, what: &str, done: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        until(&self.pods(), NAME, what, |found| found.is_some_and(&done)).await.unwrap()
    }

    async fn gone(&self) {
        until(&self.pods(), NAME, "is gone", |found| found.is_none()).await;
        until(&self.services(), NAME, "is gone", |found| found.is_none()).await;
    }

    /// Writes of pods and Services by the operator.
    fn writes(&self) -> Vec<String> {
        let writes = self.stack.writes().into_iter().map(|request| request.describe());
        writes.filter(|write| write.contains("pods") || write.contains("services")).collect()
    }
}

/// Creates the profile `default` with held requests.
async fn hold_by_default(client: &Client) {
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "default"}, "spec": {"scaleToZero": {"hold": {}}}});
    apply(client, profile).await;
}

fn settings() -> Settings {
    Settings::new(BINARY).with(&format!("--stand-in-image={IMAGE}"))
}

fn gate(pod: &DynamicObject) -> Option<&str> {
    let conditions = pod.data["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|found| found["type"] == "autoscaling.kthena.io/takes-requests")
        .and_then(|found| found["status"].as_str())
}

async fn available(chat: &ModelServing, replicas: i32, available: i32) {
    chat.patch(json!({"spec": {"replicas": replicas}})).await;
    let status = json!({"replicas": replicas, "availableReplicas": available});
    chat.patch_status("kthena", status).await.unwrap();
}

/// In one stack, because each takes as long to start as all of these steps.
#[tokio::test]
async fn follows_the_model_within_its_permissions() {
    let holding = Holding::start().await;
    let theirs = foreign_pod(&holding).await;
    let chat = holding.asleep().await;
    makes_none_without_the_flag(&holding, &chat).await;
    reports_a_missing_permission(&holding, &chat).await;
    holding.permit().await;
    let operator = reports_the_rejections_of_both(&holding, &chat).await;
    let operator = leaves_a_foreign_pod_alone(&holding, &chat, &theirs, operator).await;
    writes_nothing_at_rest(&holding, &chat, operator).await;
    let _operator = holding.operator();
    follows(&holding, &chat).await;
    uses_every_permission(&holding.stack);
    policy_bounds_the_permissions(&holding).await;
}

/// The role of the chart grants nothing that the operator does not use.
fn uses_every_permission(stack: &Stack) {
    let requests = stack.requests();
    let is_used = |verb: &str, resource: &str| {
        requests.iter().any(|request| {
            let object = &request.object_ref;
            let full = match object.subresource.as_str() {
                "" => object.resource.clone(),
                subresource => format!("{}/{subresource}", object.resource),
            };
            // A server-side apply that creates an object needs both permissions.
            let creates = verb == "create" && request.verb == "patch" && request.code() == 201;
            full == resource && (request.verb == verb || creates)
        })
    };
    let objects = read(&root().join("config/stand-ins/standins.yaml"));
    let rules = objects.iter().flat_map(|object| object["rules"].as_array().into_iter().flatten());
    for rule in rules {
        for (verb, resource) in
            rule["verbs"].as_array().unwrap().iter().zip(std::iter::repeat(&rule["resources"][0]))
        {
            let (verb, resource) = (verb.as_str().unwrap(), resource.as_str().unwrap());
            assert!(is_used(verb, resource), "{verb} {resource} is not used");
        }
    }
}

async fn foreign_pod(holding: &Holding) -> DynamicObject {
    let container = json!({"name": "theirs", "image": "theirs"});
    let pod = json!({"metadata": {"name": NAME}, "spec": {"containers": [container]}});
    holding.models.create(&kinds::pod(), pod).await
}

/// Without the chart value the operator reads and writes no pods, and says why requests fail.
async fn makes_none_without_the_flag(holding: &Holding, chat: &ModelServing) {
    let _operator = holding.stack.start_operator(&Settings::new(BINARY));
    chat.says("Pending", "this operator makes no stand-in pods").await;
    let requests: Vec<String> = holding.stack.requests().into_iter().map(|found| found.describe()).collect();
    let of_pods: Vec<_> = requests.iter().filter(|found| found.contains("pods")).collect();
    assert!(of_pods.is_empty(), "{of_pods:?}");
}

/// Models are scaled all the same.
async fn reports_a_missing_permission(holding: &Holding, chat: &ModelServing) {
    let _operator = holding.operator();
    // A restart does not rewrite the condition; a change of an annotation after the first reconcile does.
    set_max(chat, 6).await;
    set_max(chat, 5).await;
    chat.says("Pending", "no permission to list services, so the stand-in pod").await;
}

/// Has the operator apply another maximum.
async fn set_max(chat: &ModelServing, max: i32) {
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some(&max.to_string()))]).await;
    chat.scaled_object_until("has the maximum", |found| found.data["spec"]["maxReplicaCount"] == max).await;
}

/// Neither a rejected stand-in nor a rejected PodMonitor keeps the ScaledObject from being written, or hides the other.
async fn reports_the_rejections_of_both(holding: &Holding, chat: &ModelServing) -> Process {
    let spec = json!({"selector": {}, "podMetricsEndpoints": []});
    let denial = Denial::of(&holding.models, &kinds::pod_monitor(), spec).await;
    let signals = |value| [("autoscaling.kthena.io/signals", value)];
    chat.annotate(&[("autoscaling.kthena.io/engine", Some("vllm"))]).await;
    chat.annotate(&signals(Some("active-requests=10, kv-cache=0.7"))).await;
    let operator = holding.operator();
    set_max(chat, 6).await;
    set_max(chat, 5).await;
    chat.until("reports both rejections", |found| {
        let message = message(found);
        let both = ["PodMonitor kthena-keda-chat was rejected", "Pod chat-stand-in was rejected"];
        both.iter().all(|rejection| message.contains(rejection))
    })
    .await;
    chat.reason("ScaledObjectNotReady").await;
    denial.end(&holding.models).await;
    chat.annotate(&signals(None)).await;
    chat.says("Pending", "Pod chat-stand-in was rejected").await;
    operator
}

/// Reports the end of the rejection soon, also after a restart.
async fn leaves_a_foreign_pod_alone(
    holding: &Holding,
    chat: &ModelServing,
    theirs: &DynamicObject,
    operator: Process,
) -> Process {
    chat.says("Pending", "Pod chat-stand-in was rejected: it exists and has another owner").await;
    let now = holding.pods().get(NAME).await.unwrap();
    assert_eq!((now.uid(), now.resource_version()), (theirs.uid(), theirs.resource_version()));
    drop(operator);
    let operator = holding.operator();
    let log = async || operator.log();
    until_asked("is rejected again", log, |log| log.contains("exists and has another owner")).await;
    holding.pods().delete(NAME, &DeleteParams::default().grace_period(0)).await.unwrap();
    let pod = holding.pod_until("takes requests", |pod| gate(pod) == Some("True")).await;
    let owner = &pod.owner_references()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
        (chat.get().await.uid().unwrap().as_str(), Some(true), Some(false))
    );
    let service = holding.services().get(NAME).await.unwrap();
    assert_eq!(service.data["spec"]["clusterIP"], "None");
    chat.until("reports no rejection", |found| !message(found).contains("rejected")).await;
    operator
}

/// Neither at rest nor after a restart, which adopts the pod.
async fn writes_nothing_at_rest(holding: &Holding, chat: &ModelServing, operator: Process) {
    sleep(Duration::from_secs(3)).await;
    let before = holding.writes();
    drop(operator);
    let operator = holding.operator();
    set_max(chat, 7).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(holding.writes(), before);
    drop(operator);
}

fn message(chat: &DynamicObject) -> &str {
    harness::condition(chat).and_then(|found| found["message"].as_str()).unwrap_or_default()
}

async fn follows(holding: &Holding, chat: &ModelServing) {
    let pod = holding.pods().get(NAME).await.unwrap();
    // A ServingGroup is ready: the pod leaves the way, and stays for a while.
    available(chat, 1, 1).await;
    holding.pod_until("takes no requests", |pod| gate(pod) == Some("False")).await;
    available(chat, 1, 0).await;
    let again = holding.pod_until("takes requests again", |pod| gate(pod) == Some("True")).await;
    assert_eq!(again.uid(), pod.uid());

    // An edited Service is restored; a deleted pod is created again.
    let patch = Patch::Merge(json!({"spec": {"selector": {"app": "theirs"}}}));
    holding.services().patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    until(&holding.services(), NAME, "has its selector again", |found| {
        found.is_some_and(|found| found.data["spec"]["selector"]["app"] == Value::Null)
    })
    .await;
    let now = DeleteParams::default().grace_period(0);
    holding.pods().delete(NAME, &now).await.unwrap();
    holding.pod_until("is a new one", |found| found.uid() != pod.uid() && gate(found) == Some("True")).await;

    // A pause ends it, since nothing would wake the model.
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    holding.gone().await;
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    holding.pod_until("is back", |found| gate(found) == Some("True")).await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    holding.gone().await;
}

/// A stolen token of the operator starts no other pod.
async fn policy_bounds_the_permissions(holding: &Holding) {
    let operator = holding.stack.control_plane.client(&harness::OPERATOR).await;
    let pods: Api<DynamicObject> =
        Api::namespaced_with(operator.clone(), &holding.models.name, &kinds::pod());
    let services: Api<DynamicObject> =
        Api::namespaced_with(operator, &holding.models.name, &kinds::service());
    let labels = json!({"autoscaling.kthena.io/stand-in": "true"});
    let with = |field: &str, value: Value| {
        let container = json!({"name": "a", "image": IMAGE, "args": ["hold"]});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "labels": labels}, "spec": {"automountServiceAccountToken": false, "containers": [container]}});
        *pod.pointer_mut(field.rsplit_once('/').unwrap().0)
            .unwrap()
            .get_mut(field.rsplit_once('/').unwrap().1)
            .unwrap() = value;
        serde_json::from_value::<DynamicObject>(pod).unwrap()
    };
    let denied = [
        (with("/metadata/labels", json!({})), "only pods and Services with the label"),
        (with("/spec/automountServiceAccountToken", json!(true)), "without a token"),
        (
            with("/spec/containers", json!([{"name": "a", "image": "theirs", "args": ["hold"]}])),
            "its own image",
        ),
        (with("/spec/containers", json!([{"name": "a", "image": IMAGE, "args": ["run"]}])), "its own image"),
        (
            with(
                "/spec/containers",
                json!([{"name": "a", "image": IMAGE, "args": ["hold"], "command": ["sh"]}]),
            ),
            "fields of a container: command",
        ),
        (
            with(
                "/spec/containers",
                json!([{"name": "a", "image": IMAGE, "args": ["hold"], "envFrom": [{"secretRef": {"name": "db"}}]}]),
            ),
            "fields of a container: envFrom",
        ),
        (
            with(
                "/metadata/labels",
                json!({"autoscaling.kthena.io/stand-in": "true", "modelserving.volcano.sh/role": "a"}),
            ),
            "the labels of a ServingGroup",
        ),
    ];
    for (pod, message) in denied {
        let error = pods.create(&kube::api::PostParams::default(), &pod).await.unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "labels": labels}, "spec": {"ports": [{"port": 1}]}});
    let service = serde_json::from_value(service).unwrap();
    let error = services.create(&kube::api::PostParams::default(), &service).await.unwrap_err().to_string();
    assert!(error.contains("only headless Services"), "{error}");
    let theirs =
        json!({"metadata": {"name": "theirs"}, "spec": {"containers": [{"name": "a", "image": "theirs"}]}});
    holding.models.create(&kinds::pod(), theirs).await;
    let error = pods.delete("theirs", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(error.contains("only pods and Services with the label"), "{error}");
    let status = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    let error = pods.patch_status("theirs", &PatchParams::default(), &status).await.unwrap_err().to_string();
    assert!(error.contains("only pods and Services with the label"), "{error}");
}
