//! The command `backtest`, with files of arrivals and histories, all without a cluster and without Prometheus.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rstest::rstest;
use serde_json::Value;

use super::docs::generated;

#[path = "../../core/examples/week/generator.rs"]
mod generator;

const WEEK: &str = "config/samples/week.csv";
const MODEL: &str = "config/samples/model-serving.yaml";

fn backtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kthena-keda")).arg("backtest").args(args).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Standard output of a command that succeeds.
fn done(args: &[&str]) -> String {
    let output = backtest(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// Runs a command that fails, and checks its exit code and its error.
fn fails(args: &[&str], code: i32, expected: &str) {
    let output = backtest(args);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(error.contains(expected) && error.trim().lines().count() < 8, "{args:?}: {error}");
}

/// A file for one test.
fn file(name: &str, content: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("backtest");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn the_sample_week_is_what_the_generator_makes() {
    assert!(fs::read_to_string(WEEK).unwrap() == generator::week(), "run the example `week`");
    assert!(fs::metadata(WEEK).unwrap().len() < 200_000);
}

#[test]
fn the_sample_week_as_a_table() {
    insta::assert_snapshot!(done(&["--load", WEEK]));
}

const COMPARED: [&str; 16] = [
    "--load",
    WEEK,
    "-f",
    MODEL,
    "--set",
    "target=8",
    "--set",
    "serviceTime=5s",
    "--set",
    "max=20",
    "--compare",
    "static",
    "--cold-start=90s",
    "--gpu-cost=2.5",
    "--gpus-per-group=8",
    "--slo=p95=5s",
];

#[test]
fn a_comparison_as_a_table() {
    insta::assert_snapshot!(done(&COMPARED));
}

#[test]
fn a_comparison_as_json() {
    let args = [COMPARED.as_slice(), &["-o", "json", "--explain", "136800"]].concat();
    let report: Value = serde_json::from_str(&done(&args)).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn a_comparison_as_csv() {
    let csv = done(&["--load", WEEK, "--compare=static=5", "-o", "csv"]);
    let mut lines = csv.lines();
    let header = "time,need,now_groups,now_ready,now_in_flight,now_waiting,static_5_groups,static_5_ready,static_5_in_flight,static_5_waiting";
    assert_eq!(lines.next(), Some(header));
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), 10_080);
    assert!(rows.iter().all(|row| row.split(',').count() == 10 && row.split(',').nth(6) == Some("5")));
}

/// Recorded loads beside the repository, where they are present.
#[test]
fn simulates_recorded_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/traces");
    if !folder.exists() {
        println!("skipped: {} does not exist", folder.display());
        return;
    }
    let mut names: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    assert!(names.len() > 5, "{names:?}");
    for path in names {
        let mut args = vec!["--load", path.to_str().unwrap(), "-o", "json", "--set", "max=100"];
        if path.to_str().unwrap().contains("2weeks") {
            // Many requests a second; a rate of 0 is a gap of the record.
            args.extend(["--load-column=m_mid_rps", "--capacity=4000", "--set", "target=3000"]);
        }
        let report: Value = serde_json::from_str(&done(&args)).unwrap();
        let runs = report["runs"].as_array().unwrap();
        let hours: Vec<f64> = runs.iter().map(|run| run["groupHours"].as_f64().unwrap()).collect();
        assert!(hours.iter().all(|hours| *hours > 0.1), "{}: {hours:?}", path.display());
    }
}

/// A day of a reasoning model. An independent simulation with single requests has measured 342.7 group-hours for a target
/// of 8, ten requests at once and a minute of loading; a fluid has fewer, since chance does not raise the number.
#[test]
fn a_real_day_costs_as_much_as_measured_elsewhere() {
    let day = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/traces/servegen-r1-day-15s.csv");
    if !day.exists() {
        println!("skipped: {} does not exist", day.display());
        return;
    }
    let day = day.to_str().unwrap();
    let args =
        ["--load", day, "--set=max=100", "--set=target=8", "--cold-start=60s", "--capacity=10", "-o", "json"];
    let hours = |more: &[&str]| {
        let report: Value = serde_json::from_str(&done(&[args.as_slice(), more].concat())).unwrap();
        report["runs"][1]["groupHours"].as_f64().unwrap()
    };
    let (in_flight, bounded) = (hours(&[]), hours(&["--set=serviceTime=26s"]));
    assert!((in_flight / 342.7 - 1.0).abs() < 0.06, "{in_flight}");
    assert!(bounded < in_flight * 1.001, "{bounded} {in_flight}");
}

#[rstest]
#[case::waiting("waiting>1%", 4, "error: --fail-if waiting>1%: it is ")]
#[case::peak("peak>=10", 4, "--fail-if peak>=10: it is 10 for now")]
#[case::no_costs("cost>1", 1, "pass --gpu-cost and --gpus-per-group")]
#[case::no_replay("equal<99%", 1, "no numbers of ServingGroups were recorded")]
fn a_condition_fails_the_command(#[case] condition: &str, #[case] code: i32, #[case] expected: &str) {
    fails(&["--load", WEEK, "--fail-if", condition], code, expected);
    let output = backtest(&["--load", WEEK, "--fail-if", condition]);
    assert!(text(&output.stdout).contains("group-h"), "the report is printed all the same");
}

#[test]
fn a_condition_that_does_not_hold_is_no_failure() {
    done(&["--load", WEEK, "--fail-if", "waiting>50%", "--fail-if", "peak>10"]);
}

#[rstest]
#[case::nothing(&[], "pass the NAMESPACE/NAME of a ModelServing, -f with its manifest, or a file with --load or --history")]
#[case::flag(&["--sice", "7d"], "unexpected argument '--sice'")]
#[case::since(&["a/b", "--since", "soon"], "expected a duration such as 90s")]
#[case::future(&["a/b", "-f", MODEL, "--from", "2100-01-01T00:00:00Z", "--to", "2100-01-02T00:00:00Z"], "the time is in the future")]
#[case::reversed(&["a/b", "-f", MODEL, "--from", "1700000000", "--to", "1600000000"], "--from is not before --to")]
#[case::both_starts(&["a/b", "--since", "7d", "--from", "1700000000"], "--since and --from both set the start")]
#[case::load_and_history(&["--load", WEEK, "--history", "x"], "--history has no effect with --load")]
#[case::load_and_time(&["--load", WEEK, "--since", "7d"], "--since has no effect with --load")]
#[case::load_and_save(&["--load", WEEK, "--save", "x"], "--save has no effect with --load")]
#[case::load_and_model(&["a/b", "--load", WEEK], "NAMESPACE/NAME without -f has no effect with --load")]
#[case::load_column(&["a/b", "--load-column", "x"], "required arguments were not provided")]
#[case::missing_load(&["--load", "no.csv"], "no.csv: No such file")]
#[case::missing_file(&["--load", WEEK, "-f", "no.yaml"], "no.yaml: No such file")]
#[case::set(&["--load", WEEK, "--set", "targt=3"], "the most similar one is target")]
#[case::set_value(&["--load", WEEK, "--set", "target=-3"], "invalid value in --set target=-3: expected a target from 0.001")]
#[case::set_bounds(&["--load", WEEK, "--set", "min=99"], "would write no ScaledObject for default/model")]
#[case::compare(&["--load", WEEK, "--compare", "static=0"], "expected static or static=N")]
#[case::slo(&["--load", WEEK, "--slo", "ttft=2s"], "such as p95=10s")]
#[case::check(&["--load", WEEK, "--fail-if", "slow"], "such as waiting>1%")]
#[case::explain(&["--load", WEEK, "--explain", "2026-01-01T00:00:00Z"], "is not within the data, which is from 1970-01-01T00:00:00Z to 1970-01-08T00:00:00Z")]
#[case::other_model(&["models/other", "-f", MODEL, "--load", WEEK], r#"the ModelServing "models/other" does not exist; correct the namespace and the name"#)]
#[case::profile(&["--load", WEEK, "--with-profile", MODEL], "expected one AutoscalingProfile, found 0")]
fn invalid_input_exits_with_1(#[case] args: &[&str], #[case] expected: &str) {
    fails(args, 1, expected);
}

#[rstest]
#[case::empty("", "empty.csv: there are no rows")]
#[case::unordered(
    "time,arrivals\n0,1\n60,1\n30,1\n",
    "line 4: time 30 follows 60, but rows are 60 s apart; sort the rows"
)]
#[case::duplicate("time,arrivals\n0,1\n60,1\n60,1\n", "remove duplicates")]
#[case::nan("time,arrivals\n0,NaN\n", r#"line 2: invalid value "NaN": expected a number >= 0"#)]
#[case::binary("\u{1b}[2J\n", "there is no column arrivals")]
fn invalid_arrivals_exit_with_1(#[case] content: &str, #[case] expected: &str) {
    let name = format!(
        "{}.csv",
        expected.split('.').next().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    );
    let name = if content.is_empty() { "empty.csv".to_owned() } else { name };
    fails(&["--load", file(&name, content).to_str().unwrap()], 1, expected);
}

/// A model that has not opted in, and one that the operator would not scale.
#[test]
fn a_model_without_a_scaled_object_is_invalid_input() {
    let manifest = fs::read_to_string(MODEL).unwrap();
    let not_opted_in =
        file("not-opted-in.yaml", &manifest.replace("kthena.io/model-name", "example.com/name"));
    fails(
        &["--load", WEEK, "-f", not_opted_in.to_str().unwrap()],
        1,
        "has the annotation kthena.io/model-name; set it to opt in",
    );
    let invalid = manifest.replace(
        "kthena.io/model-name: ",
        "autoscaling.kthena.io/max-replicas: none\n    kthena.io/model-name: ",
    );
    let invalid = file("invalid.yaml", &invalid);
    fails(
        &["--load", WEEK, "-f", invalid.to_str().unwrap()],
        1,
        "there is nothing to simulate: InvalidConfiguration: invalid value \"none\"",
    );
}

/// A model in shadow has no ScaledObject, and would have one: the way to look at a migration.
#[test]
fn a_model_in_shadow_is_simulated() {
    let manifest = fs::read_to_string(MODEL).unwrap();
    let shadow = manifest.replace(
        "kthena.io/model-name: ",
        "autoscaling.kthena.io/shadow: \"true\"\n    kthena.io/model-name: ",
    );
    let shadow = file("shadow.yaml", &shadow);
    let table = done(&["--load", WEEK, "-f", shadow.to_str().unwrap()]);
    assert_eq!(table, done(&["--load", WEEK, "-f", MODEL]));
}

#[test]
fn a_load_for_a_custom_signal_is_unfit() {
    let custom = "config/samples/autoscaling-profile-custom-signals.yaml";
    fails(
        &["--load", WEEK, "-f", MODEL, "--with-profile", custom],
        3,
        "do not follow from requests; set other signals with --set signals=...",
    );
}

#[test]
fn a_profile_can_be_tried() {
    let table = done(&["--load", WEEK, "--with-profile", "config/samples/autoscaling-profile-steps.yaml"]);
    assert!(table.contains("\nprofile autoscaling-profile-steps  "), "{table}");
}

/// A history of a day with a constant load, written by hand as the documentation describes it.
fn history(name: &str, change: impl Fn(String) -> String) -> PathBuf {
    let header = r#"{"apiVersion":"foresight.kthena.io/v1","kind":"History","namespace":"models","name":"chat","start":"2026-11-19T05:00:00Z","step":15,"steps":960,"replicasFrom":"kthena_keda_replicas","scaledObject":{"spec":{"scaleTargetRef":{},"pollingInterval":15,"minReplicaCount":1,"maxReplicaCount":10,"advanced":{"horizontalPodAutoscalerConfig":{"behavior":{"scaleUp":{"stabilizationWindowSeconds":0,"selectPolicy":"Max","policies":[{"type":"Pods","value":2,"periodSeconds":60}]},"scaleDown":{"stabilizationWindowSeconds":600,"selectPolicy":"Max","policies":[{"type":"Pods","value":1,"periodSeconds":120}]}}}},"triggers":[{"type":"prometheus","name":"active-requests","metricType":"AverageValue","metadata":{"query":"q","threshold":"10"}}]}}}"#;
    let mut lines = vec![header.to_owned()];
    for (series, value) in [
        ("trigger/active-requests", 36),
        ("in-flight", 36),
        ("arrivals", 6),
        ("replicas/spec", 4),
        ("replicas/ready", 4),
    ] {
        for hour in 0..4 {
            let values = vec![value.to_string(); 240].join(",");
            lines.push(format!(
                r#"{{"series":"{series}","at":"2026-11-19T0{}:00:00Z","values":[{values}]}}"#,
                5 + hour
            ));
        }
    }
    file(name, &change(lines.join("\n")))
}

#[test]
fn a_history_is_replayed_with_its_own_settings() {
    let history = history("plain.jsonl", |text| text);
    insta::assert_snapshot!(done(&["--history", history.to_str().unwrap(), "--set", "target=6"]));
}

/// A gap, values that are not numbers or negative, repeated and unordered lines: each has a defined result.
#[test]
fn a_damaged_history_is_replayed() {
    let history = history("damaged.jsonl", |text| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines[1..].reverse();
        let extra = r#"{"series":"trigger/active-requests","at":"2026-11-19T05:00:00Z","values":[35,-1]}
{"series":"in-flight","at":"2030-01-01T00:00:00Z","values":[1]}"#;
        let text = lines.join("\n");
        // A gap of an hour of the trigger, of 4 hours in total.
        let gap = text.find(r#"{"series":"trigger/active-requests","at":"2026-11-19T07:00:00Z""#).unwrap();
        let end = gap + text[gap..].find('\n').unwrap();
        format!("{}{}\n{extra}", &text[..gap], &text[end..])
    });
    let table = done(&["--history", history.to_str().unwrap()]);
    assert!(table.contains("25.0 % without data"), "{table}");
    assert!(
        table.contains(
            "replay of the settings in force   equal 100.0 % of steps, no difference longer than 0 s"
        ),
        "{table}"
    );
    assert!(
        table.contains("note: DataMissing: 25.0 % of the steps")
            && table.contains("note: DataInvalid: 1 values"),
        "{table}"
    );
}

#[rstest]
#[case::other_model(&["models/other", "-f", "other.yaml"], 1, "the history is of the model models/chat, not of models/other")]
#[case::other_query(&["models/chat", "-f", "chat.yaml"], 3, "the recorded values of the trigger active-requests are of another query")]
#[case::time(&["--since", "7d"], 1, "--since has no effect with --history")]
fn a_history_of_something_else_is_refused(#[case] args: &[&str], #[case] code: i32, #[case] expected: &str) {
    let name = format!("something-else-{code}-{}.jsonl", args.len());
    let history = history(&name, |text| text);
    let model = |name: &str| {
        let manifest = format!(
            "apiVersion: workload.serving.volcano.sh/v1alpha1\nkind: ModelServing\nmetadata: {{name: {name}, namespace: models, annotations: {{kthena.io/model-name: m}}}}\nspec: {{template: {{roles: [{{name: e}}]}}}}\n"
        );
        file(&format!("{code}-{name}.yaml"), &manifest)
    };
    let (other, chat) = (model("other"), model("chat"));
    let args = args.iter().map(|arg| match *arg {
        "other.yaml" => other.to_str().unwrap(),
        "chat.yaml" => chat.to_str().unwrap(),
        arg => arg,
    });
    let args: Vec<&str> = ["--history", history.to_str().unwrap()].into_iter().chain(args).collect();
    fails(&args, code, expected);
}

#[rstest]
#[case::empty(|_: String| String::new(), 1, "the file is empty; write one with --save")]
#[case::other_file(|_: String| "a,b\n1,2\n".to_owned(), 1, "line 1: not the first line of a history")]
#[case::version(|text: String| text.replace("io/v1", "io/v2"), 1, "use the release that wrote the file")]
#[case::infinite(|text: String| text.replace("36,36", "1e999,36"), 1, "line 2: number out of range")]
#[case::no_values(|text: String| text.lines().next().unwrap().to_owned(), 3, "100 % of the steps have no value of a trigger")]
#[case::settings(|text: String| text.replace("\"threshold\":\"10\"", "\"threshold\":\"x\""), 3, "the settings in the history are not usable")]
fn an_unusable_history_is_refused(
    #[case] change: fn(String) -> String,
    #[case] code: i32,
    #[case] expected: &str,
) {
    let name = format!("unusable-{}.jsonl", expected.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let history = history(&name, change);
    fails(&["--history", history.to_str().unwrap()], code, expected);
}

/// Numbers that no cluster has do not take time or memory.
#[test]
fn a_hostile_history_is_read_quickly() {
    let huge = history("huge.jsonl", |text| {
        text.replace("\"maxReplicaCount\":10", "\"maxReplicaCount\":2147483647")
            .replace("4,4,4", "4e9,1,4")
            .replace("36,36", "1e300,36")
    });
    let started = std::time::Instant::now();
    done(&["--history", huge.to_str().unwrap(), "--compare=static=100000", "--service-time=6s"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn an_unreachable_prometheus_exits_with_2() {
    let args = ["-f", MODEL, "--prometheus-url", "http://127.0.0.1:9", "--since", "1h"];
    fails(&args, 2, "Prometheus is not reachable");
    fails(
        &["-f", MODEL, "--since", "1h"],
        1,
        "the address of Prometheus is not known; pass --prometheus-url",
    );
}

/// Examples of the documentation and their output; `make docs` writes it.
#[test]
fn the_documentation_shows_the_output() {
    let page = "docs/backtest.md";
    let text = fs::read_to_string(page).unwrap();
    let commands: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("<!-- output: ")?.strip_suffix(" -->")).collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        assert!(text.contains(&format!("```console\n{command}\n```")), "{command} is not shown");
        let args: Vec<&str> = command.strip_prefix("kthena-keda backtest ").unwrap().split(' ').collect();
        let rows = format!("```text\n{}\n```", done(&args).trim_end());
        generated(page, &format!("<!-- output: {command} -->\n"), &[rows]);
    }
}

/// Every command of the documentation that needs neither a cluster nor a file of the reader runs.
#[test]
fn the_commands_of_the_documentation_run() {
    let mut found = 0;
    for page in ["docs/backtest.md", "README.md"] {
        let text = fs::read_to_string(page).unwrap();
        let commands = text.lines().map(|line| line.trim().replace("cargo run -- ", "kthena-keda "));
        for command in commands.filter(|line| line.starts_with("kthena-keda backtest --load")) {
            let args = command.replace('\'', "");
            let args: Vec<&str> = args.split(' ').skip(2).collect();
            let output = backtest(&args);
            // A condition of an example may hold.
            assert!([Some(0), Some(4)].contains(&output.status.code()), "{command}: {}", text_of(&output));
            found += 1;
        }
    }
    assert!(found >= 4, "{found}");
}

fn text_of(output: &Output) -> &str {
    text(&output.stderr)
}
