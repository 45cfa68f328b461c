//! Ranks, ServingGroups and spellings of the engines' series.

use kthena_keda_core::signals::Engine;
use rstest::rstest;
use serde_json::Value;

use crate::{AT, engine, engine_query, evaluate};

const QUEUE: &str = "sglang:num_queue_reqs";

/// A series of SGLang's scheduler in one pod.
fn scheduler(group: u32, ranks: &str, values: &str) -> Value {
    engine(QUEUE, group, 0, &format!(r#"model_name="m",engine_type="unified",{ranks}"#), values)
}

#[rstest]
#[case::pipeline(&[r#"tp_rank="0",pp_rank="0",moe_ep_rank="0""#, r#"tp_rank="0",pp_rank="1",moe_ep_rank="0""#, r#"tp_rank="0",pp_rank="2",moe_ep_rank="0""#, r#"tp_rank="0",pp_rank="3",moe_ep_rank="0""#])]
#[case::tensor(&[r#"tp_rank="0",pp_rank="0",moe_ep_rank="0""#, r#"tp_rank="1",pp_rank="0",moe_ep_rank="0""#])]
#[case::expert(&[r#"tp_rank="0",pp_rank="0",moe_ep_rank="0""#, r#"tp_rank="1",pp_rank="0",moe_ep_rank="1""#])]
#[case::priorities(&[r#"tp_rank="0",pp_rank="0""#, r#"tp_rank="0",pp_rank="0",priority="5""#])]
fn ranks_with_the_same_queue_count_once(#[case] ranks: &[&str]) {
    let series: Vec<Value> = ranks.iter().map(|ranks| scheduler(0, ranks, "6x40")).collect();
    let query = engine_query("engine-queue", Engine::Sglang, None);
    evaluate(&format!("ranks-{}", ranks.join("-")), &series, &query, AT, Some(6.0));
}

/// Data parallelism: each rank has its own queue, also where attention alone is parallel and each data rank
/// is a tensor rank, too.
#[test]
fn ranks_with_queues_of_their_own_add_up() {
    let sglang = [
        scheduler(0, r#"tp_rank="0",pp_rank="0",moe_ep_rank="0",dp_rank="0""#, "6x40"),
        scheduler(0, r#"tp_rank="1",pp_rank="0",moe_ep_rank="1",dp_rank="1""#, "5x40"),
        scheduler(0, r#"tp_rank="1",pp_rank="1",moe_ep_rank="1",dp_rank="1""#, "5x40"),
    ];
    evaluate("own-sglang", &sglang, &engine_query("engine-queue", Engine::Sglang, None), AT, Some(11.0));
    let core = |core: u32, values: &str| {
        let labels = format!(r#"model_name="m",engine="{core}""#);
        engine("vllm:num_requests_waiting", 0, 0, &labels, values)
    };
    let vllm = [core(0, "8x40"), core(1, "13x40")];
    evaluate("own-vllm", &vllm, &engine_query("engine-queue", Engine::Vllm, None), AT, Some(21.0));
}

/// A pod template can overwrite the label `modelserving.volcano.sh/group-name`, for all groups or by role.
#[rstest]
#[case::all_alike(["group-0"; 2])]
#[case::by_role(["group-0", "group-1"])]
fn groups_with_an_overwritten_label_stay_apart(#[case] overwritten: [&str; 2]) {
    let series = |group: u32, role: usize, name: &str, value: &str| {
        let series = engine("vllm:kv_cache_usage_perc", group, 0, r#"model_name="m",engine="0""#, value);
        let labels = series["series"].as_str().unwrap();
        let labels = labels
            .replace(&format!(r#"group_name="chat-{group}""#), &format!(r#"group_name="{name}""#))
            .replace(&format!(r#"pod="chat-{group}-0""#), &format!(r#"pod="chat-{group}-role{role}-0-0""#));
        serde_json::json!({"series": labels, "values": series["values"]})
    };
    let all: Vec<Value> = (0..4)
        .flat_map(|group| {
            [series(group, 0, overwritten[0], "0.95x40"), series(group, 1, overwritten[1], "0.2x40")]
        })
        .collect();
    let query = engine_query("kv-cache", Engine::Vllm, None);
    evaluate(&format!("groups-{}", overwritten[1]), &all, &query, AT, Some(3.8));
}

#[rstest]
#[case("engine-queue", Engine::Sglang, "sglang:num_queue_reqs")]
#[case("engine-running", Engine::Sglang, "sglang:num_running_reqs")]
#[case("kv-cache", Engine::Sglang, "sglang:token_usage")]
#[case("engine-queue", Engine::Vllm, "vllm:num_requests_waiting")]
#[case("engine-running", Engine::Vllm, "vllm:num_requests_running")]
#[case("kv-cache", Engine::Vllm, "vllm:kv_cache_usage_perc")]
#[case("kv-cache", Engine::Vllm, "vllm:gpu_cache_usage_perc")]
fn both_spellings_count_once(#[case] signal: &str, #[case] kind: Engine, #[case] metric: &str) {
    let query = engine_query(signal, kind, None);
    let stored = metric.replace(':', "_");
    let series = |metric: &str| engine(metric, 0, 0, r#"model_name="m""#, "40x40");
    for (name, series) in [
        ("colon", vec![series(metric)]),
        ("underscore", vec![series(&stored)]),
        ("both", vec![series(metric), series(&stored)]),
    ] {
        evaluate(&format!("{name}-{metric}"), &series, &query, AT, Some(40.0));
    }
}

/// Both names of vLLM's cache metric, as releases export it that rename it.
#[test]
fn both_names_of_a_metric_count_once() {
    let series = ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]
        .map(|metric| engine(metric, 0, 0, r#"model_name="m",engine="0""#, "0.5x40"));
    evaluate("renamed", &series, &engine_query("kv-cache", Engine::Vllm, None), AT, Some(0.5));
}
