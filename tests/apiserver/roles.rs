//! Roles on a real API server: objects, permissions, and faults between the read and the write. Kthena's controllers, KEDA and the HPA do not
//! run here, so the tests write what these would.

use std::{path::Path, time::Duration};

use harness::{Crds, Identity, ModelServing, Process, Settings, Stack, kinds, wait};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::shared::{BINARY, without};

static STACK: OnceCell<(Stack, Process)> = OnceCell::const_new();

const ROLES: &str = "prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 max=16";
/// Repairs in a row after which an event reports the other client.
const CONTESTED: u32 = 4;

const ANNOTATION: &str = "autoscaling.kthena.io/roles";

/// A stack of one test whose operator may scale roles.
async fn start() -> (Stack, Process) {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    stack.allow_roles().await;
    let operator = stack.start_operator(&Settings::new(BINARY).with("--scale-roles=true"));
    (stack, operator)
}

/// The stack of the tests that do not affect each other.
async fn stack() -> &'static Stack {
    &STACK.get_or_init(start).await.0
}

/// A model with scaled roles, `prefill` and `decode`, of one instance each.
async fn model(stack: &Stack) -> ModelServing {
    model_with(stack, (ANNOTATION, ROLES)).await
}

/// [`model`] with another annotation that has its roles scaled.
async fn model_with(stack: &Stack, (key, value): (&str, &str)) -> ModelServing {
    let builder = stack.namespace().await.model_serving("chat").roles(&["prefill", "decode"]).opts_in();
    let annotated = builder
        .annotated(key, value)
        .annotated("autoscaling.kthena.io/engine", "vllm")
        .annotated("autoscaling.kthena.io/engine-port", "8000");
    annotated.create().await
}

fn targets(chat: &ModelServing) -> Api<DynamicObject> {
    chat.namespace.api(&kinds::model_serving_role())
}

/// The scale target of a role, once it exists.
async fn target(chat: &ModelServing, role: &str) -> DynamicObject {
    let list = async || targets(chat).list(&ListParams::default()).await.unwrap().items;
    let of_role = |found: &DynamicObject| found.data["spec"]["role"] == role;
    let what = format!("the role {role} has a scale target");
    let found = wait::until_asked(&what, list, |all| all.iter().any(of_role)).await;
    found.into_iter().find(of_role).unwrap()
}

/// Sets the number of a role as the HPA does.
async fn scale(chat: &ModelServing, role: &str, replicas: i32) {
    let name = target(chat, role).await.name_any();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    targets(chat).patch_scale(&name, &PatchParams::default(), &patch).await.expect("a scale");
}

fn number(found: &DynamicObject, role: &str) -> i64 {
    let roles = found.data["spec"]["template"]["roles"].as_array().unwrap();
    let role = roles.iter().find(|found| found["name"] == role);
    role.and_then(|role| role["replicas"].as_i64()).unwrap_or(-1)
}

async fn has_number(chat: &ModelServing, role: &str, replicas: i64) {
    let what = format!("has {replicas} instances of {role}");
    chat.until(&what, |found| number(found, role) == replicas).await;
}

async fn applied(chat: &ModelServing, role: &str, reason: &str) -> String {
    let name = target(chat, role).await.name_any();
    let condition = |found: &DynamicObject| found.data["status"]["conditions"][0].clone();
    let is_reported =
        |found: Option<&DynamicObject>| found.is_some_and(|found| condition(found)["reason"] == reason);
    let found = wait::until(&targets(chat), &name, &format!("reports {reason}"), is_reported).await;
    condition(&found.unwrap())["message"].as_str().unwrap_or_default().to_owned()
}

async fn no_objects(chat: &ModelServing) {
    let count = async || {
        let targets = targets(chat).list(&ListParams::default()).await.unwrap().items.len();
        targets + chat.scaled_objects().list(&ListParams::default()).await.unwrap().items.len()
    };
    wait::until_asked("the objects of roles are gone", count, |count| *count == 0).await;
}

#[tokio::test]
async fn carries_the_number_of_a_role_over_and_nothing_else() {
    let stack = stack().await;
    let chat = model(stack).await;
    let scaled = async || chat.scaled_objects().list(&ListParams::default()).await.unwrap().items;
    let both = wait::until_asked("each role has a ScaledObject", scaled, |all| all.len() == 2).await;
    for object in &both {
        assert_eq!(object.data["spec"]["scaleTargetRef"]["kind"], "ModelServingRole");
        assert_eq!(object.data["spec"]["scaleTargetRef"]["name"], object.name_any());
    }
    let before = chat.get().await;
    scale(&chat, "decode", 5).await;
    has_number(&chat, "decode", 5).await;
    applied(&chat, "decode", "Applied").await;
    let mut after = chat.get().await.data["spec"].clone();
    after["template"]["roles"][1]["replicas"] = json!(1);
    assert_eq!(after, before.data["spec"], "nothing else of the spec changes");
    // The status is what exists: no pod does here.
    assert_eq!(target(&chat, "decode").await.data["status"]["replicas"], 0);
    scale(&chat, "decode", 2).await;
    has_number(&chat, "decode", 2).await;
    // The HPA cannot go beyond the bounds, and another client does not either.
    scale(&chat, "prefill", 99).await;
    has_number(&chat, "prefill", 8).await;
}

#[tokio::test]
async fn finds_a_role_that_moved_and_none_that_was_renamed() {
    let chat = model(stack().await).await;
    target(&chat, "decode").await;
    let swap = |found: &DynamicObject| {
        let mut roles = found.data["spec"]["template"]["roles"].as_array().unwrap().clone();
        roles.swap(0, 1);
        roles
    };
    let roles = swap(&chat.get().await);
    let reorder = chat.patch(json!({"spec": {"template": {"roles": roles}}}));
    tokio::join!(reorder, scale(&chat, "decode", 4));
    has_number(&chat, "decode", 4).await;
    assert_eq!(number(&chat.get().await, "prefill"), 1);
    let mut roles = chat.get().await.data["spec"]["template"]["roles"].as_array().unwrap().clone();
    roles.retain(|role| role["name"] == "prefill");
    roles.push(json!({"name": "generate", "replicas": 1, "workerReplicas": 0, "entryTemplate": roles[0]["entryTemplate"]}));
    chat.patch(json!({"spec": {"template": {"roles": roles}}})).await;
    scale(&chat, "decode", 7).await;
    let message = chat.says("InvalidConfiguration", r#"no role "decode""#).await;
    assert!(message.contains("prefill, generate"), "{message}");
    assert_eq!(number(&chat.get().await, "generate"), 1);
}

#[tokio::test]
async fn restores_a_number_that_another_client_sets() {
    let chat = model(stack().await).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let patch = json!([{"op": "replace", "path": "/spec/template/roles/1/replicas", "value": 1}]);
    let api = chat.namespace.api(&kinds::model_serving());
    let params = PatchParams { field_manager: Some("argocd".to_owned()), ..PatchParams::default() };
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    api.patch(&chat.name, &params, &Patch::<()>::Json(patch)).await.expect("a patch");
    has_number(&chat, "decode", 3).await;
}

/// A policy in place of Kthena's webhook, which rejects the same requests.
#[tokio::test]
async fn reports_a_rejected_number_in_the_same_reconcile() {
    let stack = stack().await;
    let chat = model(stack).await;
    target(&chat, "decode").await;
    let name = format!("no-{}", chat.namespace.name);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": chat.namespace.name}},
                "resourceRules": [{"apiGroups": ["workload.serving.volcano.sh"], "apiVersions": ["*"], "resources": ["modelservings"], "operations": ["UPDATE"]}],
            },
            "validations": [{"expression": "object.spec.template.roles.all(role, role.replicas < 6)", "message": "at most five instances"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    for object in [policy, binding] {
        harness::objects::apply(&stack.client().await, object).await;
    }
    // The policy takes effect within seconds.
    let refused = async || {
        let mut roles = chat.get().await.data["spec"]["template"]["roles"].clone();
        roles[0]["replicas"] = json!(6);
        let patch = Patch::Merge(json!({"spec": {"template": {"roles": roles}}}));
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let api = chat.namespace.api(&kinds::model_serving());
        api.patch(&chat.name, &params, &patch).await.is_err()
    };
    wait::until_asked("the policy is in force", refused, |refused| *refused).await;
    scale(&chat, "decode", 7).await;
    let message = chat.says("ScaledObjectNotReady", "at most five instances").await;
    assert!(message.starts_with("the number of roles (decode="), "{message}");
    assert!(applied(&chat, "decode", "Rejected").await.contains("at most five instances"));
    assert_eq!(number(&chat.get().await, "decode"), 1);
    scale(&chat, "decode", 4).await;
    has_number(&chat, "decode", 4).await;
    applied(&chat, "decode", "Applied").await;
}

#[tokio::test]
async fn the_end_of_scaling_removes_the_objects_and_keeps_the_numbers() {
    let chat = model(stack().await).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    chat.annotate(&[(ANNOTATION, None)]).await;
    let of_groups = |found: &DynamicObject| found.data["spec"]["scaleTargetRef"]["kind"] == "ModelServing";
    chat.scaled_object_until("scales the ServingGroups again", of_groups).await;
    assert!(targets(&chat).list(&ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(number(&chat.get().await, "decode"), 3);
    chat.annotate(&[(ANNOTATION, Some(ROLES))]).await;
    target(&chat, "decode").await;
    let groups_only = async || chat.scaled_objects().get_opt(&chat.name).await.unwrap().is_none();
    wait::until_asked("the ScaledObject of the ServingGroups is gone", groups_only, |gone| *gone).await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    no_objects(&chat).await;
    assert_eq!(number(&chat.get().await, "decode"), 3);
}

/// Its number does not follow the signals, and they do not count in ServingGroups.
#[tokio::test]
async fn explain_requests_no_serving_groups_for_a_model_with_scaled_roles() {
    let stack = stack().await;
    let chat = model(stack).await;
    target(&chat, "decode").await;
    let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
    let model = format!("{}/chat", chat.namespace.name);
    let arguments = [model.as_str(), "--prometheus-url=http://prometheus:9090"];
    let (report, _) = harness::explain(Path::new(BINARY), &kubeconfig, &arguments);
    let report = report.unwrap();
    assert_eq!(report["replicas"]["now"], 1, "{report}");
    for absent in ["min", "max", "wanted"] {
        assert!(report["replicas"].get(absent).is_none(), "{absent} in {report}");
    }
}

/// A GitOps tool that applies its manifest again and again, each time with the number of the role.
#[rstest]
#[case::by_annotation((ANNOTATION, ROLES))]
#[case::by_profile(("autoscaling.kthena.io/profile", "split"))]
#[tokio::test]
async fn reports_a_client_that_resets_the_number_of_a_role_again_and_again(#[case] annotation: (&str, &str)) {
    let stack = stack().await;
    let roles = json!([
        {"name": "prefill", "max": 8, "signals": [{"name": "ttft-p90", "target": "2s"}]},
        {"name": "decode", "max": 16, "signals": [{"name": "kv-cache", "target": "0.8"}]},
    ]);
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "split"}, "spec": {"roles": roles}});
    harness::objects::apply(&stack.client().await, profile).await;
    let chat = model_with(stack, annotation).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let api = chat.namespace.api(&kinds::model_serving());
    let params = PatchParams { field_manager: Some("argocd".to_owned()), ..PatchParams::default() };
    let patch = json!([{"op": "replace", "path": "/spec/template/roles/1/replicas", "value": 1}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    for _ in 0..CONTESTED {
        api.patch(&chat.name, &params, &Patch::<()>::Json(patch.clone())).await.expect("a patch");
        has_number(&chat, "decode", 3).await;
    }
    let events = chat.namespace.api(&harness::stack::resource("events.k8s.io", "v1", "Event", "events"));
    let found = async || events.list(&ListParams::default()).await.unwrap().items;
    let names_the_field = |event: &DynamicObject| {
        event.data["reason"] == "RepeatedRepair"
            && event.data["note"].as_str().is_some_and(|note| note.contains("spec.template.roles"))
    };
    wait::until_asked("an event reports the client", found, |all| all.iter().any(names_the_field)).await;
}

#[tokio::test]
async fn a_removed_role_keeps_the_others_as_they_are() {
    let chat = model(stack().await).await;
    scale(&chat, "prefill", 2).await;
    has_number(&chat, "prefill", 2).await;
    let mut roles = chat.get().await.data["spec"]["template"]["roles"].as_array().unwrap().clone();
    roles.retain(|role| role["name"] != "decode");
    chat.patch(json!({"spec": {"template": {"roles": roles}}})).await;
    chat.says("InvalidConfiguration", r#"no role "decode""#).await;
    scale(&chat, "decode", 7).await;
    scale(&chat, "prefill", 5).await;
    applied(&chat, "prefill", "InvalidConfiguration").await;
    assert_eq!(number(&chat.get().await, "prefill"), 2);
    chat.annotate(&[(ANNOTATION, Some("prefill: ttft-p90=2s max=8"))]).await;
    has_number(&chat, "prefill", 5).await;
    let count = async || targets(&chat).list(&ListParams::default()).await.unwrap().items.len();
    wait::until_asked("the scale target of the removed role is gone", count, |count| *count == 1).await;
}

/// ServingGroups below a partition keep the numbers of their old revision.
#[tokio::test]
async fn a_partition_holds_the_numbers_back() {
    let chat = model(stack().await).await;
    target(&chat, "decode").await;
    let partition = |value: Value| json!({"spec": {"rolloutStrategy": {"type": "ServingGroupRollingUpdate", "rollingUpdateConfiguration": {"partition": value}}}});
    chat.patch(partition(json!(1))).await;
    chat.says("InvalidConfiguration", "partition keeps ServingGroups at an older revision").await;
    scale(&chat, "decode", 4).await;
    applied(&chat, "decode", "InvalidConfiguration").await;
    assert_eq!(number(&chat.get().await, "decode"), 1);
    chat.patch(partition(json!(0))).await;
    has_number(&chat, "decode", 4).await;
}

/// Kthena's own autoscaler of the same roles: the objects go, and the numbers are left to it.
#[tokio::test]
async fn yields_to_an_autoscaling_policy_of_roles() {
    let chat = model(stack().await).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let policies = harness::stack::resource(
        "workload.serving.volcano.sh",
        "v1alpha1",
        "AutoscalingPolicy",
        "autoscalingpolicies",
    );
    let role = json!({"minReplicas": 1, "maxReplicas": 4, "metrics": [{"name": "m", "targetValue": "1"}]});
    let target_ref = json!({"kind": "ModelServing", "name": chat.name});
    let spec =
        json!({"disaggregatedTarget": {"targetRef": target_ref, "roles": {"prefill": role, "decode": role}}});
    chat.namespace.create(&policies, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    yields_and_returns(&chat, &policies).await;
}

/// The same before Kthena 1.0.
#[tokio::test]
async fn yields_to_an_autoscaling_policy_binding_of_a_role() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda(), Crds::prometheus_operator()]).await;
    stack.allow_roles().await;
    let _operator = stack.start_operator(&Settings::new(BINARY).with("--scale-roles=true"));
    let chat = model(&stack).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let kind = |kind: &str, plural: &str| {
        harness::stack::resource("workload.serving.volcano.sh", "v1alpha1", kind, plural)
    };
    let policies = kind("AutoscalingPolicy", "autoscalingpolicies");
    let bindings = kind("AutoscalingPolicyBinding", "autoscalingpolicybindings");
    chat.namespace.create(&policies, json!({"metadata": {"name": "theirs"}, "spec": {}})).await;
    let target = json!({"targetRef": {"name": chat.name}, "subTargets": {"kind": "Role", "name": "decode"}});
    let spec = json!({"policyRef": {"name": "theirs"}, "homogeneousTarget": {"target": target}});
    chat.namespace.create(&bindings, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    yields_and_returns(&chat, &bindings).await;
}

/// The objects go while the object `theirs` exists, and the number stays.
async fn yields_and_returns(chat: &ModelServing, kind: &kube::api::ApiResource) {
    let message = chat.says("ConflictingAutoscaler", "roles of this ModelServing are also scaled by").await;
    assert!(message.contains(&format!("{} {}/theirs", kind.kind, chat.namespace.name)), "{message}");
    no_objects(chat).await;
    assert_eq!(number(&chat.get().await, "decode"), 3);
    chat.namespace.api(kind).delete("theirs", &DeleteParams::default()).await.unwrap();
    scale(chat, "decode", 4).await;
    has_number(chat, "decode", 4).await;
}

/// Kthena resets the roles of a ModelBooster's ModelServing, so the operator sets none.
#[tokio::test]
async fn sets_no_number_in_the_model_serving_of_a_booster() {
    let stack = stack().await;
    let chat = model(stack).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let backend = json!({
        "name": "backend", "type": "vLLM", "modelURI": "hf://a/b", "replicas": 1,
        "workers": [{"type": "server", "image": "vllm", "resources": {}}],
    });
    let content = json!({"metadata": {"name": "demo"}, "spec": {"backend": backend}});
    let booster = chat.namespace.create(&kinds::model_booster(), content).await;
    let owner = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelBooster", "name": "demo",
        "uid": booster.metadata.uid, "controller": true, "blockOwnerDeletion": true,
    });
    chat.patch(json!({"metadata": {"ownerReferences": [owner]}})).await;
    chat.says("InvalidConfiguration", r#"the ModelBooster "demo" controls this ModelServing"#).await;
    scale(&chat, "decode", 6).await;
    applied(&chat, "decode", "InvalidConfiguration").await;
    assert_eq!(number(&chat.get().await, "decode"), 3);
}

/// The number is that of each ServingGroup, and targets are for all of them together.
#[tokio::test]
async fn multiplies_targets_by_the_number_of_serving_groups() {
    let chat = model(stack().await).await;
    let threshold = async || {
        let name = target(&chat, "decode").await.name_any();
        let found = chat.scaled_objects().get_opt(&name).await.unwrap();
        found.map(|found| found.data["spec"]["triggers"][0]["metadata"]["threshold"].clone())
    };
    wait::until_asked("the target is 0.8", threshold, |found| *found == Some(json!("0.8"))).await;
    chat.patch(json!({"spec": {"replicas": 3}})).await;
    wait::until_asked("the target is 2.4", threshold, |found| *found == Some(json!("2.4"))).await;
    scale(&chat, "decode", 2).await;
    has_number(&chat, "decode", 2).await;
    assert_eq!(chat.get().await.data["spec"]["replicas"], 3, "the number of ServingGroups stays");
}

/// A number that arrives while the ModelServing is deleted is written nowhere. A new ModelServing of the same name keeps its own, since
/// the objects of the old one belong to another owner.
#[tokio::test]
async fn a_recreated_model_serving_keeps_its_own_numbers() {
    let chat = model(stack().await).await;
    scale(&chat, "decode", 6).await;
    has_number(&chat, "decode", 6).await;
    let old = target(&chat, "decode").await.metadata.uid;
    chat.delete().await;
    scale(&chat, "decode", 9).await;
    let again = chat.namespace.model_serving("chat").roles(&["prefill", "decode"]).opts_in();
    let again = again.annotated(ANNOTATION, ROLES).annotated("autoscaling.kthena.io/engine", "vllm");
    let again = again.annotated("autoscaling.kthena.io/engine-port", "8000").create().await;
    // This stack has no garbage collector, which would delete the old objects.
    again.says("Pending", "garbage collector").await;
    assert_eq!(number(&again.get().await, "decode"), 1);
    assert_eq!(target(&again, "decode").await.metadata.uid, old);
}

/// Without the chart value the operator has no permission to write a spec, and does not try.
#[tokio::test]
async fn without_the_chart_value_nothing_is_scaled_and_objects_go() {
    let (stack, operator) = start().await;
    let chat = model(&stack).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    drop(operator);
    // The permissions that the chart grants without the value.
    let client = stack.client().await;
    for file in ["rbac", "operatorpolicy"] {
        let path = harness::stack::root().join(format!("config/install/{file}.yaml"));
        harness::objects::apply_file(&client, &path).await;
    }
    let spec_writes = || {
        let is_spec = |request: &&harness::Request| {
            request.object_ref.resource == "modelservings" && request.object_ref.subresource.is_empty()
        };
        stack.writes().iter().filter(is_spec).count()
    };
    let before = spec_writes();
    assert!(before > 0);
    let _operator = stack.start_operator(&Settings::new(BINARY));
    no_objects(&chat).await;
    chat.says("InvalidConfiguration", "roles.enabled").await;
    chat.annotate(&[("autoscaling.kthena.io/engine-port", Some("9000"))]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((number(&chat.get().await, "decode"), spec_writes()), (3, before));
}

/// A tenant decides the number of ServingGroups, and so the length of the list of pods.
#[tokio::test]
async fn lists_no_pods_of_a_model_with_too_many_instances() {
    let stack = stack().await;
    let chat = model(stack).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    chat.patch(json!({"spec": {"replicas": 300}})).await;
    chat.says("InvalidConfiguration", "more than 1000 instances").await;
    applied(&chat, "decode", "InvalidConfiguration").await;
    let lists = || {
        let of_pods = |request: &&harness::Request| {
            let object = &request.object_ref;
            object.resource == "pods" && object.namespace == chat.namespace.name && request.verb == "list"
        };
        stack.requests().iter().filter(of_pods).count()
    };
    let before = lists();
    assert!(before > 0, "the pods of fewer instances are listed");
    scale(&chat, "decode", 5).await;
    chat.annotate(&[("autoscaling.kthena.io/engine-port", Some("9000"))]).await;
    // Longer than the time between two counts while numbers change.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((number(&chat.get().await, "decode"), lists()), (3, before));
    chat.patch(json!({"spec": {"replicas": 1}})).await;
    has_number(&chat, "decode", 5).await;
}

#[tokio::test]
async fn reports_that_pods_cannot_be_listed() {
    let (stack, _operator) = start().await;
    let chat = model(&stack).await;
    scale(&chat, "decode", 3).await;
    has_number(&chat, "decode", 3).await;
    let permissions: Api<ClusterRole> = Api::all(stack.client().await);
    let granted = permissions.get("kthena-keda").await.unwrap();
    let rules = without(granted.rules.iter().flatten(), "pods");
    let mut withdrawn = ClusterRole { rules: Some(rules), ..granted.clone() };
    permissions.replace("kthena-keda", &PostParams::default(), &withdrawn).await.unwrap();
    scale(&chat, "decode", 5).await;
    chat.says("MissingPermission", "no permission to list pods").await;
    applied(&chat, "decode", "MissingPermission").await;
    assert_eq!(number(&chat.get().await, "decode"), 3);
    withdrawn = permissions.get("kthena-keda").await.unwrap();
    permissions
        .replace("kthena-keda", &PostParams::default(), &ClusterRole { rules: granted.rules, ..withdrawn })
        .await
        .unwrap();
    chat.annotate(&[("autoscaling.kthena.io/engine-port", Some("9000"))]).await;
    has_number(&chat, "decode", 5).await;
}

/// The API server rejects what no scale target may hold.
#[tokio::test]
async fn the_crd_bounds_a_scale_target() {
    let chat = model(stack().await).await;
    let name = target(&chat, "decode").await.name_any();
    let error = async |patch: Value| {
        let patched = targets(&chat).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_err().to_string()
    };
    assert!(error(json!({"spec": {"role": "prefill"}})).await.contains("immutable"));
    assert!(error(json!({"spec": {"replicas": 0}})).await.contains("greater than or equal to 1"));
}
