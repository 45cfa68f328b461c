//! The command `cost` with histories, without a cluster and without Prometheus.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rstest::rstest;
use serde_json::Value;

fn cost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kthena-keda")).arg("cost").args(args).env_clear().output().unwrap()
}

fn done(args: &[&str]) -> String {
    let output = cost(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Four hours with 36 requests in flight, and a number of ServingGroups unless it is 0.
fn history(file: &str, name: &str, groups: u32) -> String {
    let header = r#"{"apiVersion":"foresight.kthena.io/v1","kind":"History","namespace":"models","name":"NAME","start":"2026-11-19T05:00:00Z","step":15,"steps":960,"scaledObject":{"spec":{"scaleTargetRef":{},"pollingInterval":15,"minReplicaCount":1,"maxReplicaCount":10,"advanced":{"horizontalPodAutoscalerConfig":{"behavior":{"scaleUp":{"stabilizationWindowSeconds":0,"selectPolicy":"Max","policies":[{"type":"Pods","value":2,"periodSeconds":60}]},"scaleDown":{"stabilizationWindowSeconds":600,"selectPolicy":"Max","policies":[{"type":"Pods","value":1,"periodSeconds":120}]}}}},"triggers":[{"type":"prometheus","name":"active-requests","metricType":"AverageValue","metadata":{"query":"q","threshold":"10"}}]}}}"#;
    let mut lines = vec![header.replace("NAME", name)];
    let series =
        [("trigger/active-requests", 36), ("in-flight", 36), ("arrivals", 6), ("replicas/spec", groups)];
    for (series, value) in series.into_iter().filter(|(_, value)| *value > 0) {
        for hour in 0..4 {
            let values = vec![value.to_string(); 240].join(",");
            let at = format!("2026-11-19T0{}:00:00Z", 5 + hour);
            lines.push(format!(r#"{{"series":"{series}","at":"{at}","values":[{values}]}}"#));
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cost");
    fs::create_dir_all(&folder).unwrap();
    let path: PathBuf = folder.join(file);
    fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn costs_of_histories() {
    let (chat, other) = (history("chat.jsonl", "chat", 6), history("other.jsonl", "other", 0));
    let args =
        ["--history", &chat, "--history", &other, "--gpus-per-group=8", "--gpu-cost=2.5", "--recommend"];
    insta::assert_snapshot!(done(&args));
    let csv = done(&["--history", &chat, "-o", "csv"]);
    assert!(csv.ends_with("\nmodels,chat,4,,24,16.37,24,\n"), "{csv}");
    let json: Value = serde_json::from_str(&done(&["--history", &other, "-o", "json"])).unwrap();
    assert_eq!((&json["kind"], &json["models"][0]["actual"]), (&"Cost".into(), &Value::Null));
}

/// The period of the syncs and the objective are those of the flags.
#[test]
fn flags_set_the_period_and_the_objective() {
    let chat = history("periods.jsonl", "chat", 6);
    let now = |args: &[&str]| {
        let json: Value =
            serde_json::from_str(&done(&[&["--history", &chat, "-o", "json"], args].concat())).unwrap();
        json["models"][0].clone()
    };
    // The first ServingGroup more comes with the second sync.
    let (usual, slow) = (now(&[]), now(&["--hpa-sync-period=300"]));
    assert_ne!(slow["now"], usual["now"]);
    let slo = now(&["--recommend", "--slo=ttft=2s"]);
    assert!(slo["unknown"][0].as_str().unwrap().contains("ttft/p95"), "{slo}");
}

#[rstest]
#[case::nothing(&[], "pass the NAMESPACE/NAME of a ModelServing, -n NAMESPACE, -A, or files with --history")]
#[case::all_and_one(&["-A", "models/chat"], "cannot be used with")]
#[case::slo(&["--history", "no.jsonl", "--slo=p95=30s"], "required arguments were not provided")]
#[case::file(&["--history", "no.jsonl"], "no.jsonl: No such file")]
fn invalid_input_exits_with_1(#[case] args: &[&str], #[case] expected: &str) {
    let output = cost(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(expected), "{error}");
}

/// A history in which nothing is known.
#[test]
fn no_known_costs_exit_with_3() {
    let path = history("empty.jsonl", "chat", 0);
    let first = fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    fs::write(&path, first).unwrap();
    let output = cost(&["--history", &path]);
    let (table, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert_eq!(error, "error: the costs of no model are known; see the reasons above\n");
    for reason in
        ["the number of ServingGroups is not recorded", "100 % of the steps have no value of a trigger"]
    {
        assert!(table.contains(reason), "{table}");
    }
}
