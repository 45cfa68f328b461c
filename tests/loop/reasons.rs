//! Reasons caused on the complete chain: the condition, the event and `explain` agree, and the remedy in the
//! message resolves the problem.
//!
//! The tests in `outages` cover reasons that need a stopped component, and `tests/apiserver` those of a
//! missing CRD.

use harness::{Chain, Model, kinds, stack::resource};
use kube::api::DeleteParams;
use rstest::rstest;
use serde_json::json;

use super::shared::{agree, chain, event};

/// A model without problems on a scraped router, so that the tested problem is the only one.
async fn idle_model(chain: &Chain, name: &str) -> Model {
    // The router is scraped once a model exists, and exports no request series before the first request.
    let chat = chain.model(name).await;
    let first = chain.load_named("unrouted");
    first.hold(1);
    chain.prometheus.until("max(kthena_router_active_requests)", |value| value.is_some()).await;
    first.hold(0);
    chat.serving.says("Idle", "").await;
    chat
}

/// Checks that the condition, `explain` and the event report `reason`, runs `cure`, and checks that the
/// problem is resolved.
async fn is_resolved_by(
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
    // Another reason can appear briefly after the first one is resolved, and is resolved in turn.
    event(chat, "Normal", "Resolved", " is resolved").await;
}

#[rstest]
#[case("invalid", "InvalidConfiguration", "annotations", &[("min-replicas", "two")], "min-replicas")]
#[case("no-profile", "ProfileNotFound", "profile", &[("profile", "gold")], "\"gold\"")]
#[case("cannot-wake", "CannotWakeFromZero", "demand", &[("min-replicas", "0"), ("signals", "engine-queue=5")], "min-replicas to at least 1")]
#[tokio::test]
async fn reports_problems_of_annotations(
    #[case] name: &str,
    #[case] reason: &str,
    #[case] link: &str,
    #[case] annotations: &[(&str, &str)],
    #[case] note: &str,
) {
    let Some(chain) = chain().await else { return };
    let chat = idle_model(chain, name).await;
    let full: Vec<(String, &str)> =
        annotations.iter().map(|(key, value)| (format!("autoscaling.kthena.io/{key}"), *value)).collect();
    let set: Vec<(&str, Option<&str>)> =
        full.iter().map(|(key, value)| (key.as_str(), Some(*value))).collect();
    chat.serving.annotate(&set).await;
    let unset: Vec<(&str, Option<&str>)> = full.iter().map(|(key, _)| (key.as_str(), None)).collect();
    is_resolved_by(chain, &chat, reason, link, note, async || chat.serving.annotate(&unset).await).await;
}

#[tokio::test]
async fn reports_a_shared_model_name() {
    let Some(chain) = chain().await else { return };
    let chat = idle_model(chain, "claimed-twice").await;
    // The route leads to another model that has the same model name.
    let models = &chat.serving.namespace;
    models.model_server("other", "other", chain.engine.port).await;
    let other = models.model_serving("other").scheduled().opted_in("claimed-twice").create().await;
    models.reroute("chat-0", &[("other", 100)]).await;
    let note = format!("{}/other", models.name);
    is_resolved_by(chain, &chat, "SharedModelName", "demand", &note, async || {
        models.reroute("chat-0", &[("chat", 100)]).await;
    })
    .await;
    other.delete().await;
}

#[tokio::test]
async fn reports_a_competing_autoscaler() {
    let Some(chain) = chain().await else { return };
    let chat = idle_model(chain, "scaled-twice").await;
    let models = &chat.serving.namespace;
    let policy =
        resource("workload.serving.volcano.sh", "v1alpha1", "AutoscalingPolicy", "autoscalingpolicies");
    let target = json!({"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}, "minReplicas": 1, "maxReplicas": 2});
    let spec = json!({"metrics": [{"name": "m", "targetValue": "1"}], "homogeneousTarget": target});
    models.create(&policy, json!({"metadata": {"name": "theirs"}, "spec": spec})).await;
    is_resolved_by(
        chain,
        &chat,
        "ConflictingAutoscaler",
        "other autoscalers",
        "AutoscalingPolicy",
        async || {
            models.api(&policy).delete("theirs", &DeleteParams::default()).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn reports_a_name_conflict() {
    let Some(chain) = chain().await else { return };
    let endpoints = json!([{"port": "http"}]);
    let chat = idle_model(chain, "name-taken").await;
    let models = &chat.serving.namespace;
    let foreign = json!({"metadata": {"name": "kthena-keda-chat"}, "spec": {"selector": {}, "podMetricsEndpoints": endpoints}});
    models.create(&kinds::pod_monitor(), foreign).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/signals", Some("engine-running=4"))]).await;
    is_resolved_by(
        chain,
        &chat,
        "NameConflict",
        "other autoscalers",
        "PodMonitor kthena-keda-chat",
        async || {
            models
                .api(&kinds::pod_monitor())
                .delete("kthena-keda-chat", &DeleteParams::default())
                .await
                .unwrap();
        },
    )
    .await;
}
