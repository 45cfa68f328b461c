//! Agreement of `explain` and the condition on every problem that configuration alone can cause.

use std::{path::Path, time::Duration};

use harness::{
    Crds, Identity, ModelServing, ModelServingBuilder, Namespace, Settings, Stack, ask, condition, kinds,
    stack::resource,
    wait::{until_asked, until_asked_within},
};
use kube::api::{Patch, PatchParams};
use rstest::rstest;
use serde_json::{Value, json};

use super::shared::{BINARY, stack};

/// Waits until `explain` and the condition report `reason` and the same status, and checks that `link` is the
/// only broken link.
async fn agree(stack: &Stack, chat: &ModelServing, reason: &str, link: Option<&str>) {
    agree_with(stack, chat, reason, link, &["--prometheus-url=http://prometheus:9090"]).await;
}

async fn agree_with(
    stack: &Stack,
    chat: &ModelServing,
    reason: &str,
    link: Option<&str>,
    arguments: &[&str],
) {
    let kubeconfig = stack.control_plane.kubeconfig(&Identity::Admin);
    let model = format!("{}/{}", chat.namespace.name, chat.name);
    let observe = async || {
        let (report, code) =
            harness::explain(Path::new(BINARY), &kubeconfig, &[&[model.as_str()], arguments].concat());
        // `explain` can fail until the API server publishes a CRD that was just installed.
        (
            report.unwrap_or_else(|error| json!({"error": error})),
            code,
            condition(&chat.get().await).cloned().unwrap_or_default(),
        )
    };
    let agree = |(report, _, condition): &(Value, Option<i32>, Value)| {
        report["reason"] == reason && condition["reason"] == reason && condition["status"] == report["status"]
    };
    let (report, code, _) =
        until_asked(&format!("explain and the condition report {reason}"), observe, agree).await;
    let links = report["links"].as_array().unwrap();
    let broken: Vec<&str> = links
        .iter()
        .filter(|link| link["state"] == "broken")
        .filter_map(|link| link["name"].as_str())
        .collect();
    assert_eq!(broken, link.into_iter().collect::<Vec<_>>(), "{report}");
    assert!(
        links
            .iter()
            .position(|link| link["state"] == "broken")
            .is_none_or(|broken| broken + 1 == links.len()),
        "{report}"
    );
    assert_eq!(code, Some(if report["status"] == "False" { 3 } else { 4 }), "{report}");
}

const PREFIX: &str = "autoscaling.kthena.io";

#[rstest]
#[case("Pending", None, |chat| chat)]
#[case("InvalidConfiguration", Some("annotations"), |chat: ModelServingBuilder| chat.annotated(&format!("{PREFIX}/min-replicas"), "x"))]
#[case("ProfileNotFound", Some("profile"), |chat: ModelServingBuilder| chat.annotated(&format!("{PREFIX}/profile"), "none"))]
#[case("CannotWakeFromZero", Some("demand"), |chat: ModelServingBuilder| {
    let chat = chat.annotated(&format!("{PREFIX}/signals"), "kv-cache=1").annotated(&format!("{PREFIX}/engine"), "vllm");
    chat.annotated(&format!("{PREFIX}/min-replicas"), "0")
})]
#[tokio::test]
async fn explain_agrees_on_problems_of_annotations(
    #[case] reason: &str,
    #[case] link: Option<&str>,
    #[case] annotated: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
) {
    let stack = stack().await;
    let chat = annotated(stack.namespace().await.model_serving("chat").opts_in()).create().await;
    agree(stack, &chat, reason, link).await;
}

#[tokio::test]
async fn explain_agrees_on_conflicts_with_other_objects() {
    let stack = stack().await;
    let models = stack.namespace().await;
    let first = models.model_serving("first").opts_in().create().await;
    let second = models.model_serving("second").opts_in().create().await;
    agree(stack, &first, "SharedModelName", Some("demand")).await;
    agree(stack, &second, "SharedModelName", Some("demand")).await;
    let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "scaled"});
    let metric = json!({"type": "External", "external": {"metric": {"name": "theirs"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    let spec = json!({"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2, "metrics": [metric]});
    let hpa = resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    models.create(&hpa, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    let scaled = models.model_serving("scaled").opted_in("scaled.by-others").create().await;
    agree(stack, &scaled, "ConflictingAutoscaler", Some("other autoscalers")).await;
    let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
    let foreign = json!({"metadata": {"name": "named"}, "spec": {"scaleTargetRef": {"name": "other"}, "triggers": [trigger]}});
    models.create(&kinds::scaled_object(), foreign).await;
    let named = models.model_serving("named").opted_in("named.like-others").create().await;
    agree(stack, &named, "NameConflict", Some("other autoscalers")).await;
}

#[tokio::test]
async fn explain_agrees_on_a_missing_prometheus_url() {
    let stack = Stack::start(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY).without("--prometheus-url"));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    agree_with(&stack, &chat, "PrometheusNotConfigured", Some("profile"), &[]).await;
    let spec = json!({"prometheus": {"url": "http://prometheus:9090"}});
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "default"}, "spec": spec});
    harness::objects::apply(&models.client, profile).await;
    agree_with(&stack, &chat, "Pending", None, &[]).await;
}

#[tokio::test]
async fn explain_agrees_on_missing_cluster_prerequisites() {
    let stack = Stack::start(&[Crds::kthena_0_2()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    agree(&stack, &chat, "KedaNotInstalled", Some("cluster")).await;
    Crds::keda().install(&models.client).await;
    agree(&stack, &chat, "ScaleSubresourceMissing", Some("cluster")).await;
}

#[tokio::test]
async fn lists_the_worst_model_first_and_reports_errors_of_the_caller() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    models.model_serving("a-good-one").opts_in().create().await.reason("Pending").await;
    models
        .model_serving("bad")
        .opted_in("bad")
        .annotated("autoscaling.kthena.io/paused", "perhaps")
        .create()
        .await;
    let admin = stack.control_plane.kubeconfig(&Identity::Admin);
    let (report, code) =
        harness::explain(Path::new(BINARY), &admin, &["--prometheus-url=http://prometheus:9090"]);
    let report = report.unwrap();
    let names: Vec<&str> =
        report.as_array().unwrap().iter().filter_map(|found| found["name"].as_str()).collect();
    assert_eq!((names, code), (vec!["bad", "a-good-one"], Some(3)));
    let unprivileged = stack.control_plane.kubeconfig(&Identity::User("unprivileged"));
    let model = format!("{}/bad", models.name);
    let (report, code) = harness::explain(Path::new(BINARY), &unprivileged, &[&model]);
    let error = report.unwrap_err();
    assert!(code == Some(1) && error.contains("no permission to list modelservings"), "{error}");
    models.model_serving("typo").annotated("kthena.io/model-nam", "llama").create().await;
    models.model_serving("plain").create().await;
    for (name, expected) in [
        ("typo", "the annotation \"kthena.io/model-nam\" has no effect without kthena.io/model-name"),
        ("plain", "has no annotation kthena.io/model-name, so it is not scaled"),
        ("absent", "was not found; correct the namespace and the name"),
    ] {
        let model = format!("{}/{name}", models.name);
        let (report, code) = harness::explain(Path::new(BINARY), &admin, &[&model]);
        let error = report.unwrap_err();
        assert!(code == Some(1) && error.contains(expected), "{name}: {error}");
    }
    let (report, code) = harness::explain(Path::new(BINARY), &admin, &["bad"]);
    let error = report.unwrap_err();
    assert!(code == Some(1) && error.contains("expected NAMESPACE/NAME"), "{error}");
}

/// A pod of the second of two ServingGroups that no node has room for.
async fn with_a_pod_that_cannot_be_scheduled(models: &Namespace) -> ModelServing {
    let chat = models.model_serving("chat").opts_in().replicas(2).create().await;
    let account = resource("", "v1", "ServiceAccount", "serviceaccounts");
    models.create(&account, json!({"metadata": {"name": "default"}})).await;
    let metadata = json!({"name": "chat-1", "labels": {"modelserving.volcano.sh/name": "chat"}});
    let spec = json!({"containers": [{"name": "engine", "image": "engine"}]});
    models.create(&kinds::pod(), json!({"metadata": metadata, "spec": spec})).await;
    let message = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu.";
    let scheduled =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    let status = Patch::Merge(json!({"status": {"conditions": [scheduled]}}));
    models.api(&kinds::pod()).patch_status("chat-1", &PatchParams::default(), &status).await.unwrap();
    chat.patch_status("kthena", json!({"replicas": 2, "availableReplicas": 1})).await.unwrap();
    chat
}

#[tokio::test]
async fn explain_repeats_the_words_of_the_scheduler() {
    let stack = stack().await;
    let models = stack.namespace().await;
    with_a_pod_that_cannot_be_scheduled(&models).await;
    let admin = stack.control_plane.kubeconfig(&Identity::Admin);
    let model = format!("{}/chat", models.name);
    let arguments = [model.as_str(), "--prometheus-url=http://prometheus:9090"];
    let observe = async || harness::explain(Path::new(BINARY), &admin, &arguments).0.unwrap_or_default();
    let is_shown = |report: &Value| report["replicas"]["waiting"].is_string();
    let report = until_asked("explain shows the pod", observe, is_shown).await;
    assert!(
        report["replicas"]["waiting"].as_str().unwrap().contains("Insufficient nvidia.com/gpu"),
        "{report}"
    );
    assert_eq!(report["replicas"]["available"], 1);
    assert!(report["warnings"].to_string().contains("cannot be scheduled"), "{report}");
}

/// The operator lists the pods of a model only after its ServingGroups have lagged behind for two minutes.
#[tokio::test]
async fn a_metric_shows_models_whose_pods_cannot_be_scheduled() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = with_a_pod_that_cannot_be_scheduled(&models).await;
    let waiting = async || {
        let (_, metrics) = ask(&operator, "/metrics").await;
        let mut lines = metrics.lines().filter(|line| line.starts_with("kthena_keda_model_waiting{"));
        lines.find(|line| line.contains("model_serving=\"chat\"")).map(str::to_owned)
    };
    let found =
        until_asked_within(Duration::from_mins(4), "the metric exists", waiting, Option::is_some).await;
    assert!(
        found.as_ref().is_some_and(|line| line.contains("Unschedulable") && line.ends_with(" 1")),
        "{found:?}"
    );
    chat.patch_status("kthena", json!({"replicas": 2, "availableReplicas": 2})).await.unwrap();
    until_asked("the metric is gone", waiting, Option::is_none).await;
}

/// Explains a model as this identity.
fn explained(
    stack: &Stack,
    identity: &Identity,
    chat: &ModelServing,
    arguments: &[&str],
) -> (Value, Option<i32>) {
    let kubeconfig = stack.control_plane.kubeconfig(identity);
    let model = format!("{}/{}", chat.namespace.name, chat.name);
    let (report, code) =
        harness::explain(Path::new(BINARY), &kubeconfig, &[&[model.as_str()], arguments].concat());
    (report.unwrap_or_else(|error| json!({"error": error})), code)
}

/// A link of the chain by its name.
fn link<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["links"].as_array().unwrap().iter().find(|link| link["name"] == name).unwrap()
}

fn warns(report: &Value, text: &str) -> bool {
    report["warnings"].as_array().unwrap().iter().any(|found| found.as_str().unwrap().contains(text))
}

/// A user who may read everything but the profiles.
async fn permit_all_but_profiles(models: &Namespace) {
    let kinds = ["modelservings", "scaledobjects", "modelroutes", "modelservers", "horizontalpodautoscalers"];
    let more =
        ["servicemonitors", "podmonitors", "services", "autoscalingpolicies", "autoscalingpolicybindings"];
    let resources = [&kinds[..], &more[..]].concat();
    let rule = json!({"apiGroups": ["*"], "resources": resources, "verbs": ["list"]});
    let group = "rbac.authorization.k8s.io";
    for object in [
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "limited"}, "rules": [rule]}),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "limited"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "limited"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "limited"}],
        }),
    ] {
        harness::objects::apply(&models.client, object).await;
    }
}

#[tokio::test]
async fn compares_the_cluster_with_the_plan_while_the_operator_is_down() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    chat.reason("Pending").await;
    assert!(operator.terminate());

    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("20"))]).await;
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert!(warns(&report, "spec.maxReplicaCount is 10, planned 20"), "{report}");
    assert_eq!(report["prometheusFrom"], "the ScaledObject", "{report}");

    // A rejection is known to the operator alone.
    let condition = json!({"type": "AutoscalingReady", "status": "False", "reason": "ScaledObjectNotReady", "message": "ScaledObject chat was rejected: no", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    chat.patch_status("kthena-keda", json!({"conditions": [condition]})).await.unwrap();
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert!(warns(&report, "ScaledObjectNotReady: ScaledObject chat was rejected: no"), "{report}");

    permit_all_but_profiles(&models).await;
    let limited = async || explained(&stack, &Identity::User("limited"), &chat, &[]);
    let is_unknown = |(report, _): &(Value, Option<i32>)| report["reason"] == "MissingPermission";
    let (report, code) = until_asked("explain reports the missing permission", limited, is_unknown).await;
    assert_eq!((report["status"].as_str(), code), (Some("Unknown"), Some(4)), "{report}");
    assert!(report["links"].as_array().unwrap().len() > 5, "{report}");
}

/// The flags of the operator are not known where its Deployment cannot be read.
#[tokio::test]
async fn does_not_report_a_missing_address_that_the_operator_may_have() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda()]).await;
    let models = stack.namespace().await;
    let chat =
        models.model_serving("chat").opts_in().annotated(&format!("{PREFIX}/profile"), "none").create().await;
    let (report, code) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert_eq!((report["reason"].as_str(), code), (Some("ProfileNotFound"), Some(3)), "{report}");
    assert!(report["prometheusFrom"].as_str().unwrap().contains("pass --prometheus-url"), "{report}");
    chat.annotate(&[(&format!("{PREFIX}/profile"), None)]).await;
    let (report, code) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert_eq!((report["reason"].as_str(), code), (Some("Pending"), Some(4)), "{report}");
    // Nothing was queried, which is neither a healthy link nor a broken one; a dry run has no ScaledObject that holds the address.
    chat.annotate(&[(&format!("{PREFIX}/shadow"), Some("true"))]).await;
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert_eq!(link(&report, "scraping")["state"], "unknown", "{report}");
    assert!(
        link(&report, "scraping").to_string().contains("the address of Prometheus is not known here"),
        "{report}"
    );
    assert!(!report.to_string().contains("not-known-here"), "{report}");
    chat.annotate(&[(&format!("{PREFIX}/shadow"), None)]).await;

    let labels = json!({"app.kubernetes.io/name": "kthena-keda"});
    let container = json!({"name": "operator", "image": "i", "args": ["run", "--prometheus-url=http://prometheus.monitoring.svc:9090"]});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    let deploy = async |name: &str| {
        let metadata = json!({"name": name, "namespace": models.name, "labels": labels});
        let deployment =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
        harness::objects::apply(&models.client, deployment).await;
    };
    deploy("operator").await;
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    let source = format!("the arguments of the Deployment {}/operator", models.name);
    assert_eq!(report["prometheusFrom"], source, "{report}");
    let missing =
        "the Service prometheus.monitoring.svc does not exist, so correct the address of Prometheus";
    assert!(link(&report, "scraping").to_string().contains(missing), "{report}");

    // Any user may label a Deployment like that of the operator.
    deploy("copy").await;
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert!(report["prometheusFrom"].as_str().unwrap().contains("several Deployments"), "{report}");

    models.model_server("chat", "chat", 8000).await;
    let spec = json!({"prometheus": {"url": "http://prometheus:9090"}, "replicas": {"min": 0}, "scaleToZero": {"hold": {}}});
    let profile = json!({"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile", "metadata": {"name": "default"}, "spec": spec});
    harness::objects::apply(&models.client, profile).await;
    let (report, _) = explained(&stack, &Identity::Admin, &chat, &[]);
    assert_eq!(report["prometheusFrom"], "the AutoscalingProfile default", "{report}");
    // It may make stand-ins.
    assert!(!link(&report, "stand-in").to_string().contains("standIns.enabled"), "{report}");
}
