//! Situations in which the activation query has to show a request, or none.

use kthena_keda_core::{promql::Query, signals::ScrapeSource};
use rstest::rstest;
use serde_json::Value;

use crate::{evaluate, idle, query, router, scraped, service, target, with};

fn presence_query() -> ScrapeSource {
    ScrapeSource::Query(Query::parse("max(up{job=\"kthena-router\"} == 1)").unwrap())
}

/// A router of Kthena 1.0 that served the model before, with the samples of `up`, of its gauge and of its
/// counters.
fn served(pod: &str, up: &str, gauge: &str, requests: &str, tokens: &str) -> Vec<Value> {
    let labels = |labels: &str| format!(r#"model="m",path="/v1",{labels}"#);
    vec![
        router("up", pod, "", up),
        router("kthena_router_active_requests", pod, "", gauge),
        router("kthena_router_requests_total", pod, &labels(r#"status_code="200""#), requests),
        router("kthena_router_tokens_total", pod, &labels(r#"token_type="input""#), tokens),
    ]
}

fn steady(pod: &str) -> Vec<Value> {
    served(pod, "1x120", "0x120", "812x120", "40960x120")
}

/// The scrape at 15m fails.
fn one_missed(pod: &str) -> Vec<Value> {
    served(pod, "1x59 0 1x60", "0x59 stale 0x60", "812x59 stale 812x60", "40960x59 stale 40960x60")
}

/// A target that appears at 10m with its counters.
fn late(pod: &str) -> Vec<Value> {
    served(pod, "_x40 1x80", "_x40 0x80", "_x40 812x80", "_x40 40960x80")
}

#[rstest]
#[case::one_of_two_misses_a_scrape(with(steady("r-0"), one_missed("r-1")))]
#[case::the_only_one_misses_a_scrape(one_missed("r-1"))]
#[case::scraped_at_different_times(with(steady("r-0"), late("r-1")))]
fn no_request_wakes_no_model(
    #[case] series: Vec<Value>,
    #[values(service(), presence_query())] source: ScrapeSource,
) {
    let query = format!("max_over_time(({})[20m:15s])", query("activation", "m", source.clone()));
    let name = format!("no-request-{}-{}", series.len(), matches!(source, ScrapeSource::Query(_)));
    evaluate(&name, &series, &query, "28m", Some(0.0));
}

/// A router before Kthena 1.0 exports nothing before its first request.
#[rstest]
fn one_request_wakes_a_model_of_an_old_router(#[values(service(), presence_query())] source: ScrapeSource) {
    let counter = |metric: &str, labels: &str, value: u32| {
        router(metric, "r-0", &format!(r#"model="m",path="/v1",{labels}"#), &format!("_x60 {value}x60"))
    };
    let series = with(
        target("r-0", "x120", 0, 0),
        [counter("kthena_router_tokens_total", r#"token_type="input""#, 8)],
    );
    let name = format!("old-{}", matches!(source, ScrapeSource::Query(_)));
    let query = query("activation", "m", source);
    for (at, expected) in [("14m45s", 0.0), ("15m", 8.0), ("16m45s", 8.0), ("17m", 0.0)] {
        evaluate(&format!("{name}-{at}"), &series, &query, at, Some(expected));
    }
}

/// The router counts no tokens of messages without text, such as images.
#[test]
fn one_request_without_input_tokens_wakes_the_model() {
    let requests = router(
        "kthena_router_requests_total",
        "r-0",
        r#"model="m",path="/v1",status_code="404""#,
        "_x60 1x60",
    );
    let series = with(idle("r-0", "x120"), [requests]);
    for (at, expected) in [("14m45s", 0.0), ("15m", 1.0), ("17m", 0.0)] {
        let name = format!("no-tokens-{at}");
        evaluate(&name, &series, &query("activation", "m", service()), at, Some(expected));
    }
}

/// The container starts again in its pod, and the first request brings the counters to where they were.
#[test]
fn one_request_wakes_a_model_after_a_restart_of_the_router() {
    let series = served("r-0", "1x120", "0x120", "1x30 stale _x14 1x75", "8x30 stale _x14 8x75");
    let query = format!("max_over_time(({})[2m:15s])", query("activation", "m", service()));
    evaluate("restart-before", &series, &query, "11m", Some(0.0));
    evaluate("restart-after", &series, &query, "13m30s", Some(9.0));
}

/// A request during a restart of Prometheus shows when Prometheus is back.
#[test]
fn one_request_during_a_restart_of_prometheus_wakes_the_model() {
    let series = served("r-0", "1x40 _x12 1x60", "0x40 _x12 0x60", "1x40 _x12 2x60", "8x40 _x12 16x60");
    evaluate("gap", &series, &query("activation", "m", service()), "13m30s", Some(9.0));
    evaluate("gap-later", &series, &query("activation", "m", service()), "16m", Some(0.0));
}

/// A monitor that drops the counters is replaced by one that keeps them: they are old.
#[test]
fn counters_of_another_monitor_wake_no_model() {
    let of_job = |series: Vec<Value>, job: &str| -> Vec<Value> {
        let renamed = |series: Value| {
            let labels =
                series["series"].as_str().unwrap().replace(r#"job="kthena-router""#, &format!("job={job:?}"));
            serde_json::json!({"series": labels, "values": series["values"]})
        };
        series.into_iter().map(renamed).collect()
    };
    let theirs = vec![
        scraped("up", "r-0", "10.0.0.1:8080", "", "1x120"),
        scraped("kthena_router_active_requests", "r-0", "10.0.0.1:8080", "", "0x120"),
    ];
    let series = with(of_job(theirs, "theirs"), of_job(late("r-0"), "ours"));
    let query = format!("max_over_time(({})[20m:15s])", query("activation", "m", service()));
    evaluate("other-monitor", &series, &query, "28m", Some(0.0));
}
