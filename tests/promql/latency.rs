//! The latency signals: `ready ServingGroups * min(2, P90 / objective)`.
//!
//! Unless a case says otherwise, four ServingGroups are ready, the objective is 2 s to the first token, and a scrape is every 15 s, so that
//! the window has samples 17 to 20.

use std::{env, fs, path::PathBuf};

use kthena_keda_core::{
    domain::{Objective, ScrapeInterval, SeriesMatchers},
    signals::{Engine, EngineSeries, Latency, LatencySignal, RouterSeries},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{AT, engine, evaluate, from, idle, of_engine, router, service, with};

const TTFT: &str = "vllm:time_to_first_token_seconds";
const VLLM: &str = r#"model_name="m",engine="0""#;

/// Bounds of the buckets, in seconds.
const BOUNDS: [f64; 7] = [0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0];

fn signal_of(
    engine: Engine,
    objective: &str,
    interval: &str,
    at_zero: Option<RouterSeries>,
) -> LatencySignal {
    let (latency, objective) = match objective.split_once('=').unwrap() {
        ("ttft-p90", objective) => (Latency::FirstToken, objective),
        (_, objective) => (Latency::InterToken, objective),
    };
    let series = EngineSeries {
        engine,
        namespace: "team-a".to_owned(),
        model_serving: "chat".to_owned(),
        role: None,
        matchers: SeriesMatchers::default(),
        at_zero,
    };
    let interval: ScrapeInterval = interval.parse().unwrap();
    LatencySignal::of(&series, Objective::parse(latency, objective).unwrap(), interval)
}

fn total(engine: Engine, objective: &str) -> String {
    signal_of(engine, objective, "15s", None).total.to_string()
}

fn check(name: &str, series: &[Value], expected: Option<f64>) {
    evaluate(name, series, &total(Engine::Vllm, "ttft-p90=2s"), AT, expected);
}

/// Buckets of a histogram, each with these values for its share of ten observations. Nine of ten take `p90` seconds.
fn histogram(
    metric: &str,
    group: u32,
    pod: u32,
    labels: &str,
    p90: f64,
    values: impl Fn(u32) -> String,
) -> Vec<Value> {
    let share = |bound: f64| match bound {
        bound if bound < p90 => 0,
        bound if bound > p90 => 10,
        _ => 9,
    };
    let buckets = BOUNDS.iter().map(|bound| (bound.to_string(), share(*bound)));
    buckets
        .chain([("+Inf".to_owned(), 10)])
        .map(|(bound, share)| {
            engine(
                &format!("{metric}_bucket"),
                group,
                pod,
                &format!(r#"{labels},le="{bound}""#),
                &values(share),
            )
        })
        .collect()
}

/// Observations between all scrapes.
fn steady(share: u32) -> String {
    format!("0+{share}x40")
}

/// No observation since long.
fn constant(share: u32) -> String {
    format!("{share}x40")
}

fn up(group: u32, pod: u32, values: &str) -> Value {
    engine("up", group, pod, r#"a="b""#, values)
}

fn gauges(group: u32, running: &str, waiting: &str) -> [Value; 2] {
    [
        engine("vllm:num_requests_running", group, 0, VLLM, running),
        engine("vllm:num_requests_waiting", group, 0, VLLM, waiting),
    ]
}

/// Series of a group whose engine is ready, runs some requests, and has this latency.
fn ready(group: u32, p90: f64) -> Vec<Value> {
    let load = with(vec![up(group, 0, "1x40")], gauges(group, "4x40", "0x40"));
    with(load, histogram(TTFT, group, 0, VLLM, p90, steady))
}

/// A group without requests.
fn quiet(group: u32) -> Vec<Value> {
    let none = with(vec![up(group, 0, "1x40")], gauges(group, "0x40", "0x40"));
    with(none, histogram(TTFT, group, 0, VLLM, 1.0, constant))
}

/// A group whose engine loads: its target does not respond.
fn loading(group: u32) -> Vec<Value> {
    vec![up(group, 0, "0x40")]
}

/// Groups that follow each other.
fn fleet(groups: impl IntoIterator<Item = Vec<Value>>) -> Vec<Value> {
    groups.into_iter().flatten().collect()
}

fn four(p90: f64) -> Vec<Value> {
    fleet((0..4).map(|group| ready(group, p90)))
}

#[rstest]
#[case::an_eighth(0.25, 0.5)]
#[case::half(1.0, 2.0)]
#[case::equal(2.0, 4.0)]
#[case::twice(4.0, 8.0)]
#[case::thrice_is_capped(6.0, 8.0)]
fn compares_the_latency_with_its_objective(#[case] p90: f64, #[case] expected: f64) {
    check(&format!("ratio-{p90}"), &four(p90), Some(expected));
}

/// Two of five are ready since long, and their latencies are thrice the objective.
#[rstest]
#[case::was_loading("0x18 1x21", 4.0)]
#[case::was_ready_for_a_window("0x15 1x24", 10.0)]
#[case::without_a_target_before("_x18 1x21", 4.0)]
fn a_group_counts_as_ready_after_a_window(#[case] third: &str, #[case] expected: f64) {
    let series =
        fleet((0..2).map(|group| ready(group, 6.0)).chain((2..5).map(|group| vec![up(group, 0, third)])));
    check(&format!("young-{third}"), &series, Some(expected));
}

#[test]
fn is_zero_without_requests() {
    check("idle", &fleet((0..4).map(quiet)), Some(0.0));
    let with_loading = fleet([quiet(0), quiet(1), loading(2)]);
    check("idle-loading", &with_loading, Some(0.0));
}

/// Two are ready, and three load. Half of five keeps the count.
#[rstest]
#[case::low_latency(0.5, 2.5)]
#[case::high_latency(6.0, 4.0)]
fn groups_that_load_keep_the_count(#[case] p90: f64, #[case] expected: f64) {
    let series = fleet([ready(0, p90), ready(1, p90), loading(2), loading(3), loading(4)]);
    check(&format!("loading-{p90}"), &series, Some(expected));
}

/// The requests run, and none has begun within the window; or they wait.
#[rstest]
#[case::streams("5x40", "0x40")]
#[case::waiting("0x40", "5x40")]
#[case::ended_just_now("5x18 0x21", "0x40")]
fn long_streams_keep_the_count(#[case] running: &str, #[case] waiting: &str) {
    let stream = |group| {
        let load = with(vec![up(group, 0, "1x40")], gauges(group, running, waiting));
        with(load, histogram(TTFT, group, 0, VLLM, 1.0, constant))
    };
    check(&format!("streams-{running}-{waiting}"), &fleet((0..4).map(stream)), Some(2.0));
}

/// Requests that are shorter than the interval between scrapes: the gauges miss them.
#[test]
fn counts_requests_that_the_gauges_miss() {
    let short = |group| {
        let load = with(vec![up(group, 0, "1x40")], gauges(group, "0x40", "0x40"));
        with(load, histogram(TTFT, group, 0, VLLM, 4.0, steady))
    };
    check("short", &fleet((0..4).map(short)), Some(8.0));
}

/// The counters begin again, under the same pod name; with a new address, the old series end.
#[rstest]
#[case::same_address(|share: u32| format!("1000+{share}x17 {share}+{share}x21"))]
#[case::just_now(|share: u32| format!("1000+{share}x18 0x21"))]
fn an_engine_that_restarts_changes_little(#[case] values: fn(u32) -> String) {
    let restarted = with(vec![up(0, 0, "1x40")], gauges(0, "4x40", "0x40"));
    let restarted = with(restarted, histogram(TTFT, 0, 0, VLLM, 2.0, values));
    let series = fleet([restarted, ready(1, 2.0), ready(2, 2.0), ready(3, 2.0)]);
    check(&format!("restart-{}", values(9).len()), &series, Some(4.0));
}

/// The last scrape of one engine failed: it counts as one that loads.
#[test]
fn a_failed_scrape_keeps_the_count() {
    let failed = |p90| {
        let load = with(vec![up(0, 0, "1x19 0 1x20")], gauges(0, "4x19 stale 4x20", "0x19 stale 0x20"));
        with(load, histogram(TTFT, 0, 0, VLLM, p90, |share| format!("0+{share}x19 stale 0+{share}x20")))
    };
    let series = |p90| fleet([failed(p90), ready(1, p90), ready(2, p90), ready(3, p90)]);
    check("failed-low", &series(0.25), Some(2.0));
    check("failed-high", &series(4.0), Some(6.0));
}

/// All scrapes of the last half minute failed.
#[test]
fn failed_scrapes_of_all_keep_the_count_for_a_window() {
    let gone = |group| {
        let load = with(vec![up(group, 0, "1x18 0x21")], gauges(group, "4x18 stale", "0x18 stale"));
        with(load, histogram(TTFT, group, 0, VLLM, 4.0, |share| format!("0+{share}x18 stale")))
    };
    let series = fleet((0..4).map(gone));
    check("all-failed", &series, Some(2.0));
    evaluate("all-gone", &series, &total(Engine::Vllm, "ttft-p90=2s"), "6m", None);
}

#[test]
fn a_pod_that_is_scraped_twice_counts_once() {
    let second = |series: &Value| {
        let text = series["series"]
            .as_str()
            .unwrap()
            .replace(":8000", ":8100")
            .replace("job=\"team-a/", "job=\"theirs/");
        json!({"series": text, "values": series["values"]})
    };
    let once = four(4.0);
    let twice: Vec<Value> = once.iter().map(second).collect();
    check("twice", &with(once, twice), Some(8.0));
    // Only the slow one of four is scraped twice. Of 40 observations 30 take at most 1 s, and 9 more at most 6 s.
    let slow = ready(0, 6.0);
    let again: Vec<Value> = slow.iter().map(second).collect();
    let series = fleet([slow, again, ready(1, 0.5), ready(2, 0.5), ready(3, 0.5)]);
    let p90 = 4.0 + 2.0 * 6.0 / 9.0;
    let expected = (4.0 * p90 / 8.0 * 1000.0_f64).round() / 1000.0;
    evaluate("slow-twice", &series, &total(Engine::Vllm, "ttft-p90=8s"), AT, Some(expected));
}

/// Missing histograms may have been dropped by a monitor. SGLang exports one from its first request on.
#[rstest]
#[case::vllm_busy(Engine::Vllm, "4x40", None)]
#[case::vllm_idle(Engine::Vllm, "0x40", None)]
#[case::sglang_busy(Engine::Sglang, "4x40", None)]
#[case::sglang_idle(Engine::Sglang, "0x40", Some(0.0))]
fn has_no_value_without_histograms(
    #[case] kind: Engine,
    #[case] running: &str,
    #[case] expected: Option<f64>,
) {
    let [run, wait] = match kind {
        Engine::Vllm => ["vllm:num_requests_running", "vllm:num_requests_waiting"],
        Engine::Sglang => ["sglang:num_running_reqs", "sglang:num_queue_reqs"],
    };
    let series = [
        up(0, 0, "1x40"),
        engine(run, 0, 0, r#"model_name="m""#, running),
        engine(wait, 0, 0, r#"model_name="m""#, "0x40"),
    ];
    let name = format!("none-{kind}-{running}");
    evaluate(&name, &series, &total(kind, "ttft-p90=2s"), AT, expected);
}

#[test]
fn missing_engines_give_zero_only_at_a_minimum_of_zero() {
    let query = |at_zero| signal_of(Engine::Vllm, "ttft-p90=2s", "15s", at_zero).total.to_string();
    evaluate("no-engine", &idle("r-0", "x40"), &query(None), AT, None);
    evaluate("at-zero", &idle("r-0", "x40"), &query(Some(from(service()))), AT, Some(0.0));
    evaluate("no-router", &[router("up", "r-0", "", "0x40")], &query(Some(from(service()))), AT, None);
    let waking = with(idle("r-0", "x40"), four(4.0));
    evaluate("awake", &waking, &query(Some(from(service()))), AT, Some(8.0));
}

#[test]
fn ignores_other_models_and_namespaces() {
    let others = ["chat-2", "chat"].into_iter().zip(["team-a", "team-b"]).flat_map(|(name, namespace)| {
        let of = move |metric: &str, labels: &str, values: &str| {
            of_engine(namespace, name, metric, 0, 0, labels, values)
        };
        [
            of("up", r#"a="b""#, "0x40"),
            of("vllm:num_requests_running", VLLM, "9x40"),
            of("vllm:num_requests_waiting", VLLM, "9x40"),
            of("vllm:time_to_first_token_seconds_bucket", r#"model_name="m",engine="0",le="8""#, "0+900x40"),
            of(
                "vllm:time_to_first_token_seconds_bucket",
                r#"model_name="m",engine="0",le="+Inf""#,
                "0+900x40",
            ),
        ]
    });
    check("others", &with(four(1.0), others), Some(2.0));
    // A foreign monitor of the same pods, whose series have no ModelServing label.
    let foreign =
        json!({"series": r#"up{job="theirs",namespace="team-a",pod="chat-0-0"}"#, "values": "0x40"});
    check("foreign", &with(four(0.25), [foreign]), Some(0.5));
}

#[test]
fn counts_sixteen_groups() {
    check("sixteen", &fleet((0..16).map(|group| ready(group, 2.0))), Some(16.0));
}

/// Ranks and roles of a group have pods of their own; their requests count together.
#[test]
fn a_group_with_several_pods_counts_once() {
    let second = |group| with(vec![up(group, 1, "1x40")], histogram(TTFT, group, 1, VLLM, 2.0, steady));
    let series = fleet((0..4).map(|group| with(ready(group, 2.0), second(group))));
    check("pods", &series, Some(4.0));
}

/// Half of the requests are at one group, the others at three: each request counts the same.
#[test]
fn a_slow_group_counts_by_its_requests() {
    let slow = |times: u32| {
        let load = with(vec![up(0, 0, "1x40")], gauges(0, "9x40", "9x40"));
        with(load, histogram(TTFT, 0, 0, VLLM, 6.0, move |share| format!("0+{}x40", times * share)))
    };
    let series = |times| fleet([slow(times), ready(1, 0.5), ready(2, 0.5), ready(3, 0.5)]);
    check("slow-few", &series(0), Some(1.0));
    check("slow-many", &series(3), Some(8.0));
}

/// Labels of requests, such as a tier, and the ranks of data parallelism tell requests apart.
#[test]
fn adds_up_the_labels_of_an_engine() {
    let metric = "sglang:inter_token_latency_seconds";
    let tier = |tier: &str, p90, times: u32| {
        let labels = format!(r#"model_name="m",tier="{tier}""#);
        histogram(metric, 0, 0, &labels, p90, move |share| format!("0+{}x40", times * share))
    };
    let series = fleet([vec![up(0, 0, "1x40")], tier("free", 4.0, 9), tier("paid", 0.25, 1)]);
    // Of 100 observations 10 are below 0.5 s, 81 more below 4 s.
    let p90 = 4.0 - 2.0 / 81.0;
    evaluate(
        "tiers",
        &series,
        &total(Engine::Sglang, "itl-p90=8s"),
        AT,
        Some((p90 / 8.0 * 1000.0_f64).round() / 1000.0),
    );
}

#[rstest]
#[case(Engine::Vllm, "ttft-p90=2s", &["vllm_time_to_first_token_seconds"])]
#[case(Engine::Vllm, "itl-p90=2s", &["vllm:inter_token_latency_seconds"])]
#[case(Engine::Vllm, "itl-p90=2s", &["vllm_inter_token_latency_seconds"])]
#[case(Engine::Vllm, "itl-p90=2s", &["vllm:time_per_output_token_seconds"])]
#[case(Engine::Vllm, "itl-p90=2s", &["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"])]
#[case(Engine::Sglang, "ttft-p90=2s", &["sglang:time_to_first_token_seconds"])]
#[case(Engine::Sglang, "itl-p90=2s", &["sglang_inter_token_latency_seconds"])]
fn reads_every_name_of_the_histograms(
    #[case] kind: Engine,
    #[case] objective: &str,
    #[case] metrics: &[&str],
) {
    let histograms = metrics.iter().flat_map(|metric| histogram(metric, 0, 0, VLLM, 4.0, steady));
    let series = with(vec![up(0, 0, "1x40")], histograms);
    let name = format!("names-{}", metrics.join("-"));
    evaluate(&name, &series, &total(kind, objective), AT, Some(2.0));
}

/// The first tokens came 75 s ago: outside of four scrapes each 15 s, and within four each 30 s.
#[rstest]
#[case("5s", 2.0)]
#[case("15s", 2.0)]
#[case("30s", 8.0)]
fn the_window_has_four_scrapes(#[case] interval: &str, #[case] expected: f64) {
    let past = |group| {
        let load = with(vec![up(group, 0, "1x40")], gauges(group, "4x40", "0x40"));
        with(load, histogram(TTFT, group, 0, VLLM, 4.0, |share| format!("0x14 {share}x25")))
    };
    let query = signal_of(Engine::Vllm, "ttft-p90=2s", interval, None).total.to_string();
    evaluate(&format!("window-{interval}"), &fleet((0..4).map(past)), &query, AT, Some(expected));
}

#[test]
fn shows_its_measurements() {
    let signal = signal_of(Engine::Vllm, "ttft-p90=2s", "15s", None);
    let series = fleet([ready(0, 4.0), ready(1, 4.0), loading(2)]);
    evaluate("p90", &series, &signal.p90.to_string(), AT, Some(4.0));
    evaluate("ready", &series, &signal.ready.to_string(), AT, Some(2.0));
    evaluate("groups", &series, &signal.groups.to_string(), AT, Some(3.0));
    evaluate("p90-idle", &quiet(0), &signal.p90.to_string(), AT, None);
}

/// An hour with one request at a time, then an hour with twenty.
#[test]
fn finds_the_latency_of_an_engine_with_little_to_do() {
    let signal = signal_of(Engine::Vllm, "ttft-p90=2s", "15s", None);
    let hours = |first: &str, second: &str| format!("{first}x240 {second}x240");
    let load = with(vec![up(0, 0, "1x481")], gauges(0, &hours("1", "20"), "0x481"));
    let values = |slow: f64, fast: f64| {
        let share = |p90: f64, bound: f64| {
            if bound < p90 {
                0
            } else if bound > p90 {
                10
            } else {
                9
            }
        };
        BOUNDS.iter().map(move |bound| (bound.to_string(), share(slow, *bound), share(fast, *bound)))
    };
    let buckets = values(1.0, 0.5).chain([("+Inf".to_owned(), 10, 10)]).map(|(bound, first, second)| {
        let labels = format!(r#"{VLLM},le="{bound}""#);
        let values = format!("0+{first}x240 {}+{second}x240", first * 240 + second);
        engine("vllm:time_to_first_token_seconds_bucket", 0, 0, &labels, &values)
    });
    let series = with(load, buckets);
    evaluate("lowest", &series, &signal.lowest.to_string(), "2h", Some(1.0));
    let busy = four(1.0);
    evaluate("lowest-of-busy", &busy, &signal.lowest.to_string(), AT, None);
}

/// Metrics of a real vLLM in the folder `KTHENA_ENGINE_METRICS`, or in a folder beside the project; without them the test is skipped.
#[rstest]
// Of 94 first tokens 38 came within 2.5 s, and all within 5 s.
#[case("ttft-p90=10s", 0.458)]
// Of 8747 tokens 7974 came within 10 ms.
#[case("itl-p90=20ms", 0.494)]
fn reads_the_histograms_of_a_real_engine(#[case] objective: &str, #[case] expected: f64) {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/engine-metrics");
    let folder = env::var_os("KTHENA_ENGINE_METRICS").map_or(beside, PathBuf::from);
    let file = folder.join("1-load-queue-8.txt");
    let Ok(text) = fs::read_to_string(&file) else {
        eprintln!("SKIPPED {objective}: {} does not exist", file.display());
        return;
    };
    let series =
        text.lines().filter(|line| line.starts_with("vllm:") && line.contains("{engine")).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (metric, labels) = series.split_once('{').unwrap();
            engine(metric, 0, 0, labels.trim_end_matches('}'), &format!("0x17 {value}x22"))
        });
    let series = with(vec![up(0, 0, "1x40")], series);
    evaluate(&format!("real-{objective}"), &series, &total(Engine::Vllm, objective), AT, Some(expected));
}
