//! Agreement of `explain` and the condition on every problem that configuration alone can cause.

use std::path::Path;

use harness::{
    Crds, Identity, ModelServing, ModelServingBuilder, Settings, Stack, condition, kinds, stack::resource,
    wait::until_asked,
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
    let (report, code) = harness::explain(Path::new(BINARY), &admin, &["bad"]);
    let error = report.unwrap_err();
    assert!(code == Some(1) && error.contains("expected NAMESPACE/NAME"), "{error}");
}

#[tokio::test]
async fn explain_repeats_the_words_of_the_scheduler() {
    let stack = stack().await;
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().replicas(2).create().await;
    models
        .create(
            &resource("", "v1", "ServiceAccount", "serviceaccounts"),
            json!({"metadata": {"name": "default"}}),
        )
        .await;
    let metadata = json!({"name": "chat-1", "labels": {"modelserving.volcano.sh/name": "chat"}});
    let spec = json!({"containers": [{"name": "engine", "image": "engine"}]});
    models.create(&kinds::pod(), json!({"metadata": metadata, "spec": spec})).await;
    let message = "0/5 nodes are available: 5 Insufficient nvidia.com/gpu.";
    let scheduled =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    let status = Patch::Merge(json!({"status": {"conditions": [scheduled]}}));
    models.api(&kinds::pod()).patch_status("chat-1", &PatchParams::default(), &status).await.unwrap();
    chat.patch_status("kthena", json!({"replicas": 2, "availableReplicas": 1})).await.unwrap();
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
