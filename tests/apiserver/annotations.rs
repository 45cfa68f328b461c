//! Invalid annotations: the operator reports every error and keeps a working ScaledObject.

use rstest::rstest;

use super::shared::namespace;

#[rstest]
#[case("kthena.io/model-name", "", "expected 1 to 16 model names")]
#[case("autoscaling.kthena.io/min-replicas", "-1", "min-replicas")]
#[case("autoscaling.kthena.io/max-replicas", "many", "max-replicas")]
#[case("autoscaling.kthena.io/signals", "active-request=3", "active-requests")]
#[case("autoscaling.kthena.io/paused", "yes", "scale-in")]
#[case("autoscaling.kthena.io/engine", "tgi", "vllm")]
#[case("autoscaling.kthena.io/engine-port", "0", "65535")]
#[case("autoscaling.kthena.io/min-replica", "1", "did you mean autoscaling.kthena.io/min-replicas?")]
#[tokio::test]
async fn reports_each_invalid_annotation_at_creation(
    #[case] key: &str,
    #[case] value: &str,
    #[case] why: &str,
) {
    let chat = namespace().await.model_serving("chat").opts_in().annotated(key, value).create().await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(message.contains(why), "{message}");
    assert!(chat.scaled_objects().get_opt("chat").await.unwrap().is_none());
}

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
    for part in ["model-name", "min-replicas", "load", "paused", "stays as it was last valid"] {
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

#[tokio::test]
async fn opting_in_never_scales_down_a_larger_fleet() {
    let chat = namespace().await.model_serving("chat").replicas(12).opts_in().create().await;
    let message = chat.reason("InvalidConfiguration").await;
    assert!(message.contains("12"), "{message}");
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("12"))]).await;
    chat.scaled_object().await;
}

#[tokio::test]
async fn reports_a_missing_profile() {
    let chat = namespace()
        .await
        .model_serving("chat")
        .opts_in()
        .annotated("autoscaling.kthena.io/profile", "gold")
        .create()
        .await;
    assert!(chat.reason("ProfileNotFound").await.contains("gold"));
}
