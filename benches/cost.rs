//! What the operator costs a cluster, measured on a real API server: writes, latency, memory, size. Prints; asserts nothing.
//!
//! `cost OPERATOR-BINARY [--models N] [--rest SECONDS]`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it is run by hand, and prints what it found"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use harness::{Crds, ModelServing, Process, Settings, Stack, audit::summary, kinds, neighbours::Prometheus, wait};
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let (models, rest) = (argument("--models", 200), Duration::from_secs(argument("--rest", 60)));
    let binary = std::env::args().nth(1).unwrap_or_else(|| panic!("usage: cost OPERATOR-BINARY [--models N] [--rest SECONDS]"));
    println!("binary                     {:.1} MB", fs::metadata(&binary).unwrap().len() as f64 / 1e6);
    let stack = Stack::start(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let prometheus = Prometheus::bare(&stack.control_plane.folder).await;
    let settings = Settings::new(binary).without("--log-level").without("--check-interval").without("--prometheus-url");
    let settings = settings.with(&format!("--prometheus-url={}", prometheus.url));

    let operator = start_to_ready(&stack, &settings).await;
    println!("memory, no model           {}", memory(&operator));
    let chats = create(&stack, models).await;
    latency(chats.first().unwrap()).await;
    println!("memory, {models} models         {}", memory(&operator));

    assert!(operator.terminate());
    let before = stack.writes().len();
    let operator = stack.start_operator(&settings);
    chats.first().unwrap().namespace.model_serving("sentinel").opted_in("llama").create().await.scaled_object().await;
    let others: Vec<_> = stack.writes().split_off(before).into_iter().filter(|write| write.object_ref.name != "sentinel").collect();
    println!("writes after a restart     {} with {models} models {:?}", others.len(), summary(&others));

    let (writes, requests) = (stack.writes().len(), stack.requests().len());
    let questions = prometheus.questions().await;
    sleep(rest).await;
    println!("questions to Prometheus in {rest:?}, one check a minute   {} for {models} models", prometheus.questions().await - questions);
    let (writes, requests) = (stack.writes().split_off(writes), stack.requests().split_off(requests));
    println!("writes in {rest:?} at rest     {}", writes.len());
    println!("requests in {rest:?} at rest   {} {:?}", requests.len(), summary(&requests));
    println!("memory, {models} models, settled {}", memory(&operator));
}

fn argument(name: &str, default: u64) -> u64 {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Ready is when a model that was waiting is worked on.
async fn start_to_ready(stack: &Stack, settings: &Settings) -> Process {
    let waiting = stack.namespace().await.model_serving("waiting").create().await;
    let started = Instant::now();
    let operator = stack.start_operator(settings);
    waiting.until("has a selector", |found| found.data["status"]["labelSelector"].is_string()).await;
    println!("start to first write       {:.0?}", started.elapsed());
    operator
}

async fn create(stack: &Stack, count: u64) -> Vec<ModelServing> {
    let namespace = stack.namespace().await;
    let mut chats = Vec::new();
    let started = Instant::now();
    for i in 0..count {
        chats.push(namespace.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await);
    }
    let created = started.elapsed();
    let api = namespace.api(&kinds::scaled_object());
    for chat in &chats {
        wait::until(&api, &chat.name, "exists", |found| found.is_some()).await;
    }
    println!("{count} models                 created in {created:.1?}, all planned after {:.1?}", started.elapsed());
    chats
}

/// From the answer to an annotation's change until the ScaledObject's change is seen.
async fn latency(chat: &ModelServing) {
    let mut times = Vec::new();
    for max in 20..70 {
        let started = Instant::now();
        chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some(&max.to_string()))]).await;
        chat.scaled_object_until("follows", |found| found.data["spec"]["maxReplicaCount"] == max).await;
        times.push(started.elapsed());
    }
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("annotation to ScaledObject p50 {:.0?}, p95 {:.0?}, max {:.0?}, of {}", at(50), at(95), times[times.len() - 1], times.len());
}

fn memory(operator: &Process) -> String {
    let (now, peak) = operator.memory().unwrap_or_default();
    format!("{:.1} MB resident, {:.1} MB at most", now as f64 / 1024.0, peak as f64 / 1024.0)
}
