//! Every reason as it comes about in life: condition, event and `explain` agree, and following the message cures it.
//!
//! Reasons that need a part of the chain broken are among the tests of holding; those of a missing neighbour are at the API server.

use harness::{Chain, Model, kinds, stack::resource};
use kube::api::DeleteParams;
use rstest::rstest;
use serde_json::json;

use super::shared::{agree, chain, event};

/// A model of a chain that is scraped, so that nothing but what is tested is wrong.
async fn well(chain: &Chain, name: &str) -> Model {
    // The router is scraped once there is a model, and shows nothing of requests before the first one.
    let chat = chain.model(name).await;
    let first = chain.load_named("nobody-routes-this");
    first.hold(1);
    chain.prometheus.until("max(kthena_router_active_requests)", |value| value.is_some()).await;
    first.hold(0);
    chat.serving.says("Idle", "").await;
    chat
}

/// Sees that all three say it, cures it, and sees that it is over.
async fn cured_by(
    chain: &Chain,
    chat: &Model,
    reason: &str,
    link: &str,
    note: &str,
    cure: impl AsyncFnOnce(),
) {
    chat.serving.says(reason, note).await;
    agree(chain, chat, reason, Some(link)).await;
    event(chat, "Warning", reason, note).await;
    cure().await;
    chat.serving.says("Idle", "").await;
    agree(chain, chat, "Idle", None).await;
    // What is cured may uncover something else for a moment, which is over in its turn.
    event(chat, "Normal", "Resolved", " is resolved").await;
}

#[rstest]
#[case("invalid", "InvalidConfiguration", "annotations", &[("min-replicas", "two")], "min-replicas")]
#[case("no-profile", "ProfileNotFound", "profile", &[("profile", "gold")], "\"gold\"")]
#[case("cannot-wake", "CannotWakeFromZero", "demand", &[("min-replicas", "0"), ("signals", "engine-queue=5")], "min-replicas to at least 1")]
#[tokio::test]
async fn of_the_annotations(
    #[case] name: &str,
    #[case] reason: &str,
    #[case] link: &str,
    #[case] annotations: &[(&str, &str)],
    #[case] note: &str,
) {
    let Some(chain) = chain().await else { return };
    let chat = well(chain, name).await;
    let full: Vec<(String, &str)> =
        annotations.iter().map(|(key, value)| (format!("autoscaling.kthena.io/{key}"), *value)).collect();
    let set: Vec<(&str, Option<&str>)> =
        full.iter().map(|(key, value)| (key.as_str(), Some(*value))).collect();
    chat.serving.annotate(&set).await;
    let unset: Vec<(&str, Option<&str>)> = full.iter().map(|(key, _)| (key.as_str(), None)).collect();
    cured_by(chain, &chat, reason, link, note, async || chat.serving.annotate(&unset).await).await;
}

#[tokio::test]
async fn of_a_name_that_another_claims() {
    let Some(chain) = chain().await else { return };
    let chat = well(chain, "claimed-twice").await;
    // The route leads elsewhere, to whom the name is theirs, too.
    let models = &chat.serving.namespace;
    models.model_server("other", "other", chain.engine.port).await;
    let other = models.model_serving("other").scheduled().opted_in("claimed-twice").create().await;
    models.reroute("chat-0", &[("other", 100)]).await;
    let note = format!("{}/other", models.name);
    cured_by(chain, &chat, "SharedModelName", "demand", &note, async || {
        models.reroute("chat-0", &[("chat", 100)]).await;
    })
    .await;
    other.delete().await;
}

#[tokio::test]
async fn of_another_autoscaler() {
    let Some(chain) = chain().await else { return };
    let chat = well(chain, "scaled-twice").await;
    let models = &chat.serving.namespace;
    let policy =
        resource("workload.serving.volcano.sh", "v1alpha1", "AutoscalingPolicy", "autoscalingpolicies");
    let target = json!({"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}, "minReplicas": 1, "maxReplicas": 2});
    let spec = json!({"metrics": [{"name": "m", "targetValue": "1"}], "homogeneousTarget": target});
    models.create(&policy, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    cured_by(chain, &chat, "ConflictingAutoscaler", "other autoscalers", "AutoscalingPolicy", async || {
        models.api(&policy).delete("theirs", &DeleteParams::default()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn of_a_name_that_is_taken() {
    let Some(chain) = chain().await else { return };
    let endpoints = json!([{"port": "http"}]);
    let chat = well(chain, "name-taken").await;
    let models = &chat.serving.namespace;
    let theirs = json!({"metadata": {"name": "kthena-keda-chat"}, "spec": {"selector": {}, "podMetricsEndpoints": endpoints}});
    models.create(&kinds::pod_monitor(), theirs).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/signals", Some("engine-running=4"))]).await;
    cured_by(chain, &chat, "NameConflict", "other autoscalers", "PodMonitor kthena-keda-chat", async || {
        models.api(&kinds::pod_monitor()).delete("kthena-keda-chat", &DeleteParams::default()).await.unwrap();
    })
    .await;
}
