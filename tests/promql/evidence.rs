//! Evidence for 0: a monitor that drops a metric or a label makes data missing, not 0.

use rstest::rstest;
use serde_json::Value;

use crate::{AT, evaluate, idle, in_flight, query, router, service, target, with};

const GAUGES: [&str; 3] = ["active-requests", "queued-requests", "activation"];
const RATES: [&str; 2] = ["request-rate", "output-tokens"];

/// The counters of a router that serves the model.
fn counters(model: &str) -> Vec<Value> {
    let of_model = |labels: &str| format!(r#"model="{model}",path="/v1",{labels}"#);
    vec![
        router("kthena_router_requests_total", "r-0", &of_model(r#"status_code="200""#), "0+15x40"),
        router("kthena_router_tokens_total", "r-0", &of_model(r#"token_type="output""#), "0+15x40"),
    ]
}

#[test]
fn a_dropped_gauge_is_no_answer() {
    // The monitor keeps the counters alone.
    let kept = with(target("r-0", "x40", 60, 4), counters("m"));
    evaluate("dropped-gauge", &kept, &query("active-requests", "m", service()), AT, None);
    // It keeps nothing of a router that has had requests.
    let none = target("r-0", "x40", 60, 0);
    for signal in ["active-requests", "request-rate", "output-tokens"] {
        evaluate(&format!("dropped-all-{signal}"), &none, &query(signal, "m", service()), AT, None);
    }
    // It keeps the gauge of all requests, which are some.
    let busy =
        with(target("r-0", "x40", 60, 1), [router("kthena_router_active_requests", "r-0", "", "7x40")]);
    evaluate("dropped-busy", &busy, &query("active-requests", "m", service()), AT, None);
}

#[rstest]
fn a_dropped_counter_is_no_answer(#[values("request-rate", "output-tokens")] signal: &str) {
    let gauges = [router("kthena_router_active_requests", "r-0", "", "1x40"), in_flight("r-0", "m", "1x40")];
    let kept = with(target("r-0", "x40", 60, 2), gauges);
    evaluate(&format!("dropped-{signal}"), &kept, &query(signal, "m", service()), AT, None);
}

/// Monitors often drop the buckets of histograms, which no signal needs.
#[rstest]
fn dropped_buckets_leave_0_without_requests(
    #[values("active-requests", "queued-requests", "request-rate", "output-tokens", "activation")]
    signal: &str,
) {
    let dropped = || target("r-0", "x40", 60, 40);
    let gauge = router("kthena_router_active_requests", "r-0", "", "3x40");
    let new = with(with(dropped(), [gauge, in_flight("r-0", "other", "3x40")]), counters("other"));
    evaluate(&format!("buckets-{signal}"), &new, &query(signal, "m", service()), AT, Some(0.0));
    // Routers before Kthena 1.0.
    let old = with(with(dropped(), [in_flight("r-0", "other", "3x40")]), counters("other"));
    evaluate(&format!("buckets-old-{signal}"), &old, &query(signal, "m", service()), AT, Some(0.0));
}

/// Without the label `pod` the requests of two routers would become those of the busier one.
#[test]
fn series_without_a_pod_are_no_answer() {
    let without_pod = |series: Value| -> Value {
        let labels =
            series["series"].as_str().unwrap().replace(r#"pod="r-0","#, "").replace(r#"pod="r-1","#, "");
        serde_json::json!({"series": labels, "values": series["values"]})
    };
    let both = [("r-0", "40x40", "10.0.0.1"), ("r-1", "38x40", "10.0.0.2")];
    let gauges = both.map(|(pod, values, address)| {
        let series = without_pod(in_flight(pod, "m", values));
        let labels = series["series"].as_str().unwrap().replace("10.0.0.1", address);
        serde_json::json!({"series": labels, "values": values})
    });
    let series: Vec<Value> =
        with(idle("r-0", "x40"), []).into_iter().map(without_pod).chain(gauges).collect();
    for signal in GAUGES.into_iter().chain(RATES) {
        evaluate(&format!("no-pod-{signal}"), &series, &query(signal, "m", service()), AT, None);
    }
    // A second monitor, whose series have pods, counts alone.
    let ours = [in_flight("r-0", "m", "40x40"), in_flight("r-1", "m", "38x40")];
    evaluate("no-pod-beside", &with(series, ours), &query("active-requests", "m", service()), AT, Some(78.0));
}

#[test]
fn an_engine_without_a_pod_is_no_answer() {
    let labels = r#"job="theirs",namespace="team-a",modelserving_volcano_sh_name="chat",model_name="m""#;
    let series: Vec<Value> = ["10.0.0.1:8000", "10.0.0.2:8000"]
        .map(|instance| {
            let name = format!(r#"vllm:num_requests_waiting{{{labels},instance="{instance}"}}"#);
            serde_json::json!({"series": name, "values": "4x40"})
        })
        .to_vec();
    let query = crate::engine_query("engine-queue", kthena_keda_core::signals::Engine::Vllm, None);
    evaluate("engine-no-pod", &series, &query, AT, None);
}
