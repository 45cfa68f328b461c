//! Signals of one role of a ModelServing.

use kthena_keda_core::signals::{Engine, EngineSeries};
use rstest::rstest;
use serde_json::{Value, json};

use crate::{AT, engine_query_of, engine_series, evaluate};

/// A series of the entry pod of an instance of a role.
fn instance(metric: &str, group: u32, role: &str, index: u32, values: &str) -> Value {
    let pod = format!("chat-{group}-{role}-{index}-0");
    let labels = format!(
        r#"namespace="team-a",pod="{pod}",model_name="m",modelserving_volcano_sh_name="chat",modelserving_volcano_sh_group_name="chat-{group}",modelserving_volcano_sh_role="{role}""#
    );
    json!({"series": format!("{metric}{{{labels}}}"), "values": values})
}

fn query(signal: &str, engine: Engine, role: &str) -> String {
    engine_query_of(signal, &EngineSeries { role: Some(role.to_owned()), ..engine_series(engine) })
}

/// Two instances of prefill, one of them in each of two ServingGroups, beside a busier role.
#[rstest]
#[case("engine-queue", Engine::Vllm, "vllm:num_requests_waiting")]
#[case("engine-running", Engine::Vllm, "vllm:num_requests_running")]
#[case("engine-queue", Engine::Sglang, "sglang:num_queue_reqs")]
#[case("engine-running", Engine::Sglang, "sglang:num_running_reqs")]
fn requests_of_other_roles_do_not_count(#[case] signal: &str, #[case] engine: Engine, #[case] metric: &str) {
    let series = [
        instance(metric, 0, "prefill", 0, "6x40"),
        instance(metric, 1, "prefill", 0, "4x40"),
        instance(metric, 0, "decode", 0, "50x40"),
        instance(metric, 0, "prefill-long", 0, "50x40"),
    ];
    let query = query(signal, engine, "prefill");
    evaluate(&format!("role-{}", metric.replace(':', "-")), &series, &query, AT, Some(10.0));
}

/// The instances of a role in one ServingGroup each have a cache of their own.
#[rstest]
#[case(Engine::Vllm, "vllm:kv_cache_usage_perc")]
#[case(Engine::Sglang, "sglang:token_usage")]
fn the_caches_of_instances_add_up(#[case] engine: Engine, #[case] metric: &str) {
    let series = [
        instance(metric, 0, "decode", 0, "0.5x40"),
        instance(metric, 0, "decode", 1, "0.75x40"),
        instance(metric, 1, "decode", 0, "0.25x40"),
        instance(metric, 0, "prefill", 0, "1x40"),
    ];
    let query = query("kv-cache", engine, "decode");
    evaluate(&format!("role-{}", metric.replace(':', "-")), &series, &query, AT, Some(1.5));
}
