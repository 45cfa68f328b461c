//! Invalid annotations: the operator reports every error and keeps a working ScaledObject.

use super::shared::namespace;

#[tokio::test]
async fn reports_all_errors_together_and_keeps_the_last_valid_scaled_object() {
    let chat = namespace().await.model_serving("chat").opts_in().create().await;
    let valid = chat.scaled_object().await;
    chat.annotate(&[
        ("kthena.io/model-name", Some("")),
        ("autoscaling.kthena.io/min-replicas", Some("one")),
        ("autoscaling.kthena.io/signals", Some("load=1")),
        ("autoscaling.kthena.io/pause", Some("true")),
    ])
    .await;
    let message = chat.reason("InvalidConfiguration").await;
    for part in ["model-name", "min-replicas", "load", "paused", "keeps its last valid settings"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(chat.scaled_object().await.metadata.resource_version, valid.metadata.resource_version);
    chat.annotate(&[
        ("kthena.io/model-name", Some(&chat.namespace.model_name())),
        ("autoscaling.kthena.io/min-replicas", Some("2")),
        ("autoscaling.kthena.io/signals", None),
        ("autoscaling.kthena.io/pause", None),
    ])
    .await;
    chat.reason("Pending").await;
    chat.scaled_object_until("has a minimum of 2", |found| found.data["spec"]["minReplicaCount"] == 2).await;
}
