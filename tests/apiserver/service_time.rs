//! The service time that the operator measures itself, in a day of history.

use std::{path::Path, process::Command};

use harness::{Crds, Identity, ModelServing, Settings, Stack, neighbours::Prometheus, past_requests};
use serde_json::Value;

use super::shared::BINARY;

pub(super) const KEY: &str = "autoscaling.kthena.io/measured-service-time";

fn queries(scaled_object: &Value) -> String {
    scaled_object["spec"]["triggers"].to_string()
}

#[tokio::test]
async fn measures_the_service_time_once_and_writes_nothing_after_a_restart() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    let history = past_requests(&models.name, &["measured", "fixed", "wrong", "off"], 15);
    let prometheus = Prometheus::with_history(&stack.control_plane.folder, &history).await;
    let settings = Settings::new(BINARY).without("--prometheus-url");
    let settings = settings.with(&format!("--prometheus-url={}", prometheus.url));
    let operator = stack.start_operator(&settings);
    let create = async |name: &str, setting: &str| {
        let builder = models.model_serving(name).opted_in(name);
        builder.annotated("autoscaling.kthena.io/service-time", setting).create().await
    };
    let (measured, fixed) = (create("measured", "auto").await, create("fixed", "4900ms").await);
    let (wrong, off) = (create("wrong", "2s").await, create("off", "off").await);
    let found = measured.scaled_object_until("has a measured service time", |found| {
        found.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(KEY))
    });
    let found = found.await;
    assert_eq!(found.metadata.annotations.as_ref().unwrap()[KEY], "4900ms");
    let as_fixed = queries(&fixed.scaled_object().await.data).replace("fixed", "measured");
    assert_eq!(queries(&found.data), as_fixed, "the query is that of the same time in an annotation");
    let explained = |model: &ModelServing| {
        let admin = stack.control_plane.kubeconfig(&Identity::Admin);
        let model = format!("{}/{}", model.namespace.name, model.name);
        let prometheus = format!("--prometheus-url={}", prometheus.url);
        harness::explain(Path::new(BINARY), &admin, &[&model, &prometheus]).0.unwrap()
    };
    let warnings = explained(&wrong)["warnings"].to_string();
    assert!(warnings.contains("requests of the last day took 4900ms without waiting"), "{warnings}");
    assert!(!queries(&off.scaled_object().await.data).contains("requests_total"));

    assert!(operator.terminate(), "the operator exits with 0 on SIGTERM");
    // Only the operator adopts a time, so for explain nothing differs although it could measure one.
    off.annotate(&[("autoscaling.kthena.io/service-time", Some("auto"))]).await;
    let report = explained(&off);
    assert!(!report["warnings"].to_string().contains("differs"), "{report}");
    assert_eq!(report["signals"][0]["serviceTimeWindows"], 288.0, "{report}");
    let before = stack.writes().len();
    // It has no history any more.
    drop(prometheus);
    let _operator = stack.start_operator(&settings);
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    let writes: Vec<_> = stack.writes().split_off(before);
    let of_models = writes.iter().filter(|write| write.object_ref.name != "sentinel");
    assert_eq!(of_models.count(), 0, "{:?}", harness::audit::summary(&writes));
    assert_eq!(measured.scaled_object().await.metadata.resource_version, found.metadata.resource_version);
}

fn run(stack: &Stack, arguments: &[&str]) -> Value {
    let mut command = Command::new(BINARY);
    command.args(arguments).args(["-o", "json"]);
    let output =
        command.env("KUBECONFIG", stack.control_plane.kubeconfig(&Identity::Admin)).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every request took as long, with three in flight at all times: no load was too much.
#[tokio::test]
async fn recommend_and_cost_read_the_history() {
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let models = stack.namespace().await;
    let prometheus =
        Prometheus::with_history(&stack.control_plane.folder, &past_requests(&models.name, &["chat"], 15))
            .await;
    models.model_serving("chat").opted_in("chat").create().await;
    let (model, url) = (format!("{}/chat", models.name), format!("--prometheus-url={}", prometheus.url));
    let report = run(&stack, &["recommend", &model, "--since=25h", "--step=60s", &url]);
    let backtest = &report["backtest"];
    assert_eq!(
        (&backtest["fidelity"]["equal"], &backtest["assumptions"]["serviceTime"]),
        (&1.0.into(), &4.9.into())
    );
    let value = |name: &str| {
        let values = report["values"].as_array().unwrap();
        let found = values.iter().find(|value| value["name"] == name).unwrap();
        (found["evident"].clone(), found["confidence"].clone())
    };
    assert_eq!(value("serviceTime"), ("4900ms".into(), "low".into()), "a day is little evidence");
    assert_eq!(value("capacity"), ("at least 3".into(), "low".into()));
    assert_eq!(value("target"), (Value::Null, Value::Null), "the target stays");
    let costs = run(&stack, &["cost", &model, "--since=25h", "--gpus-per-group=8", &url]);
    let elsewhere = stack.namespace().await;
    elsewhere.model_serving("chat").opted_in("other").create().await;
    let of_all = |scope: &[&str]| {
        let arguments = [&["cost", "--since=25h", "--gpus-per-group=8", &url], scope].concat();
        let namespaces = run(&stack, &arguments)["models"].as_array().unwrap().clone();
        namespaces.iter().map(|model| model["namespace"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of_all(&["-n", &models.name]), [models.name.as_str()], "one namespace alone");
    assert_eq!(of_all(&["-A"]), [models.name.clone(), elsewhere.name.clone()]);
    let cost = &costs["models"][0];
    assert_eq!(
        (&cost["actual"], &cost["now"], &cost["gpusPerGroup"]),
        (&25.0.into(), &25.0.into(), &8.into())
    );
}
