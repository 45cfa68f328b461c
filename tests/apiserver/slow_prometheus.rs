//! A Prometheus that answers after half a minute delays only the models that it has the values of.

use std::time::Duration;

use harness::{
    Crds, Fault, FaultProxy, ModelServing, Process, Settings, Stack, ask, kinds, neighbours::Prometheus,
    past_requests, wait::until_asked_within,
};
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{service_time::KEY, shared::BINARY};

/// Time of one answer.
const SLOW: Duration = Duration::from_secs(30);
/// Time in which models of the other Prometheus are observed and measured: less than one slow answer.
const QUICKLY: Duration = Duration::from_secs(20);

/// ServingGroups that a model in shadow would hold.
async fn would_hold(operator: &Process, model: &ModelServing) -> Option<i64> {
    let labels = format!("namespace=\"{}\",model_serving=\"{}\"", model.namespace.name, model.name);
    let series = format!("kthena_keda_shadow_replicas{{{labels}}} ");
    let (_, metrics) = ask(operator, "/metrics").await;
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

fn is_measured(found: &kube::api::DynamicObject) -> bool {
    found.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(KEY))
}

#[tokio::test]
async fn a_slow_prometheus_delays_only_its_own_models() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let (models, others) = (stack.namespace().await, stack.namespace().await);
    let folder = &stack.control_plane.folder;
    let slow_names: Vec<String> = (0..40).map(|number| format!("slow-{number}")).collect();
    let names: Vec<&str> = slow_names.iter().map(String::as_str).collect();
    let fast = Prometheus::with_history(folder, &past_requests(&models.name, &["fast", "shadow"], 15)).await;
    let far = Prometheus::with_history(&folder.join("far"), &past_requests(&others.name, &names, 15)).await;
    let proxy = FaultProxy::before_url(&far.url, Fault::Delay(SLOW)).await;
    let profile = json!({
        "apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "AutoscalingProfile",
        "metadata": {"name": "far"}, "spec": {"prometheus": {"url": proxy.url()}},
    });
    let profiles: Api<kube::api::DynamicObject> = Api::all_with(stack.client().await, &kinds::profile());
    profiles.create(&PostParams::default(), &serde_json::from_value(profile).unwrap()).await.unwrap();
    let settings = Settings::new(BINARY)
        .without("--prometheus-url")
        .with(&format!("--prometheus-url={}", fast.url))
        .with("--hpa-sync-period=1");
    let operator = stack.start_operator(&settings);
    let mut slow = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let builder = others.model_serving(name).opted_in(name);
        let builder = builder.annotated("autoscaling.kthena.io/profile", "far");
        let builder = builder.annotated("autoscaling.kthena.io/signals", "active-requests=1");
        let builder = builder.annotated("autoscaling.kthena.io/service-time", "auto");
        let builder =
            if number < 4 { builder.annotated("autoscaling.kthena.io/shadow", "true") } else { builder };
        slow.push(builder.create().await);
    }
    until_asked_within(
        QUICKLY,
        "the slow Prometheus is asked",
        async || proxy.set(Fault::Delay(SLOW)).asked,
        |asked| *asked > 0,
    )
    .await;
    let shadow = models.model_serving("shadow").opted_in("shadow");
    let shadow = shadow.annotated("autoscaling.kthena.io/signals", "active-requests=1");
    let shadow = shadow.annotated("autoscaling.kthena.io/shadow", "true").create().await;
    let measured = models.model_serving("fast").opted_in("fast");
    let measured = measured.annotated("autoscaling.kthena.io/service-time", "auto").create().await;
    let would = async || would_hold(&operator, &shadow).await;
    until_asked_within(QUICKLY, "the model in shadow is observed", would, |found| *found == Some(3)).await;
    let scaled_object = async || measured.scaled_object().await;
    until_asked_within(QUICKLY, "the service time is measured", scaled_object, is_measured).await;
    for model in &slow[..4] {
        assert_ne!(would_hold(&operator, model).await, Some(3), "{} has no answer yet", model.name);
    }
    proxy.set(Fault::None);
    let would = async || would_hold(&operator, &slow[0]).await;
    until_asked_within(2 * SLOW, "the slow one is observed", would, |found| *found == Some(3)).await;
}
