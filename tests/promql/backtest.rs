//! The command `backtest` on a real Prometheus, whose history is that of a simulated model.
//!
//! The simulation of two days gives the requests in flight and the ServingGroups of each step. Prometheus gets them as the series of the
//! router and of the operator, so a backtest has to find the settings that made them.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command, time::SystemTime};

use harness::{control_plane::built, neighbours::Prometheus, web};
use serde_json::Value;

const MODEL: &str = "config/samples/model-serving.yaml";
/// Steps of 15 s: 30 hours, which are two chunks.
const STEPS: u32 = 30 * 240;
const STEP: u32 = 15;

/// Runs `backtest` for the sample model; returns exit code, standard output and standard error.
fn backtest(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kthena-keda"))
        .args(["backtest"])
        .args(args)
        .env_clear()
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn folder(name: &str) -> PathBuf {
    let folder = built().join("promql/backtest").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Requests in flight and ServingGroups of each step, with the built-in settings.
fn simulated(folder: &std::path::Path) -> Vec<[f64; 2]> {
    let mut load = String::from("time,arrivals,service_time\n");
    for step in 0..STEPS {
        let hour = f64::from(step) / 240.0;
        let rate = 6.0 - 4.0 * (hour / 24.0 * std::f64::consts::TAU).cos();
        let _ = writeln!(load, "{},{},6", step * STEP, rate * f64::from(STEP));
    }
    let file = folder.join("load.csv");
    fs::write(&file, load).unwrap();
    let (code, csv, error) =
        backtest(&["-f", MODEL, "--load", file.to_str().unwrap(), "-o", "csv", "--cold-start", "60s"]);
    assert_eq!(code, Some(0), "{error}");
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
        [cells[4], cells[2]]
    };
    csv.lines().skip(1).map(row).collect()
}

/// Start of the history in seconds since 1970: some days ago, at a multiple of a step.
fn start() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    (now - 4 * 86_400) / 3600 * 3600
}

/// The series of the router and of the operator, in the text format of `OpenMetrics`.
fn open_metrics(rows: &[[f64; 2]], start: u64) -> String {
    let target = r#"namespace="kthena-system",service="kthena-router",job="kthena-router",pod="r-0",instance="10.0.0.1:8080""#;
    let mut text = String::new();
    let mut write = |name: &str, labels: &str, value: &mut dyn FnMut(usize, &[f64; 2]) -> f64| {
        let _ = writeln!(text, "# TYPE {name} unknown");
        for (step, row) in rows.iter().enumerate() {
            let at = start + step as u64 * u64::from(STEP);
            let _ = writeln!(text, "{name}{{{labels}}} {} {at}", value(step, row));
        }
    };
    let model = format!(r#"{target},model="llama-3""#);
    write("kthena_router_active_downstream_requests", &model, &mut |_, row| row[0]);
    write("kthena_router_active_requests", target, &mut |_, row| row[0]);
    // Requests that arrived and are no longer in flight.
    let mut arrived = 1000.0;
    let mut arrivals = |step: usize| {
        let hour = f64::from(u32::try_from(step).unwrap()) / 240.0;
        arrived += (6.0 - 4.0 * (hour / 24.0 * std::f64::consts::TAU).cos()) * f64::from(STEP);
        arrived
    };
    let counter = format!(r#"{model},path="/v1/chat/completions",status_code="200""#);
    write("kthena_router_requests_total", &counter, &mut |step, row| arrivals(step) - row[0]);
    write("up", target, &mut |_, _| 1.0);
    let mut lines = String::from("# TYPE kthena_keda_replicas unknown\n");
    for state in ["spec", "total", "ready"] {
        for (step, row) in rows.iter().enumerate() {
            let at = start + step as u64 * u64::from(STEP);
            let labels = format!(r#"namespace="default",model_serving="chat",state="{state}""#);
            let _ = writeln!(lines, "kthena_keda_replicas{{{labels}}} {} {at}", row[1]);
        }
    }
    format!("{text}{lines}# EOF\n")
}

#[tokio::test]
async fn finds_the_settings_that_made_the_history() {
    let folder = folder("whole");
    let rows = simulated(&folder);
    let start = start();
    // Too few samples for a day at once, so that Prometheus refuses whole chunks.
    let limit = "--query.max-samples=5000";
    let prometheus = Prometheus::with_history_and(&folder, &open_metrics(&rows, start), &[limit]).await;
    let end = start + u64::from(STEPS * STEP);
    let all = format!(
        "{}/api/v1/query_range?query=rate(kthena_router_requests_total%5B2m%5D)&start={start}&end={end}&step=15",
        prometheus.url
    );
    let (status, error) = web::get(&all).await.unwrap();
    assert!(status == 422 && error.contains("too many samples"), "{status}");

    let (from, to) = (start.to_string(), end.to_string());
    let save = folder.join("saved.jsonl");
    let time = ["-f", MODEL, "--prometheus-url", &prometheus.url, "--from", &from, "--to", &to];
    let assumed = ["-o", "json", "--cold-start", "60s", "--set", "target=8"];
    let args = [time.as_slice(), &assumed, &["--save", save.to_str().unwrap()]].concat();
    let (code, json, error) = backtest(&args);
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["data"]["steps"], report["window"]["step"].as_u64()), (&STEPS.into(), Some(15)));
    assert!(report["data"]["missing"].as_f64().unwrap() < 0.001, "{}", report["data"]);
    let fidelity = &report["fidelity"];
    assert!(fidelity["equal"].as_f64().unwrap() > 0.995, "{fidelity}");
    assert!(fidelity["maxDifference"].as_u64().unwrap() <= 1, "{fidelity}");
    let names: Vec<&str> =
        report["runs"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["actual", "now", "target=8"]);
    let hours = |run: usize| report["runs"][run]["groupHours"].as_f64().unwrap();
    assert!((hours(1) / hours(0) - 1.0).abs() < 0.01 && hours(2) > hours(1) * 1.1, "{}", report["runs"]);

    let saved = fs::read_to_string(&save).unwrap();
    assert!(!saved.contains(&prometheus.url), "no address");
    let args = ["--history", save.to_str().unwrap(), "-f", MODEL];
    let (code, again, error) = backtest(&[args.as_slice(), &assumed].concat());
    assert_eq!((code, again), (Some(0), json), "{error}");
}

#[tokio::test]
async fn refuses_what_the_store_does_not_have() {
    let folder = folder("refused");
    let rows: Vec<[f64; 2]> = simulated(&folder).into_iter().take(480).collect();
    let start = start();
    let series = open_metrics(&rows, start);
    let prometheus = Prometheus::with_history(&folder, &series).await;
    let fails = |args: &[&str], expected: (i32, &str)| {
        let common = ["-f", MODEL, "--prometheus-url", &prometheus.url];
        let (code, _, error) = backtest(&[common.as_slice(), args].concat());
        assert!(code == Some(expected.0) && error.contains(expected.1), "{args:?}: {code:?} {error}");
    };
    let at = |seconds: u64| (start + seconds).to_string();
    let (from, to, late) = (at(0), at(7200), at(6 * 3600));
    fails(
        &["--from", &from, "--to", &late],
        (3, "% of the steps have no value of a trigger, and at most 30 % may"),
    );
    let none = at(36 * 3600);
    let end = at(37 * 3600);
    fails(&["--from", &none, "--to", &end], (3, "100 % of the steps have no value of a trigger"));

    // One sample in five minutes, as a downsampled store has them.
    let is_kept = |line: &&str| {
        let time = line.rsplit(' ').next().and_then(|time| time.parse::<u64>().ok());
        time.is_none_or(|time| time % 300 == 0)
    };
    let few: Vec<&str> = series.lines().filter(is_kept).collect();
    let folder = self::folder("downsampled");
    let prometheus = Prometheus::with_history(&folder, &(few.join("\n") + "\n")).await;
    let step = ["--from", &from, "--to", &to, "--step", "15s"];
    let (code, _, error) =
        backtest(&[["-f", MODEL, "--prometheus-url", &prometheus.url].as_slice(), &step].concat());
    let expected =
        "the store has one sample in 300 s, which is too coarse for steps of 15 s; pass --step 300s";
    assert!(code == Some(3) && error.contains(expected), "{code:?} {error}");
}

/// A query between two scrapes has the value that KEDA got.
#[tokio::test]
async fn steps_may_be_shorter_than_the_interval_of_scrapes() {
    let folder = folder("seconds");
    let rows: Vec<[f64; 2]> = simulated(&folder).into_iter().take(240).collect();
    let start = start();
    let prometheus = Prometheus::with_history(&folder, &open_metrics(&rows, start)).await;
    let (from, to) = ((start + 600).to_string(), (start + 3600).to_string());
    let time = ["--from", &from, "--to", &to, "--step", "1s", "-o", "json"];
    let (code, json, error) =
        backtest(&[["-f", MODEL, "--prometheus-url", &prometheus.url].as_slice(), &time].concat());
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["data"]["steps"], 3000);
}

/// A server that is no Prometheus, and an address without a server.
#[tokio::test]
async fn tells_a_missing_prometheus_from_one_that_refuses() {
    let folder = folder("nowhere");
    let prometheus = Prometheus::bare(&folder).await;
    let url = format!("{}/nowhere", prometheus.url);
    let (code, _, error) = backtest(&["-f", MODEL, "--prometheus-url", &url, "--since", "1h"]);
    assert!(
        code == Some(2) && error.contains("Prometheus is not reachable: the response has HTTP status 404"),
        "{error}"
    );
    let (code, _, error) = backtest(&["-f", MODEL, "--prometheus-url", &prometheus.url, "--since", "1h"]);
    assert!(code == Some(3) && error.contains("100 % of the steps have no value"), "{error}");
}

/// Sixteen names with adapters make queries that are too long for an address.
#[tokio::test]
async fn long_queries_are_sent_in_the_body() {
    let folder = folder("long");
    let rows: Vec<[f64; 2]> = simulated(&folder).into_iter().take(240).collect();
    let start = start();
    let prometheus = Prometheus::with_history(&folder, &open_metrics(&rows, start)).await;
    let names: Vec<String> = (0..15).map(|name| format!("adapter-{name}-{}", "x".repeat(60))).collect();
    let names = format!("llama-3,{}", names.join(","));
    let manifest = fs::read_to_string(MODEL).unwrap();
    let long = manifest.replace("kthena.io/model-name: llama-3", &format!("kthena.io/model-name: {names}"));
    assert_ne!(long, manifest);
    let model = folder.join("model.yaml");
    fs::write(&model, long).unwrap();
    let (from, to) = ((start + 600).to_string(), (start + 3600).to_string());
    let time = ["--from", &from, "--to", &to, "-o", "json"];
    let target = ["-f", model.to_str().unwrap(), "--prometheus-url", &prometheus.url];
    let (code, json, error) = backtest(&[target.as_slice(), &time].concat());
    assert_eq!(code, Some(0), "{error}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert!(report["data"]["missing"].as_f64().unwrap() < 0.01, "{}", report["data"]);
}

/// The arrivals of a record are those of each step, although their query looks back.
#[tokio::test]
async fn arrivals_are_recorded_at_their_time() {
    let folder = folder("arrivals");
    let start = start();
    let target = r#"namespace="kthena-system",service="kthena-router",job="kthena-router",pod="r-0",instance="10.0.0.1:8080""#;
    let mut text = String::new();
    let mut family = |name: &str, labels: &str, value: &dyn Fn(u64) -> u64| {
        let _ = writeln!(text, "# TYPE {name} unknown");
        for scrape in 0..240 {
            let _ = writeln!(text, "{name}{{{labels}}} {} {}", value(scrape), start + scrape * 15);
        }
    };
    let model = format!(r#"{target},model="llama-3""#);
    family("kthena_router_active_downstream_requests", &model, &|_| 2);
    family("kthena_router_active_requests", target, &|_| 2);
    family("up", target, &|_| 1);
    let counter = format!(r#"{model},path="/v1/chat/completions",status_code="200""#);
    // Four a second from the middle on.
    family("kthena_router_requests_total", &counter, &|scrape| 100 + 60 * scrape.saturating_sub(120));
    text += "# EOF\n";
    let prometheus = Prometheus::with_history(&folder, &text).await;
    let save = folder.join("saved.jsonl");
    let (from, to) = ((start + 1500).to_string(), (start + 2100).to_string());
    let time = ["--from", &from, "--to", &to, "--step=1s", "--save", save.to_str().unwrap()];
    let (code, _, error) =
        backtest(&[["-f", MODEL, "--prometheus-url", &prometheus.url].as_slice(), &time].concat());
    assert_eq!(code, Some(0), "{error}");
    let saved = fs::read_to_string(&save).unwrap();
    let lines = saved.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rates: Vec<f64> = lines
        .filter(|line| line["series"] == "arrivals")
        .flat_map(|line| line["values"].as_array().unwrap().clone())
        .map(|value| value.as_f64().unwrap())
        .collect();
    let half = rates.iter().position(|rate| *rate >= 2.0).unwrap();
    assert!(half.abs_diff(300) <= 10, "half of the step after {half} s instead of 300");
}
