//! Another autoscaler of the same ModelServing: ours steps back, says so, and returns when the other has gone.

use harness::{Crds, ModelServing, Settings, Stack, kinds, stack::resource, wait};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::shared::{BINARY, log, namespace};

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

/// Steps back from `kind`, leaves it untouched, and returns when it has gone.
async fn steps_back(chat: &ModelServing, kind: &ApiResource, content: Value) {
    chat.scaled_object().await;
    let theirs = chat.namespace.create(kind, content).await;
    let full = format!("{} {}/{}", kind.kind, chat.namespace.name, theirs.name_any());
    let message = chat.says("ConflictingAutoscaler", &full).await;
    assert!(message.contains("delete the other"), "{message}");
    chat.scaled_object_gone().await;
    let api = chat.namespace.api(kind);
    let now = api.get(&theirs.name_any()).await.unwrap();
    assert_eq!(
        (now.uid(), now.resource_version()),
        (theirs.uid(), theirs.resource_version()),
        "theirs is never touched"
    );
    events(chat, "Warning", "ConflictingAutoscaler", &full).await;
    api.delete(&theirs.name_any(), &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    chat.reason("Pending").await;
    events(chat, "Normal", "Resolved", "ConflictingAutoscaler is resolved").await;
}

/// Waits until there is such an event about the ModelServing.
async fn events(chat: &ModelServing, kind: &str, reason: &str, note: &str) {
    let api = chat.namespace.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let found = async || api.list(&kube::api::ListParams::default()).await.unwrap().items;
    let is_it = |event: &DynamicObject| {
        event.data["type"] == kind
            && event.data["reason"] == reason
            && event.data["regarding"]["name"] == chat.name
            && event.data["note"].as_str().is_some_and(|text| text.contains(note))
    };
    wait::until_asked(&format!("there is the event {reason}: {note}"), found, |events| {
        events.iter().any(is_it)
    })
    .await;
}

#[tokio::test]
async fn a_users_hpa() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    steps_back(&chat, &hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
}

#[tokio::test]
async fn a_users_scaled_object() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
    let spec = json!({"scaleTargetRef": target(), "triggers": [trigger]});
    steps_back(&chat, &kinds::scaled_object(), json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
}

#[tokio::test]
async fn kthenas_own_policy() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    let metrics = json!([{"name": "m", "targetValue": "1"}]);
    let target = json!({"target": {"targetRef": target()}, "minReplicas": 1, "maxReplicas": 2});
    steps_back(
        &chat,
        &policy(),
        json!({"metadata": {"name": "theirs"}, "spec": {"metrics": metrics, "homogeneousTarget": target}}),
    )
    .await;
}

/// What it scales may stand in another namespace; and before 1.0 a binding names it, in one of two shapes.
#[tokio::test]
async fn kthenas_own_binding_in_every_shape_and_from_another_namespace() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    for spec in [
        json!({"homogeneousTarget": {"target": {"targetRef": {"name": "chat"}}}}),
        json!({"scalingConfiguration": {"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}}}),
        json!({"optimizerConfiguration": {"params": [{"target": {"targetRef": {"name": "chat"}}}]}}),
    ] {
        steps_back(&chat, &binding(), json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    }
    let elsewhere = stack.namespace().await;
    let spec = json!({"heterogeneousTarget": {"params": [{"target": {"targetRef": {"name": "chat", "namespace": models.name}}}]}});
    elsewhere.create(&binding(), json!({"metadata": {"name": "far"}, "spec": spec})).await;
    chat.says("ConflictingAutoscaler", &format!("AutoscalingPolicyBinding {}/far", elsewhere.name)).await;
    elsewhere.api(&binding()).delete("far", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    // Scaling single roles is another field, and no conflict.
    let role = json!({"homogeneousTarget": {"target": {"targetRef": {"name": "chat"}, "subTargets": {"kind": "Role", "name": "engine"}}}});
    elsewhere.create(&binding(), json!({"metadata": {"name": "roles"}, "spec": role})).await;
    let sentinel = models.model_serving("sentinel").opted_in("sentinel").create().await;
    sentinel.scaled_object().await;
    chat.reason("Pending").await;
    let refused: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(refused.is_empty(), "{:?}", harness::audit::summary(&refused));
}

#[tokio::test]
async fn a_leader_worker_set_that_owns_it() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    let owner = json!({"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "group", "uid": "7e1f", "controller": true});
    chat.patch(json!({"metadata": {"ownerReferences": [owner]}})).await;
    chat.says("ConflictingAutoscaler", "LeaderWorkerSet").await;
    chat.scaled_object_gone().await;
    chat.patch(json!({"metadata": {"ownerReferences": null}})).await;
    chat.scaled_object().await;
}

/// From a user's own HPA to ours, while both are there for a moment.
#[tokio::test]
async fn a_model_that_opts_in_beside_an_hpa_gets_nothing_written_until_that_goes() {
    let models = namespace().await;
    models.create(&hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.reason("ConflictingAutoscaler").await;
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
    models.api(&hpa()).delete("theirs", &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
}

/// KEDA's HPA of our own ScaledObject is no conflict, nor is one of a ScaledObject that has just gone.
#[tokio::test]
async fn kedas_own_hpa_is_none() {
    let models = namespace().await;
    let owner = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "chat", "uid": "gone", "controller": true});
    models
        .create(
            &hpa(),
            json!({"metadata": {"name": "keda-hpa-chat", "ownerReferences": [owner]}, "spec": hpa_spec()}),
        )
        .await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
}

#[tokio::test]
async fn whoever_resets_the_number_of_serving_groups_is_named() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    let api: Api<DynamicObject> = chat.namespace.api(&kinds::model_serving());
    // As the HPA does it; until then everybody's manifest has a number, and nobody is in anybody's way.
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api.patch_subresource("scale", "chat", &PatchParams::default(), &scale).await.unwrap();
    let seen = |found: &DynamicObject| found.data["spec"]["replicas"] == 2;
    chat.until("is scaled", seen).await;
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
async fn opting_out_at_zero_says_that_nothing_will_wake_it() {
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
    events(
        &chat,
        "Warning",
        "OptedOut",
        &format!("kubectl scale modelserving chat -n {} --replicas=1", models.name),
    )
    .await;
}

#[tokio::test]
async fn the_repair_of_a_hand_edit_is_told_and_routine_is_not() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    let edit = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
    chat.scaled_objects().patch("chat", &PatchParams::default(), &edit).await.unwrap();
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    events(&chat, "Normal", "Repaired", "ScaledObject chat was changed by another client").await;
    let api = chat.namespace.api(&resource("events.k8s.io", "v1", "Event", "events"));
    let all = api.list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), 1, "{all:?}");
}

/// A policy of the cluster's own that does not let our object in.
#[tokio::test]
async fn what_the_api_server_refuses_is_said_and_tried_again() {
    let models = namespace().await;
    let name = format!("refuse-{}", models.name);
    let rules = json!([{"apiGroups": ["keda.sh"], "apiVersions": ["*"], "resources": ["scaledobjects"], "operations": ["CREATE"]}]);
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": models.name}});
    let spec = json!({
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
        "validations": [{"expression": "false", "message": "not before Monday"}],
    });
    let policies = resource(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    );
    let bindings = resource(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    );
    let apply = async |kind: &ApiResource, spec: Value| {
        let object = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
        harness::objects::apply(&models.client, object).await;
    };
    apply(&policies, spec).await;
    apply(&bindings, json!({"policyName": name, "validationActions": ["Deny"]})).await;
    // A policy takes a moment to come into force.
    let probe = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "probe"}, "spec": {"scaleTargetRef": {"name": "x"}, "triggers": [{"type": "cron", "metadata": {}}]}});
    let probe: DynamicObject = serde_json::from_value(probe).unwrap();
    let dry_run = kube::api::PostParams { dry_run: true, ..kube::api::PostParams::default() };
    let objects = models.api(&kinds::scaled_object());
    let in_force = async || {
        objects.create(&dry_run, &probe).await.map_or_else(|error| error.to_string(), |_| String::new())
    };
    wait::until_asked("the policy is in force", in_force, |answer| answer.contains("not before Monday"))
        .await;

    let chat = models.model_serving("chat").opts_in().create().await;
    let message = chat.says("ScaledObjectNotReady", "not before Monday").await;
    assert!(message.contains("ScaledObject chat was rejected"), "{message}");
    events(&chat, "Warning", "ScaledObjectNotReady", "not before Monday").await;
    // Where nothing is wanted any more nothing is refused, and no pass leads to the next.
    chat.annotate(&[("autoscaling.kthena.io/paused", Some("perhaps"))]).await;
    chat.reason("InvalidConfiguration").await;
    for sentinel in ["one", "two", "three"] {
        models.model_serving(sentinel).opted_in(sentinel).create().await.reason("ScaledObjectNotReady").await;
    }
    let log = log().await;
    let passes = log
        .lines()
        .filter(|line| line.contains(&models.name) && line.contains("InvalidConfiguration"))
        .count();
    assert!((1..30).contains(&passes), "{passes} passes");
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    chat.says("ScaledObjectNotReady", "not before Monday").await;
    let all: Api<DynamicObject> = Api::all_with(models.client.clone(), &bindings);
    all.delete(&name, &DeleteParams::default()).await.unwrap();
    wait::until_asked("the policy is in force no more", in_force, |answer| {
        !answer.contains("not before Monday")
    })
    .await;
    // It would be tried again in some minutes; a change is at once.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("4"))]).await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
}

#[tokio::test]
async fn where_no_condition_may_be_written_events_tell() {
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
    events(&chat, "Warning", "InvalidConfiguration", "perhaps").await;
    chat.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    events(&chat, "Normal", "Resolved", "InvalidConfiguration is resolved").await;
    chat.scaled_object().await;
    // Whoever waits for the other to go is woken by that, too.
    let hpa_of_theirs =
        chat.namespace.create(&hpa(), json!({"metadata": {"name": "theirs"}, "spec": hpa_spec()})).await;
    events(&chat, "Warning", "ConflictingAutoscaler", "theirs").await;
    chat.scaled_object_gone().await;
    chat.namespace.api(&hpa()).delete(&hpa_of_theirs.name_any(), &DeleteParams::default()).await.unwrap();
    chat.scaled_object().await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    events(&chat, "Normal", "OptedOut", "autoscaling disabled").await;
    assert_eq!(harness::condition(&chat.get().await), None);
}
