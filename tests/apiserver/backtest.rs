//! The command `backtest` for models of a cluster: models that cannot be simulated, and one that Prometheus has a history of.

use std::{
    fmt::Write as _,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use harness::{Crds, Identity, Stack, neighbours::Prometheus};
use rstest::rstest;
use serde_json::{Value, json};

use super::shared::{BINARY, stack};

/// Runs `backtest` with the permissions of this user; returns exit code, standard output and standard error.
fn backtest(stack: &Stack, user: &Identity, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.arg("backtest").args(args).env("KUBECONFIG", stack.control_plane.kubeconfig(user));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[rstest]
#[case::missing("nobody", "does not exist; correct the namespace and the name")]
#[case::not_opted_in("plain", "has no annotation kthena.io/model-name, so it is not scaled; set it")]
#[case::invalid("invalid", r#"there is nothing to simulate: InvalidConfiguration: invalid value "x""#)]
#[tokio::test]
async fn a_model_that_is_not_scaled_is_invalid_input(#[case] name: &str, #[case] expected: &str) {
    let stack = stack().await;
    let models = stack.namespace().await;
    models.model_serving("plain").create().await;
    let invalid = models.model_serving("invalid").opts_in();
    invalid.annotated("autoscaling.kthena.io/min-replicas", "x").create().await;
    let model = format!("{}/{name}", models.name);
    let (code, _, error) =
        backtest(stack, &Identity::Admin, &[&model, "--prometheus-url", "http://127.0.0.1:9"]);
    assert!(code == Some(1) && error.contains(expected), "{code:?} {error}");
}

/// Without permissions the error says which are missing.
#[tokio::test]
async fn a_user_without_permissions_learns_which_are_missing() {
    let stack = stack().await;
    let stranger = Identity::User("stranger");
    let (code, _, error) =
        backtest(stack, &stranger, &["models/chat", "--prometheus-url", "http://127.0.0.1:9"]);
    assert!(code == Some(1) && error.contains("no permission to list modelservings"), "{code:?} {error}");
}

/// An hour with four requests in flight, of a model with eight GPUs for each ServingGroup.
#[tokio::test]
async fn reads_the_history_of_a_model_and_its_gpus() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    let limits = json!({"nvidia.com/gpu": "8"});
    let container =
        json!({"name": "vllm", "image": "vllm", "resources": {"limits": limits, "requests": limits}});
    let role = json!({"name": "engine", "replicas": 1, "workerReplicas": 0, "entryTemplate": {"spec": {"containers": [container]}}});
    let chat = json!({
        "apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing",
        "metadata": {"name": "chat", "namespace": models.name, "annotations": {"kthena.io/model-name": "llama"}},
        "spec": {"replicas": 1, "template": {"roles": [role]}},
    });
    harness::objects::apply(&stack.client().await, chat).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 15 * 15;
    let target =
        r#"namespace="kthena-system",service="kthena-router",job="kthena-router",pod="r-0",instance="i""#;
    let replicas = format!(r#"namespace="{}",model_serving="chat",state="spec""#, models.name);
    let series = [
        ("kthena_router_active_downstream_requests", format!(r#"{target},model="llama""#), 4.0, 0.0),
        ("kthena_router_active_requests", target.to_owned(), 4.0, 0.0),
        ("kthena_router_requests_total", format!(r#"{target},model="llama",status_code="200""#), 100.0, 12.0),
        ("kthena_keda_replicas", replicas, 1.0, 0.0),
    ];
    let mut text = String::new();
    for (name, labels, first, growth) in series {
        writeln!(text, "# TYPE {name} unknown").unwrap();
        for step in 0..=241_u32 {
            let at = now - u64::from(241 - step) * 15;
            writeln!(text, "{name}{{{labels}}} {} {at}", first + growth * f64::from(step)).unwrap();
        }
    }
    let history = text + "# EOF\n";
    let prometheus = Prometheus::with_history(&stack.control_plane.folder, &history).await;
    let model = format!("{}/chat", models.name);
    let from = (now - 3600).to_string();
    let to = now.to_string();
    let args = [&model, "--prometheus-url", &prometheus.url, "--from", &from, "--to", &to, "-o", "json"];
    let (code, report, error) = backtest(&stack, &Identity::Admin, &args);
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["model"], &report["fidelity"]["equal"]), (&model.into(), &1.0.into()), "{report}");
    let names = report["runs"].as_array().unwrap().iter().map(|run| (&run["name"], &run["gpuHours"]));
    let expected = [(Value::from("actual"), Value::from(8.0)), ("now".into(), 8.0.into())];
    assert_eq!(names.map(|(name, hours)| (name.clone(), hours.clone())).collect::<Vec<_>>(), expected);
}
