//! One store for several clusters.

use kthena_keda_core::{
    domain::SeriesMatchers,
    signals::{DemandScope, EngineSeries, RouterSeries, Saturation, Signal, activation},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{AT, DEMAND, evaluate, idle, in_flight, of_engine, router, service, with};

fn eu() -> SeriesMatchers {
    [("cluster".to_owned(), "eu-1".to_owned())].into_iter().collect()
}

fn in_cluster(cluster: &str, series: Vec<Value>) -> Vec<Value> {
    let labelled = |series: Value| {
        let labels = series["series"].as_str().unwrap().replacen('{', &format!("{{cluster={cluster:?},"), 1);
        json!({"series": labels, "values": series["values"]})
    };
    series.into_iter().map(labelled).collect()
}

fn query(signal: &str) -> String {
    let router = RouterSeries { matchers: eu(), ..RouterSeries::new("kthena-system", service()) };
    let models = "m".parse().unwrap();
    match Signal::from_name(signal) {
        Some(Signal::Demand(demand)) => {
            demand.query(&DemandScope::Models(models), &router).unwrap().to_string()
        }
        _ => activation(&models, &router).to_string(),
    }
}

/// A busy router: 5 in flight, one request and one token per second.
fn busy(pod: &str, requests: u32, samples: &str) -> Vec<Value> {
    let counter = |metric: &str, labels: &str| {
        router(metric, pod, &format!(r#"model="m",{labels}"#), &format!("0+{}{samples}", 15 * requests))
    };
    let series = [
        in_flight(pod, "m", &format!("{}{samples}", 5 * requests)),
        router("kthena_router_fairness_queue_size", pod, r#"model="m""#, &format!("{requests}{samples}")),
        counter("kthena_router_requests_total", r#"status_code="200""#),
        counter("kthena_router_tokens_total", r#"token_type="output""#),
    ];
    with(idle(pod, samples), series)
}

#[rstest]
#[case("active-requests", 5.0)]
#[case("queued-requests", 1.0)]
#[case("request-rate", 1.0)]
#[case("output-tokens", 1.0)]
#[case("activation", 240.0)]
fn matchers_select_the_own_cluster(#[case] signal: &str, #[case] expected: f64) {
    // The router of the other cluster has the same pod name, and another one.
    for pod in ["r-0", "r-9"] {
        let others = in_cluster("us-1", busy(pod, 80, "x40"));
        let series = with(in_cluster("eu-1", busy("r-0", 1, "x40")), others);
        evaluate(&format!("own-{pod}-{signal}"), &series, &query(signal), AT, Some(expected));
    }
}

#[test]
fn an_unscraped_cluster_is_no_answer_beside_a_scraped_one() {
    for signal in DEMAND.into_iter().chain(["activation"]) {
        let gone = in_cluster("eu-1", vec![router("up", "r-0", "", "0x60")]);
        let series = with(gone, in_cluster("us-1", busy("r-0", 1, "x60")));
        evaluate(&format!("unscraped-{signal}"), &series, &query(signal), "10m", None);
    }
}

#[rstest]
#[case(Saturation::Queue, "vllm:num_requests_waiting", 10.0)]
#[case(Saturation::Running, "vllm:num_requests_running", 10.0)]
#[case(Saturation::KvCache, "vllm:kv_cache_usage_perc", 10.0)]
fn matchers_select_the_engines_of_the_own_cluster(
    #[case] signal: Saturation,
    #[case] metric: &str,
    #[case] expected: f64,
) {
    let engine = |values: &str| vec![of_engine("team-a", "chat", metric, 0, 0, r#"model_name="m""#, values)];
    let series = with(in_cluster("eu-1", engine("10x40")), in_cluster("us-1", engine("30x40")));
    let own = EngineSeries {
        engine: kthena_keda_core::signals::Engine::Vllm,
        namespace: "team-a".to_owned(),
        model_serving: "chat".to_owned(),
        role: None,
        matchers: eu(),
        at_zero: None,
    };
    evaluate(&format!("engines-{metric}"), &series, &signal.query(&own).to_string(), AT, Some(expected));
}
