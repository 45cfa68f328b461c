//! Results of the signals' queries, evaluated by Prometheus' own engine (`promtool test rules`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests report failures by panicking"
)]

use std::{env, fs, path::PathBuf, process::Command};

use harness::control_plane::{binary, built};
use kthena_keda_core::{
    domain::SeriesMatchers,
    promql::Query,
    signals::{DemandScope, Engine, EngineSeries, RouterSeries, ScrapeSource, Signal, activation},
};
use rstest::rstest;
use serde_json::{Value, json};
use strum::VariantArray as _;

mod promql {
    mod activation;
    mod backlog;
    mod backtest;
    mod clusters;
    mod engines;
    mod evidence;
    mod latency;
    mod month;
    mod roles;
    mod service_time;
}

/// Time of evaluation. Samples are 15 s apart, so this is 20 samples after the first.
const AT: &str = "5m";

/// A series of the router pod `pod`, with the labels of a usual scrape.
fn router(metric: &str, pod: &str, labels: &str, values: &str) -> Value {
    scraped(metric, pod, "10.0.0.1:8080", labels, values)
}

fn scraped(metric: &str, pod: &str, instance: &str, labels: &str, values: &str) -> Value {
    let labels = if labels.is_empty() { String::new() } else { format!(",{labels}") };
    let target = format!(
        r#"namespace="kthena-system",service="kthena-router",job="kthena-router",pod="{pod}",instance="{instance}""#
    );
    json!({"series": format!("{metric}{{{target}{labels}}}"), "values": values})
}

fn in_flight(pod: &str, model: &str, values: &str) -> Value {
    router("kthena_router_active_downstream_requests", pod, &format!("model={model:?}"), values)
}

/// Series of an idle router of Kthena 1.0 or later, and of its target, which is up.
fn idle(pod: &str, samples: &str) -> Vec<Value> {
    with(
        target(pod, samples, 2, 2),
        [router("kthena_router_active_requests", pod, "", &format!("0{samples}"))],
    )
}

/// Series that Prometheus adds for the target of a router: it exports a number of samples, of which a number
/// remains after `metricRelabelings`.
fn target(pod: &str, samples: &str, exported: u32, kept: u32) -> Vec<Value> {
    vec![
        router("up", pod, "", &format!("1{samples}")),
        router("scrape_samples_scraped", pod, "", &format!("{exported}{samples}")),
        router("scrape_samples_post_metric_relabeling", pod, "", &format!("{kept}{samples}")),
    ]
}

fn with(mut base: Vec<Value>, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    base.extend(more);
    base
}

fn query(signal: &str, models: &str, source: ScrapeSource) -> String {
    let models = models.parse().unwrap();
    match Signal::from_name(signal) {
        Some(Signal::Demand(demand)) => {
            demand.query(&DemandScope::Models(models), &from(source)).unwrap().to_string()
        }
        Some(Signal::Saturation(_) | Signal::Latency(_)) => panic!("{signal} is no signal of the router"),
        None => activation(&models, &from(source)).to_string(),
    }
}

fn from(source: ScrapeSource) -> RouterSeries {
    RouterSeries::new("kthena-system", source)
}

fn service() -> ScrapeSource {
    ScrapeSource::Service("kthena-router".to_owned())
}

/// Evaluates the query over the series with promtool; the result must be one sample with this value, or empty
/// for `None`.
fn evaluate(name: &str, series: &[Value], query: &str, at: &str, expected: Option<f64>) {
    let samples: Vec<Value> =
        expected.into_iter().map(|value| json!({"labels": "{}", "value": value})).collect();
    let evaluated =
        json!({"expr": format!("round(({query}), 0.001)"), "eval_time": at, "exp_samples": samples});
    check(name, series, &[evaluated]);
}

/// Runs checks of queries over the series with promtool.
fn check(name: &str, series: &[Value], checks: &[Value]) {
    let test = json!({"name": name, "interval": "15s", "input_series": series, "promql_expr_test": checks});
    let folder = built().join("promql");
    fs::create_dir_all(&folder).unwrap();
    // One file per test, because tests run in parallel.
    let test_name = std::thread::current().name().unwrap_or_default().to_owned();
    let file = folder.join(format!(
        "{}.json",
        format!("{test_name}-{name}").replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    ));
    fs::write(&file, json!({"evaluation_interval": "15s", "tests": [test]}).to_string()).unwrap();
    let output = Command::new(binary("promtool")).args(["test", "rules"]).arg(&file).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

const DEMAND: [&str; 4] = ["active-requests", "queued-requests", "request-rate", "output-tokens"];

#[rstest]
fn an_idle_router_gives_zero(
    #[values("active-requests", "queued-requests", "request-rate", "output-tokens", "activation")]
    signal: &str,
) {
    evaluate(&format!("idle-{signal}"), &idle("r-0", "x40"), &query(signal, "m", service()), AT, Some(0.0));
    // An idle router before Kthena 1.0 exports no series; only its target shows that it runs.
    let old = target("r-0", "x40", 0, 0);
    evaluate(&format!("idle-old-{signal}"), &old, &query(signal, "m", service()), AT, Some(0.0));
    let of_job = |metric: &str, values: &str| json!({"series": format!(r#"{metric}{{namespace="kthena-system",pod="r-0",job="kthena-system/theirs"}}"#), "values": values});
    let job = [
        of_job("up", "1x40"),
        of_job("scrape_samples_scraped", "0x40"),
        of_job("scrape_samples_post_metric_relabeling", "0x40"),
    ];
    let foreign = ScrapeSource::Job("kthena-system/theirs".to_owned());
    evaluate(&format!("idle-theirs-{signal}"), &job, &query(signal, "m", foreign), AT, Some(0.0));
}

#[rstest]
fn an_unscraped_router_gives_no_result(
    #[values("active-requests", "queued-requests", "request-rate", "output-tokens", "activation")]
    signal: &str,
) {
    // Foreign targets are up; the target of the router was up, and is down.
    let others = json!({"series": r#"up{namespace="other",service="other",pod="p"}"#, "values": "1x40"});
    let gone = [
        others,
        router("up", "r-0", "", "1x4 0x36"),
        router("kthena_router_active_requests", "r-0", "", "0x4 stale"),
    ];
    evaluate(&format!("gone-{signal}"), &gone, &query(signal, "m", service()), "8m", None);
}

#[rstest]
#[case::active("active-requests", Some(0.0))]
#[case::queued("queued-requests", Some(0.0))]
#[case::rate("request-rate", None)]
#[case::tokens("output-tokens", None)]
#[case::activation("activation", None)]
fn a_new_prometheus_gives_gauges_but_no_rates(#[case] signal: &str, #[case] expected: Option<f64>) {
    // The first sample is a minute old.
    let series = with(
        idle("r-0", "x4"),
        [router("kthena_router_requests_total", "r-0", r#"model="m",path="/v1""#, "100+15x4")],
    );
    evaluate(&format!("new-{signal}"), &series, &query(signal, "m", service()), "1m", expected);
}

#[rstest]
fn a_router_that_just_went_down_gives_no_rate(#[values("request-rate", "output-tokens")] signal: &str) {
    let counter =
        |name: &str, labels: &str| router(name, "r-0", &format!(r#"model="m",{labels}"#), "0+15x40 stale");
    let series = [
        counter("kthena_router_requests_total", r#"status_code="200""#),
        counter("kthena_router_tokens_total", r#"token_type="output""#),
        router("up", "r-0", "", "1x40 0x20"),
        router("kthena_router_active_requests", "r-0", "", "0x40 stale"),
    ];
    evaluate(&format!("before-{signal}"), &series, &query(signal, "m", service()), "10m", Some(1.0));
    evaluate(&format!("after-{signal}"), &series, &query(signal, "m", service()), "11m", None);
}

#[rstest]
fn a_router_with_a_deleted_monitor_gives_no_rate(#[values("request-rate", "output-tokens")] signal: &str) {
    // There is no staleness marker, so an instant selector returns the last samples for another five minutes.
    let counter =
        |name: &str, labels: &str| router(name, "r-0", &format!(r#"model="m",{labels}"#), "0+15x40");
    let series = [
        counter("kthena_router_requests_total", r#"status_code="200""#),
        counter("kthena_router_tokens_total", r#"token_type="output""#),
        router("up", "r-0", "", "1x40"),
        router("kthena_router_active_requests", "r-0", "", "0x40"),
    ];
    evaluate(&format!("before-{signal}"), &series, &query(signal, "m", service()), "10m", Some(1.0));
    for at in ["11m30s", "12m30s", "14m"] {
        evaluate(&format!("after-{signal}-{at}"), &series, &query(signal, "m", service()), at, None);
    }
}

#[rstest]
fn an_outage_of_prometheus_gives_no_rate_at_first(#[values("request-rate", "output-tokens")] signal: &str) {
    // Three minutes without samples, from the tenth minute on.
    let gap = |start: &str, step: &str| {
        format!("{start}{step}x40 _x12 {}{step}x20", if step.is_empty() { start } else { "795" })
    };
    let counter =
        |name: &str, labels: &str| router(name, "r-0", &format!(r#"model="m",{labels}"#), &gap("0", "+15"));
    let series = [
        counter("kthena_router_requests_total", r#"status_code="200""#),
        counter("kthena_router_tokens_total", r#"token_type="output""#),
        router("up", "r-0", "", &gap("1", "")),
        router("kthena_router_active_requests", "r-0", "", &gap("0", "")),
    ];
    for (at, expected) in [("10m", Some(1.0)), ("13m45s", None), ("15m", None), ("16m30s", Some(1.0))] {
        evaluate(&format!("gap-{signal}-{at}"), &series, &query(signal, "m", service()), at, expected);
    }
}

#[test]
fn another_monitor_of_the_same_router_wakes_no_model() {
    let counter = |job: &str, values: &str| {
        let target = format!(r#"namespace="kthena-system",service="kthena-router",pod="r-0",job="{job}""#);
        json!({"series": format!(r#"kthena_router_requests_total{{{target},model="m",path="/v1",status_code="200"}}"#), "values": values})
    };
    let series = with(idle("r-0", "x80"), [counter("ours", "7x36 stale"), counter("theirs", "_x37 7x40")]);
    for at in ["9m15s", "9m30s", "10m", "11m"] {
        evaluate(&format!("monitor-{at}"), &series, &query("activation", "m", service()), at, Some(0.0));
    }
}

#[rstest]
#[case::one("m", vec![in_flight("r-0", "m", "4x40")], 4.0)]
#[case::not_anothers("m", vec![in_flight("r-0", "m", "4x40"), in_flight("r-0", "n", "7x40")], 4.0)]
#[case::two_names("m,n", vec![in_flight("r-0", "m", "4x40"), in_flight("r-0", "n", "7x40"), in_flight("r-0", "o", "9x40")], 11.0)]
#[case::two_routers("m", vec![in_flight("r-0", "m", "4x40"), in_flight("r-1", "m", "5x40")], 9.0)]
#[case::two_ports("m", vec![in_flight("r-0", "m", "4x40"), scraped("kthena_router_active_downstream_requests", "r-0", "10.0.0.1:9090", r#"model="m""#, "4x40")], 4.0)]
#[case::odd_names(r#"x"} or vector(99) #"#, vec![in_flight("r-0", r#"x"} or vector(99) #"#, "3x40")], 3.0)]
fn active_requests_sum_the_requests_of_the_model(
    #[case] models: &str,
    #[case] series: Vec<Value>,
    #[case] expected: f64,
) {
    let name = format!("active-{}-{}", models.len(), expected);
    evaluate(
        &name,
        &with(idle("r-0", "x40"), series),
        &query("active-requests", models, service()),
        AT,
        Some(expected),
    );
}

#[test]
fn queued_requests_include_both_queues() {
    let fair = |user: &str, values: &str| {
        router("kthena_router_fairness_queue_size", "r-0", &format!(r#"model="m",user_id="{user}""#), values)
    };
    let series = with(idle("r-0", "x40"), [fair("a", "3x40"), fair("b", "2x40")]);
    evaluate("queued-fair", &series, &query("queued-requests", "m", service()), AT, Some(5.0));
    let boost = router("kthena_router_session_boost_queue_size", "r-0", r#"model="m""#, "4x40");
    evaluate(
        "queued-boost",
        &with(idle("r-0", "x40"), [boost]),
        &query("queued-requests", "m", service()),
        AT,
        Some(4.0),
    );
}

#[test]
fn rates_sum_paths_and_status_codes() {
    let requests = |instance: &str, labels: &str, values: &str| {
        scraped("kthena_router_requests_total", "r-0", instance, &format!(r#"model="m",{labels}"#), values)
    };
    let series = [
        requests("a:1", r#"path="/v1/chat",status_code="200""#, "0+15x40"),
        requests("a:1", r#"path="/v1/chat",status_code="404""#, "0+30x40"),
        requests("a:1", r#"path="/v1/completions",status_code="200""#, "0+15x40"),
        // A second scrape of the same router on another port.
        requests("a:2", r#"path="/v1/completions",status_code="200""#, "0+15x40"),
    ];
    evaluate(
        "rates",
        &with(idle("r-0", "x40"), series),
        &query("request-rate", "m", service()),
        AT,
        Some(4.0),
    );
    let tokens = |kind: &str, values: &str| {
        router(
            "kthena_router_tokens_total",
            "r-0",
            &format!(r#"model="m",path="/",token_type="{kind}""#),
            values,
        )
    };
    let series = [tokens("input", "0+3000x40"), tokens("output", "0+1500x40")];
    evaluate(
        "tokens",
        &with(idle("r-0", "x40"), series),
        &query("output-tokens", "m", service()),
        AT,
        Some(100.0),
    );
}

#[rstest]
#[case::a_moment_later("5m", true)]
#[case::much_later("9m", false)]
fn one_request_at_zero_activates_for_a_limited_time(#[case] at: &str, #[case] wakes: bool) {
    // The request creates the counters shortly before the fifth minute.
    let counter = |metric: &str, labels: &str, value: u32| {
        router(metric, "r-0", &format!(r#"model="m",path="/v1",{labels}"#), &format!("_x18 {value}x40"))
    };
    let series = [
        counter("kthena_router_requests_total", r#"status_code="404""#, 1),
        counter("kthena_router_tokens_total", r#"token_type="input""#, 8),
    ];
    let expected = if wakes { 9.0 } else { 0.0 };
    evaluate(
        &format!("first-request-{at}"),
        &with(idle("r-0", "x80"), series),
        &query("activation", "m", service()),
        at,
        Some(expected),
    );
}

/// Recorded metrics of a real router in several states. The recordings are in the folder `KTHENA_METRICS`, or
/// in a folder beside the project; without them the test is skipped.
#[rstest]
#[case("0-idle", 0.0)]
#[case("1-idle-with-route", 0.0)]
#[case("2-one-request-done", 0.0)]
#[case("3-inflight-4", 4.0)]
#[case("4-after", 0.0)]
#[case("5-unknown-model", 0.0)]
#[case("6-zero-pods", 0.0)]
#[case("7-bad-requests", 0.0)]
fn recorded_metrics_give_the_number_of_requests(#[case] state: &str, #[case] expected: f64) {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/router-metrics");
    let file = env::var_os("KTHENA_METRICS").map_or(beside, PathBuf::from).join(format!("{state}.txt"));
    let Ok(text) = fs::read_to_string(&file) else {
        eprintln!("SKIPPED {state}: {} does not exist", file.display());
        return;
    };
    let samples =
        text.lines().filter(|line| line.starts_with("kthena_router_") && !line.contains("_bucket{"));
    let series = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (metric, labels) = series
            .split_once('{')
            .map_or((series, ""), |(metric, labels)| (metric, labels.trim_end_matches('}')));
        router(metric, "r-0", labels, &format!("{value}x40"))
    });
    let series = with(target("r-0", "x40", 1000, 1000), series);
    evaluate(state, &series, &query("active-requests", "m", service()), AT, Some(expected));
    for signal in DEMAND {
        let zero = if signal == "active-requests" { expected } else { 0.0 };
        evaluate(&format!("{state}-{signal}"), &series, &query(signal, "m", service()), AT, Some(zero));
    }
}

#[rstest]
#[case::its_own("team-a/chat", 9.0)]
#[case::two_of_its_own("team-a/chat,team-a/chat-2", 14.0)]
#[case::nothing_there("team-a/other", 0.0)]
fn a_share_counts_the_requests_of_its_model_servers(#[case] servers: &str, #[case] expected: f64) {
    let upstream = |pod: &str, server: &str, route: &str, values: &str| {
        let labels = format!(r#"model_server="{server}",model_route="{route}""#);
        router("kthena_router_active_upstream_requests", pod, &labels, values)
    };
    let series = [
        upstream("r-0", "team-a/chat", "team-a/r1", "4x40"),
        upstream("r-0", "team-a/chat", "team-a/r2", "3x40"),
        upstream("r-1", "team-a/chat", "team-a/r1", "2x40"),
        upstream("r-0", "team-a/chat-2", "team-a/r1", "5x40"),
        upstream("r-0", "team-b/chat", "team-b/r1", "50x40"),
        // A second scrape of the same router on another port.
        scraped(
            "kthena_router_active_upstream_requests",
            "r-0",
            "10.0.0.1:9090",
            r#"model_server="team-a/chat",model_route="team-a/r1""#,
            "4x40",
        ),
    ];
    let servers = DemandScope::Servers(servers.split(',').map(str::to_owned).collect());
    let Some(Signal::Demand(demand)) = Signal::from_name("active-requests") else {
        panic!("a signal of the router")
    };
    let query = demand.query(&servers, &from(service())).unwrap().to_string();
    evaluate(&format!("part-{expected}"), &with(idle("r-0", "x40"), series), &query, AT, Some(expected));
}

/// A series of an engine, scraped with the PodMonitor of the ModelServing `chat` in `team-a`.
fn engine(metric: &str, group: u32, pod: u32, labels: &str, values: &str) -> Value {
    of_engine("team-a", "chat", metric, group, pod, labels, values)
}

fn of_engine(
    namespace: &str,
    name: &str,
    metric: &str,
    group: u32,
    pod: u32,
    labels: &str,
    values: &str,
) -> Value {
    let job = format!(
        r#"job="{namespace}/kthena-keda-{name}",namespace="{namespace}",instance="10.0.{group}.{pod}:8000""#
    );
    let kthena = format!(
        r#"modelserving_volcano_sh_name="{name}",modelserving_volcano_sh_group_name="{name}-{group}",pod="{name}-{group}-{pod}""#
    );
    json!({"series": format!("{metric}{{{job},{kthena},{labels}}}"), "values": values})
}

fn engine_query(signal: &str, engine: Engine, at_zero: Option<RouterSeries>) -> String {
    engine_query_of(signal, &EngineSeries { at_zero, ..engine_series(engine) })
}

/// Series of the ModelServing `team-a/chat`.
fn engine_series(engine: Engine) -> EngineSeries {
    EngineSeries {
        engine,
        namespace: "team-a".to_owned(),
        model_serving: "chat".to_owned(),
        role: None,
        matchers: SeriesMatchers::default(),
        at_zero: None,
    }
}

fn engine_query_of(signal: &str, series: &EngineSeries) -> String {
    let Some(Signal::Saturation(saturation)) = Signal::from_name(signal) else {
        panic!("{signal} is no signal of the engines")
    };
    saturation.query(series).to_string()
}

const SATURATION: [(&str, [&str; 2]); 3] = [
    ("engine-queue", ["vllm:num_requests_waiting", "sglang:num_queue_reqs"]),
    ("engine-running", ["vllm:num_requests_running", "sglang:num_running_reqs"]),
    ("kv-cache", ["vllm:kv_cache_usage_perc", "sglang:token_usage"]),
];

#[test]
fn engine_signals_ignore_other_models_and_namespaces() {
    for (signal, metrics) in SATURATION {
        for (engine_name, metric) in Engine::VARIANTS.iter().copied().zip(metrics) {
            let model = r#"model_name="qwen""#;
            let series = [
                engine(metric, 0, 0, model, "2x40"),
                engine(metric, 1, 0, model, "3x40"),
                of_engine("team-a", "chat-2", metric, 0, 0, model, "50x40"),
                of_engine("team-b", "chat", metric, 0, 0, model, "50x40"),
                // A foreign monitor of the same pod, whose series have no ModelServing label.
                json!({"series": format!(r#"{metric}{{job="theirs",namespace="team-a",pod="chat-0-0",{model}}}"#), "values": "50x40"}),
            ];
            let name = format!("engines-{signal}-{engine_name}");
            evaluate(&name, &series, &engine_query(signal, engine_name, None), AT, Some(5.0));
        }
    }
}

#[test]
fn counts_sum_all_parts_and_cache_usage_takes_the_maximum_per_group() {
    let parts = |metric: &str| {
        [
            engine(metric, 0, 0, r#"model_name="m",engine="0""#, "2x40"),
            engine(metric, 0, 0, r#"model_name="m",engine="1""#, "3x40"),
            engine(metric, 0, 1, r#"model_name="m",engine="0""#, "1x40"),
            engine(metric, 1, 0, r#"model_name="m",engine="0""#, "4x40"),
        ]
    };
    for (signal, [metric, _]) in SATURATION {
        let expected = if signal == "kv-cache" { 7.0 } else { 10.0 };
        evaluate(
            &format!("parts-{signal}"),
            &parts(metric),
            &engine_query(signal, Engine::Vllm, None),
            AT,
            Some(expected),
        );
    }
    let renamed = parts("vllm:gpu_cache_usage_perc");
    evaluate("parts-renamed", &renamed, &engine_query("kv-cache", Engine::Vllm, None), AT, Some(7.0));
}

#[test]
fn missing_engines_give_zero_only_at_a_minimum_of_zero() {
    for (signal, [metric, _]) in SATURATION {
        let gone = with(idle("r-0", "x40"), [engine(metric, 0, 0, r#"model_name="m""#, "3x8 stale")]);
        evaluate(&format!("missing-{signal}"), &gone, &engine_query(signal, Engine::Vllm, None), AT, None);
        evaluate(
            &format!("none-{signal}"),
            &gone,
            &engine_query(signal, Engine::Vllm, Some(from(service()))),
            AT,
            Some(0.0),
        );
        let unscraped = [router("up", "r-0", "", "0x40")];
        evaluate(
            &format!("unseen-{signal}"),
            &unscraped,
            &engine_query(signal, Engine::Vllm, Some(from(service()))),
            AT,
            None,
        );
    }
}

#[rstest]
fn a_presence_query_with_a_comment_leaves_the_query_whole(
    #[values("active-requests", "queued-requests", "request-rate", "output-tokens", "activation")]
    signal: &str,
    #[values(
        "max(up{job=\"r\"} == 1)  # both zones",
        "max(up{job=\"r\"} == 1) \n\t",
        "# zones\nmax(up{job=\"r\"} == 1)\n# x"
    )]
    presence: &str,
) {
    let source = ScrapeSource::Query(Query::parse(presence).unwrap());
    let up = [json!({"series": r#"up{job="r",pod="r-0"}"#, "values": "1x40"})];
    let name = format!("comment-{signal}-{}", presence.len());
    evaluate(&name, &up, &query(signal, "m", source), AT, Some(0.0));
}

#[rstest]
fn a_presence_query_replaces_the_target_of_the_router(
    #[values("active-requests", "queued-requests", "request-rate", "output-tokens", "activation")]
    signal: &str,
) {
    let source = || ScrapeSource::Query(Query::parse("max(up{job=\"my-routers\"} == 1)").unwrap());
    let up = |values: &str| [json!({"series": r#"up{job="my-routers",pod="r-0"}"#, "values": values})];
    evaluate(&format!("there-{signal}"), &up("1x40"), &query(signal, "m", source()), AT, Some(0.0));
    evaluate(&format!("gone-{signal}"), &up("1x4 0x40"), &query(signal, "m", source()), "8m", None);
}
