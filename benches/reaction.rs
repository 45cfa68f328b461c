//! Time from a step of load to `spec.replicas`, with the shares of Prometheus and of KEDA and the HPA. Prints
//! results and asserts nothing.
//!
//! Usage, in the tests' network namespace:
//! `reaction OPERATOR-BINARY [--steps N] [--scrape SECONDS] [--hpa SECONDS]`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "a manual benchmark, which prints its results and stops by panicking"
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
        "scrape interval {scrape} s, HPA sync period {hpa} s; KEDA's polling interval only matters between 0 and 1"
    );
    println!(
        "{:>4}  {:>18}  {:>18}  {:>8}  {:>20}",
        "step", "load → Prometheus", "→ spec.replicas", "total", "operator requests"
    );
    for step in 0..steps {
        chat.has_replicas(1).await;
        // Start each step at another phase of the scrape and sync periods.
        sleep(Duration::from_millis(u64::from(step) * 370)).await;
        let before = chain.stack.requests().len();
        let (seen, scaled) = step_once(&chain, &chat, &load).await;
        let requests =
            chain.stack.requests().split_off(before).iter().filter(|request| request.verb != "watch").count();
        println!(
            "{step:>4}  {seen:>18.1?}  {:>18.1?}  {scaled:>8.1?}  {requests:>20}",
            scaled.saturating_sub(seen)
        );
        load.hold(0);
    }
}

/// Times from a step of load until Prometheus has the new value, and until `spec.replicas` rises.
async fn step_once(chain: &Chain, chat: &Model, load: &Load) -> (Duration, Duration) {
    let query = format!("sum(kthena_router_active_downstream_requests{{model={:?}}})", chat.name);
    let started = Instant::now();
    load.hold(37);
    let seen = async {
        while chain.prometheus.query(&query).await.is_none_or(|value| value < 30.0) {
            sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    };
    let scaled = async {
        chat.serving.until("wants more", |found| found.data["spec"]["replicas"].as_i64() > Some(1)).await;
        started.elapsed()
    };
    tokio::join!(seen, scaled)
}

fn argument(name: &str, default: u32) -> u32 {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}
