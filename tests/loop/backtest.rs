//! `backtest` on the Prometheus of the chain: the replay equals what the real KEDA and the real HPA did.

use std::{process::Command, time::Duration};

use harness::{Chain, ChainSettings, Model, chain::can_run};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::shared::BINARY;

/// Period of the HPA's syncs, in seconds.
const SYNC_PERIOD: u32 = 5;

/// Runs `backtest` over the last seconds.
fn backtest(chain: &Chain, chat: &Model, seconds: u64, arguments: &[&str]) -> Value {
    let output = Command::new(BINARY)
        .args(["backtest", &format!("{}/chat", chat.serving.namespace.name), "--step=1s", "-o", "json"])
        .arg(format!("--since={seconds}s"))
        .arg(format!("--prometheus-url={}", chain.prometheus.url))
        .arg(format!("--hpa-sync-period={SYNC_PERIOD}"))
        // No response of the load ends by itself.
        .args(["--service-time=10m", "--cold-start=1s"])
        .args(arguments)
        .env("KUBECONFIG", chain.stack.control_plane.kubeconfig(&harness::Identity::Admin))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_replay_equals_the_real_autoscaling() {
    if !can_run() {
        return;
    }
    let mut settings = ChainSettings::quick(BINARY);
    settings.hpa_sync_seconds = SYNC_PERIOD;
    settings.operator_interval = Some("1s");
    let chain = Chain::start(&settings).await;
    let chat = chain.model("replayed").await;
    chat.serves(&chain).await;
    chat.keda_says("Ready", "True").await;
    let spec = || chain.prometheus.query("max(kthena_keda_replicas{state=\"spec\"})");
    harness::wait::until_asked("Prometheus scrapes the operator", spec, Option::is_some).await;
    let load = chain.load(&chat);
    let started = Instant::now();
    // Long enough that one change which a busy machine delays by a sync stays within the bounds below.
    for (requests, seconds) in [(0, 10), (37, 80), (12, 50), (55, 70), (0, 30)] {
        load.hold(requests);
        sleep(Duration::from_secs(seconds)).await;
    }
    let report = backtest(&chain, &chat, started.elapsed().as_secs(), &[]);
    let fidelity = &report["fidelity"];
    assert!(fidelity["equal"].as_f64().unwrap() >= 0.95, "{fidelity}");
    let [simulated, recorded] =
        ["simulatedHours", "recordedHours"].map(|hours| fidelity[hours].as_f64().unwrap());
    // A second's difference at a change of five ServingGroups is half a percent of the run.
    assert!((simulated / recorded - 1.0).abs() <= 0.03, "{fidelity}");
    // A period of the syncs, a scrape of the router and one of the operator.
    assert!(fidelity["longestDifference"].as_u64().unwrap() <= u64::from(SYNC_PERIOD) + 2, "{fidelity}");
    assert_eq!(fidelity["simulatedPeak"], fidelity["recordedPeak"], "{fidelity}");
    let run = |name: &str| report["runs"].as_array().unwrap().iter().find(|run| run["name"] == name).unwrap();
    assert_eq!(run("actual")["peak"], 6, "{report}");
    assert_eq!(run("now")["peak"], 6, "{report}");
}
