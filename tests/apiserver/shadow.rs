//! Dry runs: the operator creates no ScaledObject, removes its own, and yields to nothing.

use harness::{Crds, ModelServing, Settings, Stack, kinds, stack::resource, wait::until_asked};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::shared::{BINARY, has_event, metrics, namespace};

const SHADOW: &str = "autoscaling.kthena.io/shadow";

fn hpa() -> Value {
    let target =
        json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
    let metric = json!({"type": "External", "external": {"metric": {"name": "theirs"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    json!({"metadata": {"name": "theirs"}, "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2, "metrics": [metric]}})
}

async fn series(chat: &ModelServing) -> Option<String> {
    let labels = format!("namespace=\"{}\",model_serving=\"chat\"", chat.namespace.name);
    let series = format!("kthena_keda_shadow_replicas{{{labels}}} ");
    metrics().await.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned))
}

#[tokio::test]
async fn begins_and_ends_with_the_annotation() {
    let models = namespace().await;
    let chat = models.model_serving("chat").opts_in().replicas(3).create().await;
    chat.scaled_object().await;
    chat.annotate(&[(SHADOW, Some("true"))]).await;
    chat.scaled_object_gone().await;
    // Nothing answers the queries, so the number stays.
    let message = chat.says("Shadow", "it would have held 3 ServingGroups since 20").await;
    assert!(message.contains("; nothing else scales it; remove the annotation"), "{message}");
    has_event(&chat, "Normal", "Shadow", "it would have held 3 ServingGroups").await;
    assert_eq!(chat.get().await.data["spec"]["replicas"], 3);
    until_asked("the metric is 3", async || series(&chat).await, |found| found.as_deref() == Some("3")).await;
    chat.annotate(&[(SHADOW, None)]).await;
    chat.scaled_object().await;
    has_event(&chat, "Normal", "ShadowEnded", "the dry run has ended").await;
    until_asked("the metric is gone", async || series(&chat).await, Option::is_none).await;
}

#[tokio::test]
async fn creates_nothing_for_a_new_model() {
    let chat = namespace().await.model_serving("chat").opts_in().annotated(SHADOW, "true").create().await;
    chat.says("Shadow", "it would have held 1 ServingGroups").await;
    assert!(chat.scaled_objects().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn runs_beside_an_hpa() {
    let models = namespace().await;
    let kind = resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
    let theirs = models.create(&kind, hpa()).await;
    let chat = models.model_serving("chat").opts_in().annotated(SHADOW, "true").create().await;
    chat.says("Shadow", &format!("HorizontalPodAutoscaler {}/theirs scales it now", models.name)).await;
    let now = models.api(&kind).get("theirs").await.unwrap();
    assert_eq!(now.uid(), theirs.uid());
    // Without the dry run it is a conflict, as always.
    chat.annotate(&[(SHADOW, Some("false"))]).await;
    chat.reason("ConflictingAutoscaler").await;
}

/// Another user's object with the generated name is neither changed nor a problem before the name is needed.
#[tokio::test]
async fn runs_beside_an_object_with_the_generated_name() {
    let models = namespace().await;
    let trigger = json!({"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "2"}});
    let target =
        json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
    let by_hand =
        json!({"metadata": {"name": "chat"}, "spec": {"scaleTargetRef": target, "triggers": [trigger]}});
    let theirs = models.create(&kinds::scaled_object(), by_hand).await;
    let chat = models.model_serving("chat").opts_in().annotated(SHADOW, "true").create().await;
    chat.says("Shadow", &format!("ScaledObject {}/chat scales it now", models.name)).await;
    let now = chat.scaled_object().await;
    assert_eq!((now.uid(), now.resource_version()), (theirs.uid(), theirs.resource_version()));
    chat.annotate(&[(SHADOW, None)]).await;
    chat.reason("NameConflict").await;
}

#[tokio::test]
async fn warns_at_zero() {
    let chat = namespace()
        .await
        .model_serving("chat")
        .opts_in()
        .replicas(0)
        .annotated(SHADOW, "true")
        .create()
        .await;
    chat.says("Shadow", "no request wakes it while it is in shadow; scale it up: kubectl scale").await;
    has_event(&chat, "Warning", "Shadow", "kubectl scale").await;
}

/// A restart repeats no write, and the range continues. Beyond the limit the younger models say so.
#[tokio::test]
async fn observes_the_oldest_models_and_a_restart_writes_nothing() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let settings = Settings::new(BINARY).with("--shadow-max=1");
    let operator = stack.start_operator(&settings);
    let models = stack.namespace().await;
    let create =
        async |name: &str| models.model_serving(name).opted_in(name).annotated(SHADOW, "true").create().await;
    let old = create("old").await;
    let held = old.says("Shadow", "it would have held 1 ServingGroups since ").await;
    // Times of creation are in whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let young = create("young").await;
    let beyond = young.says("Shadow", "it is not observed, since 1 older models in shadow are").await;
    drop(operator);
    let writes = |stack: &Stack| {
        stack.writes().into_iter().filter(|write| write.object_ref.resource == "modelservings").count()
    };
    let before = writes(&stack);
    let again = stack.start_operator(&settings);
    until_asked(
        "the operator decides again",
        async || harness::ask(&again, "/metrics").await.1,
        |metrics| metrics.contains("kthena_keda_shadow_replicas{"),
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!((old.reason("Shadow").await, young.reason("Shadow").await), (held, beyond));
    assert_eq!(writes(&stack), before);
    // The next one takes the place of a model that ends its dry run.
    old.annotate(&[(SHADOW, None)]).await;
    until_asked(
        "the younger one is observed",
        async || harness::ask(&again, "/metrics").await.1,
        |metrics| {
            metrics.contains("kthena_keda_shadow_replicas{") && metrics.contains("model_serving=\"young\"} 1")
        },
    )
    .await;
}
