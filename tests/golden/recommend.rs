//! The command `recommend`, with files of arrivals and histories, all without a cluster and without Prometheus.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rstest::rstest;
use serde_json::Value;

use super::docs::generated;

const WEEK: &str = "config/samples/week.csv";
const MODEL: &str = "config/samples/model-serving.yaml";

fn run(command: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kthena-keda")).arg(command).args(args).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Standard output of a command that succeeds.
fn done(command: &str, args: &[&str]) -> String {
    let output = run(command, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn fails(args: &[&str], code: i32, expected: &[&str]) {
    let output = run("recommend", args);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(expected.iter().all(|expected| error.contains(expected)), "{args:?}: {error}");
}

fn file(name: &str, content: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recommend");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Twenty-six hours in rows of five minutes, with many requests in every fourth hour.
fn hours(name: &str) -> PathBuf {
    let row =
        |row: usize| format!("{},{},6\n", row * 300, if (row / 12).is_multiple_of(4) { 2700 } else { 300 });
    let rows: String = (0..26 * 12).map(row).collect();
    file(name, &format!("time,arrivals,service_time\n{rows}"))
}

#[test]
fn a_recommendation_as_json() {
    let load = hours("json.csv");
    let args = ["--load", load.to_str().unwrap(), "--capacity=11", "--cold-start=60s", "-o", "json"];
    let report: Value = serde_json::from_str(&done("recommend", &args)).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

/// The lines to paste lead to the settings that were simulated.
#[test]
fn the_profile_has_the_recommended_settings() {
    let load = hours("profile.csv");
    let base = ["--load", load.to_str().unwrap(), "--cold-start=60s"];
    let args = [base.as_slice(), &["--capacity=11", "--apply-as=profile"]].concat();
    let output = done("recommend", &args);
    let profile = &output[output.find("apiVersion: ").unwrap()..];
    let profile = file("profile.yaml", profile);
    let row = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
        line.trim_start_matches(name).trim().to_owned()
    };
    let args = [base.as_slice(), &["--capacity=11", "--with-profile", profile.to_str().unwrap()]].concat();
    let backtest = done("backtest", &args);
    assert_eq!(row(&backtest, "profile profile "), row(&output, "recommended "), "{output}{backtest}");
}

#[rstest]
#[case::annotations(
    "annotations",
    "kubectl annotate modelserving model -n default --overwrite \\\n  autoscaling.kthena.io/"
)]
#[case::patch("patch", r#"kubectl patch modelserving model -n default --type merge -p '{"metadata":{"annotations":{"autoscaling.kthena.io/"#)]
fn lines_to_paste(#[case] apply: &str, #[case] expected: &str) {
    let load = hours(&format!("{apply}.csv"));
    let args = ["--load", load.to_str().unwrap(), "--capacity=20", "--cold-start=60s", "--apply-as", apply];
    let output = done("recommend", &args);
    assert!(output.contains(expected), "{output}");
    assert!(output.contains("\nkind: AutoscalingProfile\n"), "{output}");
}

#[rstest]
#[case::nothing(&[], "pass the NAMESPACE/NAME of a ModelServing")]
#[case::flag(&["--sice", "7d"], "unexpected argument '--sice'")]
#[case::slo(&["--load", WEEK, "--slo", "fast"], "such as p95=30s, or a time to the first token, such as ttft=2s")]
#[case::both(&["--load", WEEK, "--history", "x"], "--history has no effect with --load")]
#[case::no_address(&["-f", MODEL, "--since", "1h"], "the address of Prometheus is not known; pass --prometheus-url")]
fn invalid_input_exits_with_1(#[case] args: &[&str], #[case] expected: &str) {
    fails(args, 1, &[expected]);
}

#[test]
fn an_unreachable_prometheus_exits_with_2() {
    let args = ["-f", MODEL, "--prometheus-url", "http://127.0.0.1:9", "--since", "1h"];
    fails(&args, 2, &["Prometheus is not reachable"]);
}

/// Every reason is printed.
#[test]
fn thin_data_exits_with_3() {
    let short = file("short.csv", "time,arrivals,service_time\n0,100,6\n300,100,6\n");
    let expected =
        ["requests were recorded in 0.2 hours, and 24 are needed", "a file of arrivals has no durations"];
    fails(&["--load", short.to_str().unwrap()], 3, &expected);
    let args = ["--load", WEEK, "--slo", "p95=4s"];
    fails(&args, 3, &["the objective p95=4s leaves no time to wait", "choose a longer --slo"]);
}

/// Two hours with 36 requests in flight on four ServingGroups, which is too short.
fn two_hours(name: &str) -> PathBuf {
    let header = r#"{"apiVersion":"foresight.kthena.io/v1","kind":"History","namespace":"models","name":"chat","start":"2026-11-19T05:00:00Z","step":15,"steps":480,"scaledObject":{"spec":{"scaleTargetRef":{},"pollingInterval":15,"minReplicaCount":1,"maxReplicaCount":10,"advanced":{"horizontalPodAutoscalerConfig":{"behavior":{"scaleUp":{"stabilizationWindowSeconds":0,"selectPolicy":"Max","policies":[{"type":"Pods","value":2,"periodSeconds":60}]},"scaleDown":{"stabilizationWindowSeconds":600,"selectPolicy":"Max","policies":[{"type":"Pods","value":1,"periodSeconds":120}]}}}},"triggers":[{"type":"prometheus","name":"active-requests","metricType":"AverageValue","metadata":{"query":"q","threshold":"10"}}]}}}"#;
    let series = [
        ("trigger/active-requests", "36"),
        ("in-flight", "36"),
        ("arrivals", "6"),
        ("replicas/spec", "4"),
        ("replicas/ready", "4"),
        ("duration/p95", "8"),
    ];
    let line = |(series, value): (&str, &str)| {
        let values = vec![value; 480].join(",");
        format!("\n{{\"series\":\"{series}\",\"at\":\"2026-11-19T05:00:00Z\",\"values\":[{values}]}}")
    };
    file(name, &(header.to_owned() + &series.map(line).concat()))
}

/// A refusal has what is known so far, and its exit code stays.
#[test]
fn a_refusal_prints_what_is_known() {
    let history = two_hours("two-hours.jsonl");
    let args = ["--history", history.to_str().unwrap()];
    fails(&args, 3, &["requests were recorded in 2.0 hours, and 24 are needed"]);
    let output = run("recommend", &args);
    insta::assert_snapshot!(text(&output.stdout));
    let output = run("recommend", &[args.as_slice(), &["-o", "json", "--capacity=12"]].concat());
    let json: Value = serde_json::from_str(text(&output.stdout)).unwrap();
    assert_eq!((output.status.code(), &json["kind"]), (Some(3), &"Recommendation".into()));
    assert_eq!(json["refused"].as_array().unwrap().len(), 1);
    let target = json["known"].as_array().unwrap().iter().find(|known| known["name"] == "target").unwrap();
    assert_eq!(target["value"], "9.6");
}

/// Examples of the documentation and their output; `make docs` writes it.
#[test]
fn the_documentation_shows_the_output() {
    let page = "docs/recommend.md";
    let text = fs::read_to_string(page).unwrap();
    let commands: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("<!-- output: ")?.strip_suffix(" -->")).collect();
    assert_eq!(commands.len(), 1);
    for command in commands {
        assert!(text.contains(&format!("```console\n{command}\n```")), "{command} is not shown");
        let args: Vec<&str> = command.strip_prefix("kthena-keda recommend ").unwrap().split(' ').collect();
        let rows = format!("```text\n{}\n```", done("recommend", &args).trim_end());
        generated(page, &format!("<!-- output: {command} -->\n"), &[rows]);
    }
}
