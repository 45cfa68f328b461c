//! `explain` and the condition never disagree: both say the same of every situation that configuration alone brings about.

use std::path::Path;

use harness::{
    Crds, Identity, ModelServing, ModelServingBuilder, Settings, Stack, condition, kinds, stack::resource,
    wait::until_asked,
};
use rstest::rstest;
use serde_json::{Value, json};

use super::shared::{BINARY, stack};

/// What both say: status and reason, and the link that is broken.
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
    let both = async || {
        let (said, code) =
            harness::explain(Path::new(BINARY), &kubeconfig, &[&[model.as_str()], arguments].concat());
        // A kind that has just been installed may not be described yet.
        (
            said.unwrap_or_else(|error| json!({"error": error})),
            code,
            condition(&chat.get().await).cloned().unwrap_or_default(),
        )
    };
    let same = |(said, _, condition): &(Value, Option<i32>, Value)| {
        said["reason"] == reason && condition["reason"] == reason && condition["status"] == said["status"]
    };
    let (said, code, _) = until_asked(&format!("both say {reason}"), both, same).await;
    let links = said["links"].as_array().unwrap();
    let broken: Vec<&str> = links
        .iter()
        .filter(|link| link["state"] == "broken")
        .filter_map(|link| link["name"].as_str())
        .collect();
    assert_eq!(broken, link.into_iter().collect::<Vec<_>>(), "{said}");
    assert!(
        links
            .iter()
            .position(|link| link["state"] == "broken")
            .is_none_or(|broken| broken + 1 == links.len()),
        "{said}"
    );
    assert_eq!(code, Some(if said["status"] == "False" { 3 } else { 4 }), "{said}");
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
async fn of_annotations(
    #[case] reason: &str,
    #[case] link: Option<&str>,
    #[case] annotated: impl FnOnce(ModelServingBuilder) -> ModelServingBuilder,
) {
    let stack = stack().await;
    let chat = annotated(stack.namespace().await.model_serving("chat").opts_in()).create().await;
    agree(stack, &chat, reason, link).await;
}

#[tokio::test]
async fn of_what_others_have() {
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
    let theirs = json!({"metadata": {"name": "named"}, "spec": {"scaleTargetRef": {"name": "other"}, "triggers": [trigger]}});
    models.create(&kinds::scaled_object(), theirs).await;
    let named = models.model_serving("named").opted_in("named.like-others").create().await;
    agree(stack, &named, "NameConflict", Some("other autoscalers")).await;
}

#[tokio::test]
async fn of_a_prometheus_that_nobody_named() {
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
async fn of_what_the_cluster_lacks() {
    let stack = Stack::start(&[Crds::kthena_0_2()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    agree(&stack, &chat, "KedaNotInstalled", Some("cluster")).await;
    Crds::keda().install(&models.client).await;
    agree(&stack, &chat, "ScaleSubresourceMissing", Some("cluster")).await;
}

#[tokio::test]
async fn all_models_the_worst_first_and_what_the_caller_may_not_see() {
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
    let (said, code) =
        harness::explain(Path::new(BINARY), &admin, &["--prometheus-url=http://prometheus:9090"]);
    let said = said.unwrap();
    let names: Vec<&str> =
        said.as_array().unwrap().iter().filter_map(|found| found["name"].as_str()).collect();
    assert_eq!((names, code), (vec!["bad", "a-good-one"], Some(3)));
    let nobody = stack.control_plane.kubeconfig(&Identity::User("nobody"));
    let model = format!("{}/bad", models.name);
    let (said, code) = harness::explain(Path::new(BINARY), &nobody, &[&model]);
    let error = said.unwrap_err();
    assert!(code == Some(1) && error.contains("no permission to list modelservings"), "{error}");
    let (said, code) = harness::explain(Path::new(BINARY), &admin, &["bad"]);
    let error = said.unwrap_err();
    assert!(code == Some(1) && error.contains("write NAMESPACE/NAME"), "{error}");
}
