//! Other autoscalers of the same ModelServing: the operator deletes its ScaledObject, reports the conflict,
//! and creates the ScaledObject again after the other autoscaler is deleted.

use harness::{Crds, ModelServing, Settings, Stack, kinds, stack::resource, wait};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::shared::{BINARY, has_event, log, namespace};

fn hpa() -> ApiResource {
    resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
}

fn policy() -> ApiResource {
    resource("workload.serving.volcano.sh", "v1alpha1", "AutoscalingPolicy", "autoscalingpolicies")
}

fn binding() -> ApiResource {
    resource(
        "workload.serving.volcano.sh",
        "v1alpha1",
        "AutoscalingPolicyBinding",
        "autoscalingpolicybindings",
    )
}

fn target() -> Value {
    json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"})
}

fn hpa_spec() -> Value {
    let metric = json!({"type": "External", "external": {"metric": {"name": "theirs"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    json!({"scaleTargetRef": target(), "minReplicas": 1, "maxReplicas": 2, "metrics": [metric]})
}

/// Creates another autoscaler of `kind`, and checks that the operator yields to it, never changes it, and
/// resumes after its deletion.
async fn yields_to(chat: &ModelServing, kind: &ApiResource, content: Value) {
    chat.scaled_object().await;
    let foreign = chat.namespace.create(kind, content).await;
    let full = format!("{} {}/{}", kind.kind, chat.namespace.name, foreign.name_any());
    let message = chat.says("ConflictingAutoscaler", &full).await;
    assert!(message.contains("delete the other"), "{message}");
    chat.scaled_object_gone().await;
    let api = chat.namespace.api(kind);
    let now = api.get(&foreign.name_any()).await.unwrap();
    assert_eq!(
        (now.uid(), now.resource_version()),
        (foreign.uid(), foreign.resource_version()),
        "the other autoscaler is unchanged"
    );
    has_event(chat, "Warning", "ConflictingAutoscaler", &full).await;
    api.delete(&foreign.name_any(), &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    chat.reason("Pending").await;
    has_event(chat, "Normal", "Resolved", "ConflictingAutoscaler is resolved").await;
}

#[tokio::test]
async fn yields_to_an_hpa() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    yields_to(&chat, &hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
}

#[tokio::test]
async fn yields_to_another_scaled_object() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
    let spec = json!({"scaleTargetRef": target(), "triggers": [trigger]});
    yields_to(&chat, &kinds::scaled_object(), json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
}

#[tokio::test]
async fn yields_to_an_autoscaling_policy() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    let metrics = json!([{"name": "m", "targetValue": "1"}]);
    let target = json!({"target": {"targetRef": target()}, "minReplicas": 1, "maxReplicas": 2});
    yields_to(
        &chat,
        &policy(),
        json!({"metadata": {"name": "theirs"}, "spec": {"metrics": metrics, "homogeneousTarget": target}}),
    )
    .await;
}

/// The target may be in another namespace. Before Kthena 1.0 a binding names the target, in one of several
/// shapes.
#[tokio::test]
async fn yields_to_autoscaling_policy_bindings_of_every_shape_and_namespace() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    let elsewhere = stack.namespace().await;
    for namespace in [&models, &elsewhere] {
        namespace.create(&policy(), json!({"metadata": {"name": "theirs"}, "spec": {}})).await;
    }
    for mut spec in [
        json!({"homogeneousTarget": {"target": {"targetRef": {"name": "chat"}}}}),
        json!({"scalingConfiguration": {"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}}}),
        json!({"optimizerConfiguration": {"params": [{"target": {"targetRef": {"name": "chat"}}}]}}),
    ] {
        spec["policyRef"] = json!({"name": "theirs"});
        yields_to(&chat, &binding(), json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    }
    let spec = json!({"policyRef": {"name": "theirs"}, "heterogeneousTarget": {"params": [{"target": {"targetRef": {"name": "chat", "namespace": models.name}}}]}});
    elsewhere.create(&binding(), json!({"metadata": {"name": "far"}, "spec": spec})).await;
    chat.says("ConflictingAutoscaler", &format!("AutoscalingPolicyBinding {}/far", elsewhere.name)).await;
    // Kthena ignores a binding without its policy.
    elsewhere.api(&policy()).delete("theirs", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    elsewhere.create(&policy(), json!({"metadata": {"name": "theirs"}, "spec": {}})).await;
    chat.scaled_object_gone().await;
    elsewhere.api(&binding()).delete("far", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    // A binding that scales a single role writes another field, so it does not conflict.
    let role = json!({"policyRef": {"name": "theirs"}, "homogeneousTarget": {"target": {"targetRef": {"name": "chat"}, "subTargets": {"kind": "Role", "name": "engine"}}}});
    elsewhere.create(&binding(), json!({"metadata": {"name": "roles"}, "spec": role})).await;
    let sentinel = models.model_serving("sentinel").opted_in("sentinel").create().await;
    sentinel.scaled_object().await;
    chat.reason("Pending").await;
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}

/// Migration from a user's HPA, which exists for a while after opting in.
#[tokio::test]
async fn opting_in_beside_an_hpa_creates_nothing_until_the_hpa_is_deleted() {
    let models = namespace().await;
    models.create(&hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.reason("ConflictingAutoscaler").await;
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
    models.api(&hpa()).delete("theirs", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
}

#[tokio::test]
async fn reports_the_field_manager_that_resets_replicas() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    let api: Api<DynamicObject> = chat.namespace.api(&kinds::model_serving());
    // The HPA writes through the scale subresource. Before its first write, a number in a manifest is no
    // conflict.
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api.patch_subresource("scale", "chat", &PatchParams::default(), &scale).await.unwrap();
    let is_scaled = |found: &DynamicObject| found.data["spec"]["replicas"] == 2;
    chat.until("is scaled", is_scaled).await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("8"))]).await;
    chat.scaled_object_until("has a maximum of 8", |found| found.data["spec"]["maxReplicaCount"] == 8).await;
    assert!(!chat.reason("Pending").await.contains("set spec.replicas"));
    let reset = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "metadata": {"name": "chat"}, "spec": {"replicas": 3},
    });
    api.patch("chat", &PatchParams::apply("argocd-controller").force(), &Patch::Apply(reset)).await.unwrap();
    chat.says("Pending", "argocd-controller set spec.replicas after autoscaling began").await;
    chat.scaled_object().await;
}

#[tokio::test]
async fn warns_about_opting_out_at_zero() {
    let models = namespace().await;
    let annotated = models
        .model_serving("chat")
        .opts_in()
        .replicas(0)
        .annotated("autoscaling.kthena.io/min-replicas", "0");
    let chat = annotated.create().await;
    chat.scaled_object().await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    chat.scaled_object_gone().await;
    has_event(
        &chat,
        "Warning",
        "OptedOut",
        &format!("kubectl scale modelserving chat -n {} --replicas=1", models.name),
    )
    .await;
}

#[tokio::test]
async fn publishes_an_event_for_a_repair_but_not_for_an_update() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    let edit = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
    chat.scaled_objects().patch("chat", &PatchParams::default(), &edit).await.unwrap();
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    has_event(&chat, "Normal", "Repaired", "ScaledObject chat was changed by another client").await;
    let api = chat.namespace.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let all = api.list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 1, "{all:?}");
}

/// A `ValidatingAdmissionPolicy` that denies the creation of one kind in a namespace.
pub struct Denial {
    name: String,
    objects: Api<DynamicObject>,
    probe: DynamicObject,
}

impl Denial {
    /// Returns once the API server enforces the policy; `spec` is that of a valid object.
    pub async fn of(models: &harness::Namespace, kind: &ApiResource, spec: Value) -> Self {
        let name = format!("refuse-{}-{}", kind.plural, models.name);
        let rules = json!([{"apiGroups": [kind.group], "apiVersions": ["*"], "resources": [kind.plural], "operations": ["CREATE"]}]);
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": models.name}});
        let policy = json!({
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
            "validations": [{"expression": "false", "message": "not before Monday"}],
        });
        let binding = json!({"policyName": name, "validationActions": ["Deny"]});
        for (kind, spec) in [(policies(), policy), (bindings(), binding)] {
            let object = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
            harness::objects::apply(&models.client, object).await;
        }
        let probe = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "probe"}, "spec": spec});
        let denial = Self { name, objects: models.api(kind), probe: serde_json::from_value(probe).unwrap() };
        let error = async || denial.error().await;
        wait::until_asked("the policy is enforced", error, |error| error.contains("not before Monday")).await;
        denial
    }

    async fn error(&self) -> String {
        let dry_run = kube::api::PostParams { dry_run: true, ..kube::api::PostParams::default() };
        let created = self.objects.create(&dry_run, &self.probe).await;
        created.map_or_else(|error| error.to_string(), |_| String::new())
    }

    /// Returns once the API server no longer enforces the policy.
    pub async fn end(&self, models: &harness::Namespace) {
        let all: Api<DynamicObject> = Api::all_with(models.client.clone(), &bindings());
        all.delete(&self.name, &DeleteParams::default()).await.unwrap();
        let error = async || self.error().await;
        let is_over = |error: &String| !error.contains("not before Monday");
        wait::until_asked("the policy is no longer enforced", error, is_over).await;
    }
}

fn policies() -> ApiResource {
    resource("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
}

fn bindings() -> ApiResource {
    resource(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    )
}

#[tokio::test]
async fn a_rejected_pod_monitor_leaves_the_scaled_object_to_be_created() {
    let models = namespace().await;
    let spec = json!({"selector": {}, "podMetricsEndpoints": []});
    let _denial = Denial::of(&models, &kinds::pod_monitor(), spec).await;
    let chat = models
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/signals", "kv-cache=0.7")
        .annotated("autoscaling.kthena.io/engine", "vllm")
        .create()
        .await;
    chat.scaled_object().await;
    chat.says("ScaledObjectNotReady", "PodMonitor kthena-keda-chat was rejected").await;
}

#[tokio::test]
async fn reports_and_retries_a_rejected_scaled_object() {
    let models = namespace().await;
    let spec = json!({"scaleTargetRef": {"name": "x"}, "triggers": [{"type": "cron", "metadata": {}}]});
    let denial = Denial::of(&models, &kinds::scaled_object(), spec).await;

    let chat = models.model_serving("chat").opts_in().create().await;
    let message = chat.says("ScaledObjectNotReady", "not before Monday").await;
    assert!(message.contains("ScaledObject chat was rejected"), "{message}");
    has_event(&chat, "Warning", "ScaledObjectNotReady", "not before Monday").await;
    // A further attempt is rejected too, and the condition that reports it is not written again.
    let rejections = async || {
        let log = log().await;
        log.lines().filter(|line| line.contains(&models.name) && line.contains("not before Monday")).count()
    };
    let before = rejections().await;
    let patched = chat.patch(json!({"metadata": {"labels": {"attempt": "another"}}})).await;
    wait::until_asked("a further attempt is rejected", rejections, |count| *count > before).await;
    models.model_serving("sentinel").opted_in("sentinel").create().await.reason("ScaledObjectNotReady").await;
    assert_eq!(chat.get().await.resource_version(), patched.resource_version());
    // An invalid annotation leaves no ScaledObject to create: the rejection is over, and no reconcile
    // triggers another one.
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("perhaps"))]).await;
    chat.reason("InvalidConfiguration").await;
    for sentinel in ["one", "two", "three"] {
        models.model_serving(sentinel).opted_in(sentinel).create().await.reason("ScaledObjectNotReady").await;
    }
    let log = log().await;
    let reconciles = log
        .lines()
        .filter(|line| line.contains(&models.name) && line.contains("InvalidConfiguration"))
        .count();
    assert!((1..30).contains(&reconciles), "{reconciles} reconciles");
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    chat.says("ScaledObjectNotReady", "not before Monday").await;
    denial.end(&models).await;
    // The next retry is minutes away; a change of the ModelServing triggers a reconcile at once.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("4"))]).await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
}

#[tokio::test]
async fn publishes_events_where_conditions_are_disabled() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY).with("--write-conditions=false"));
    let chat = stack
        .namespace()
        .await
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/paused", "perhaps")
        .create()
        .await;
    has_event(&chat, "Warning", "InvalidConfiguration", "perhaps").await;
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    has_event(&chat, "Normal", "Resolved", "InvalidConfiguration is resolved").await;
    chat.scaled_object().await;
    // The deletion of the other autoscaler triggers a reconcile without a condition, too.
    let other_hpa =
        chat.namespace.create(&hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
    has_event(&chat, "Warning", "ConflictingAutoscaler", "theirs").await;
    chat.scaled_object_gone().await;
    chat.namespace.api(&hpa()).delete(&other_hpa.name_any(), &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    has_event(&chat, "Normal", "OptedOut", "autoscaling disabled").await;
    assert_eq!(harness::condition(&chat.get().await), None);
}

/// Without a garbage collector, the ScaledObject of a deleted ModelServing stays.
#[tokio::test]
async fn waits_for_the_garbage_collector_after_a_quick_recreation() {
    let models = namespace().await;
    let name = models.model_name();
    let chat = models.model_serving("chat").opted_in(&name).create().await;
    let before = chat.scaled_object().await;
    chat.delete().await;
    let chat = models.model_serving("chat").opted_in(&name).create().await;
    chat.says("Pending", "belongs to a ModelServing of the same name that was deleted").await;
    let kept = chat.scaled_object().await;
    assert_eq!((kept.uid(), kept.resource_version()), (before.uid(), before.resource_version()));
    chat.scaled_objects().delete("chat", &DeleteParams::default()).await.unwrap();
    chat.scaled_object_until("is new", |found| found.uid() != before.uid()).await;
}

/// Without a namespace controller, a namespace that is being deleted stays.
#[tokio::test]
async fn reports_no_rejection_while_its_namespace_is_deleted() {
    let models = namespace().await;
    let chat = models.model_serving("chat").create().await;
    let namespaces: Api<Namespace> = Api::all(models.client.clone());
    namespaces.delete(&models.name, &DeleteParams::default()).await.unwrap();
    chat.annotate(&[("kthena.io/model-name", Some(&models.model_name()))]).await;
    chat.reason("Pending").await;
    let sentinel = namespace().await.model_serving("sentinel").opts_in().create().await;
    sentinel.scaled_object().await;
    assert!(!chat.reason("Pending").await.contains("rejected"));
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
}
