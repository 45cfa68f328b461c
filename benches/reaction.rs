//! How long a step of load takes to reach `spec.replicas`, as a sum of its parts. Prints; asserts nothing.
//!
//! `reaction OPERATOR-BINARY [--steps N] [--scrape SECONDS] [--hpa SECONDS]`, in a network namespace
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "it is run by hand, and prints what it found"
)]

use std::time::{Duration, Instant};

use engine::Load;
use harness::{Chain, ChainSettings, Model};
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let binary = std::env::args().nth(1).unwrap_or_else(|| {
        panic!("usage: reaction OPERATOR-BINARY [--steps N] [--scrape SECONDS] [--hpa SECONDS]")
    });
    let (steps, scrape, hpa) = (argument("--steps", 5), argument("--scrape", 1), argument("--hpa", 2));
    let mut settings = ChainSettings::quick(binary);
    settings.profile = settings.profile.replace("interval: 1s", &format!("interval: {scrape}s"));
    settings.hpa_sync_seconds = hpa;
    let chain = Chain::start(&settings).await;
    let chat = chain.model("step").await;
    chat.serves(&chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load(&chat);
    println!(
        "scrape every {scrape} s, HPA every {hpa} s; KEDA's own polls have no part between one and many"
    );
    println!(
        "{:>4}  {:>18}  {:>18}  {:>8}  {:>20}",
        "step", "load → Prometheus", "→ spec.replicas", "sum", "the operator's share"
    );
    for step in 0..steps {
        chat.has_replicas(1).await;
        // Not always at the same moment of everybody's periods.
        sleep(Duration::from_millis(u64::from(step) * 370)).await;
        let before = chain.stack.requests().len();
        let (known, raised) = one(&chain, &chat, &load).await;
        let asked =
            chain.stack.requests().split_off(before).iter().filter(|request| request.verb != "watch").count();
        println!(
            "{step:>4}  {known:>18.1?}  {:>18.1?}  {raised:>8.1?}  {asked:>11} requests",
            raised.saturating_sub(known)
        );
        load.hold(0);
    }
}

/// From the step until Prometheus knows of it, and until more ServingGroups are wanted.
async fn one(chain: &Chain, chat: &Model, load: &Load) -> (Duration, Duration) {
    let query = format!("sum(kthena_router_active_downstream_requests{{model={:?}}})", chat.name);
    let started = Instant::now();
    load.hold(37);
    let known = async {
        while chain.prometheus.query(&query).await.is_none_or(|value| value < 30.0) {
            sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    };
    let raised = async {
        chat.serving.until("wants more", |found| found.data["spec"]["replicas"].as_i64() > Some(1)).await;
        started.elapsed()
    };
    tokio::join!(known, raised)
}

fn argument(name: &str, default: u32) -> u32 {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}
