//! Doubts about latency signals.

use rstest::rstest;
use serde_json::json;

use super::plan;
use crate::{domain::Latency, observed::fixture::Fixture};

/// Warnings of a model whose engines have this lowest latency, in milliseconds.
fn warnings(signals: &str, idle_latencies: &[(Latency, u32)]) -> String {
    let fixture = Fixture::model("llama")
        .route("llama", &["chat"])
        .server("chat", "chat", &json!({"inferenceEngine": "vLLM"}))
        .annotated("signals", signals);
    let mut observed = fixture.observed();
    observed.measured.idle_latencies = idle_latencies.to_vec();
    plan(&observed, fixture.capabilities, &fixture.defaults).warnings.join("; ")
}

#[rstest]
#[case::attainable("ttft-p90=2s", &[(Latency::FirstToken, 1000)], None)]
#[case::too_short("ttft-p90=2s", &[(Latency::FirstToken, 1100)], Some("ttft-p90 was 1100ms or more in the last day while the engines had little to do, which is above half of its objective 2s, so the model grows to its maximum under any load; set the objective to at least 3300ms"))]
#[case::other_latency("ttft-p90=2s", &[(Latency::InterToken, 1100)], None)]
#[case::not_measured("ttft-p90=2s", &[], None)]
#[case::one_of_two("ttft-p90=2s,itl-p90=50ms", &[(Latency::FirstToken, 100), (Latency::InterToken, 40)], Some("itl-p90 was 40ms or more"))]
fn warns_of_an_objective_that_cannot_be_met(
    #[case] signals: &str,
    #[case] idle_latencies: &[(Latency, u32)],
    #[case] expected: Option<&str>,
) {
    let found = warnings(&format!("active-requests=10,{signals}"), idle_latencies);
    assert_eq!(found.contains("had little to do"), expected.is_some(), "{found}");
    assert!(expected.is_none_or(|expected| found.contains(expected)), "{found}");
}
