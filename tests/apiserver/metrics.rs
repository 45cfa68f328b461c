//! Metrics of single models.

use harness::wait::until_asked;
use serde_json::json;

use super::shared::{metrics, stack};

#[tokio::test]
async fn exports_the_replicas_and_loading_times_of_opted_in_models() {
    let models = stack().await.namespace().await;
    let chat = models.model_serving("chat").opts_in().replicas(1).create().await;
    chat.patch_status("kthena", json!({"replicas": 1, "availableReplicas": 1})).await.unwrap();
    let labels = format!("{{namespace=\"{}\",model_serving=\"chat\"", models.name);
    let series = async || {
        let all = metrics().await;
        let own = all.lines().filter_map(|line| line.split_once(&labels));
        own.filter(|(name, _)| !name.ends_with("_bucket"))
            .map(|(name, rest)| format!("{name}{rest}"))
            .collect::<Vec<_>>()
    };
    let has = |line: &'static str| move |found: &Vec<String>| found.iter().any(|own| own == line);
    until_asked("one ServingGroup is ready", series, has("kthena_keda_replicas,state=\"ready\"} 1")).await;
    chat.patch(json!({"spec": {"replicas": 2}})).await;
    until_asked("two are requested", series, has("kthena_keda_replicas,state=\"spec\"} 2")).await;
    let before = series().await;
    assert!(has("kthena_keda_replicas,state=\"total\"} 1")(&before), "{before:?}");
    assert!(!before.iter().any(|own| own.starts_with("kthena_keda_start_seconds")), "{before:?}");
    chat.patch_status("kthena", json!({"replicas": 2, "availableReplicas": 2})).await.unwrap();
    until_asked("a loading time is recorded", series, has("kthena_keda_start_seconds_count} 1")).await;
    // Kthena leaves a number of 0 out of the status.
    chat.patch(json!({"spec": {"replicas": 0}})).await;
    chat.patch_status("kthena", json!({"replicas": null, "availableReplicas": null})).await.unwrap();
    until_asked("none is ready", series, has("kthena_keda_replicas,state=\"ready\"} 0")).await;
    assert!(has("kthena_keda_replicas,state=\"total\"} 0")(&series().await));
    chat.patch(json!({"spec": {"replicas": 1}})).await;
    until_asked("one is requested", series, has("kthena_keda_replicas,state=\"spec\"} 1")).await;
    chat.patch_status("kthena", json!({"replicas": 1, "availableReplicas": 1})).await.unwrap();
    until_asked("the wake is recorded", series, has("kthena_keda_start_seconds_count} 2")).await;
    chat.annotate(&[("kthena.io/model-name", None)]).await;
    until_asked("a model that is opted out has no series", series, Vec::is_empty).await;
}
