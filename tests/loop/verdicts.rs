//! The condition follows the status of the real KEDA and HPA.

use std::process::Command;

use harness::{Identity, control_plane::binary};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{
    shared::{agree, chain, event},
    signals::profile,
};

#[tokio::test]
async fn reports_idle_and_scaling_and_satisfies_kubectl_wait() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("verdicts").await;
    let message = chat.serving.says("Idle", "KEDA reports no activity").await;
    assert!(message.contains("scales on active-requests, from 1 to 10 ServingGroups"), "{message}");
    let kubeconfig = chain.stack.control_plane.kubeconfig(&Identity::Admin);
    let wait = [
        "wait",
        "--for=condition=AutoscalingReady",
        "modelserving/chat",
        "--timeout=20s",
        "-n",
        &chat.serving.namespace.name,
    ];
    let output = Command::new(binary("kubectl")).args(wait).env("KUBECONFIG", kubeconfig).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let load = chain.load(&chat);
    load.hold(17);
    chat.has_replicas(2).await;
    // The operator changes between Idle and Scaling at most once a minute, because requests can be sporadic.
    chat.serving
        .within(std::time::Duration::from_secs(90))
        .says("Scaling", "scales on active-requests")
        .await;
    let found = agree(chain, &chat, "Scaling", None).await;
    let signal = &found["signals"][0];
    assert_eq!(
        (&signal["value"], &signal["target"], &signal["wanted"]),
        (&json!(17.0), &json!("10"), &json!(2.0)),
        "{found}"
    );
    assert_eq!(
        (&found["replicas"]["now"], &found["replicas"]["wanted"]),
        (&json!(2), &json!(2.0)),
        "{found}"
    );
    assert!(found["links"].as_array().unwrap().iter().all(|link| link["state"] == "holds"), "{found}");
}

#[tokio::test]
async fn reports_pauses_of_the_user_and_of_other_writers() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("paused-verdict").await;
    chat.serving.says("Idle", "").await;
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", Some("true"))]).await;
    chat.serving.says("Paused", "autoscaling.kthena.io/paused").await;
    agree(chain, &chat, "Paused", None).await;
    chat.serving.annotate(&[("autoscaling.kthena.io/paused", None)]).await;
    chat.serving.says("Idle", "").await;
    let foreign =
        Patch::Merge(json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "2"}}}));
    chat.serving.scaled_objects().patch("chat", &PatchParams::default(), &foreign).await.unwrap();
    chat.serving.says("Paused", "which another user set").await;
    chat.has_replicas(2).await;
}

/// No front end to KEDA detects this failure: every condition is healthy, and the model never scales.
#[tokio::test]
async fn reports_an_unrouted_model_name_and_suggests_a_routed_one() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("llama-of-verdicts").await;
    chat.serving.annotate(&[("kthena.io/model-name", Some("lama-of-verdicts"))]).await;
    let message = chat.serving.says("ModelNotSeen", "\"lama-of-verdicts\"").await;
    assert!(message.contains("most similar routed name: \"llama-of-verdicts\""), "{message}");
    agree(chain, &chat, "ModelNotSeen", Some("model")).await;
    event(&chat, "Warning", "ModelNotSeen", "lama-of-verdicts").await;
    // A client with the same typo creates series for the name, but the name is still unrouted.
    let typo = chain.load_of("lama-of-verdicts", 1);
    typo.hold(1);
    let not_found = "max(kthena_router_requests_total{model=\"lama-of-verdicts\",status_code=\"404\"})";
    chain.prometheus.until(not_found, |count| count.is_some()).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    chat.serving.reason("ModelNotSeen").await;
    typo.hold(0);
    chat.serving.annotate(&[("kthena.io/model-name", Some("llama-of-verdicts"))]).await;
    chat.serving.says("Idle", "").await;
    event(&chat, "Normal", "Resolved", "ModelNotSeen is resolved").await;
}

/// As with a Prometheus whose `podMonitorSelector` does not match the operator's PodMonitor.
#[tokio::test]
async fn reports_engines_that_are_not_scraped() {
    let Some(chain) = chain().await else { return };
    let name = profile(chain, "unscraped-engines", &json!({"monitors": {"create": false}})).await;
    let with_profile = |builder: harness::ModelServingBuilder| {
        builder
            .annotated("autoscaling.kthena.io/signals", "engine-running=4")
            .annotated("autoscaling.kthena.io/profile", &name)
    };
    let chat = chain.model_with("unscraped", with_profile).await;
    let message = chat.serving.says("EngineNotScraped", "PodMonitor kthena-keda-chat").await;
    assert!(message.contains("podMonitorSelector"), "{message}");
    agree(chain, &chat, "EngineNotScraped", Some("scraping")).await;
    event(&chat, "Warning", "EngineNotScraped", "podMonitorSelector").await;
    chat.serving.annotate(&[("autoscaling.kthena.io/profile", None)]).await;
    chat.serving.says("Idle", "").await;
    // A scraped port without a listener.
    chat.serving.annotate(&[("autoscaling.kthena.io/engine-port", Some("1"))]).await;
    chat.serving.says("EngineNotScraped", "no engine answers Prometheus at /metrics on port 1").await;
    chat.serving.annotate(&[("autoscaling.kthena.io/engine-port", None)]).await;
    chat.serving.says("Idle", "").await;
}
