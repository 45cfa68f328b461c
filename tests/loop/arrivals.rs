//! Arrivals at the real router, on which the bounded backlog rests: every request is counted once, by the gauge while it is in flight
//! and by the counter afterwards, however it ends.

use std::time::Duration;

use engine::{Engine, EngineSettings, Load, LoadSettings};
use harness::{Chain, ChainSettings, Model, chain::can_run, kinds, neighbours::Router, wait::until_asked};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use super::shared::{BINARY, explain};

/// Windows of the arrival rate, of which the greater rate counts, and a margin of a few scrapes.
const SHORT_WINDOW: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_mins(1);
const MARGIN: Duration = Duration::from_secs(5);

/// Tokens of an answer that outlasts the test.
const ENDLESS: u32 = 100_000;

fn load(router: &Router, model: &str, tokens: u32) -> Load {
    Load::start(LoadSettings {
        router: router.url.clone(),
        model: model.to_owned(),
        tokens,
        most_requests: 20_000,
    })
}

/// Sends requests of every ending within half a minute. Returns the number of those for the model's two names, and
/// streams that are still in flight.
async fn mixed_load(routers: [&Router; 2], names: [&str; 2]) -> (f64, Load) {
    let [first, second] = routers;
    let [name, limited] = names;
    let short = load(first, name, 20);
    let aborted = load(second, name, ENDLESS);
    let streams = load(second, name, ENDLESS);
    let refused = load(first, name, 300);
    let over_the_limit = load(second, limited, 5);
    let unknown = load(first, "no-such-model", 5);
    short.arrive(4, 1000);
    streams.hold(3);
    unknown.hold(1);
    over_the_limit.hold(1);
    for round in 0..3 {
        // Half of them wait in the engine, and all are aborted by the client.
        aborted.hold(8);
        sleep(Duration::from_secs(2)).await;
        aborted.hold(0);
        // More than the router sends to an engine with ten waiting requests: it refuses the rest at once.
        refused.hold(if round % 2 == 0 { 40 } else { 0 });
        sleep(Duration::from_secs(4)).await;
    }
    for load in [&short, &refused, &unknown, &over_the_limit] {
        load.hold(0);
    }
    sleep(Duration::from_secs(1)).await;
    let sent: u64 =
        [&short, &aborted, &streams, &refused, &over_the_limit].map(|load| load.counts().sent).iter().sum();
    (f64::from(u32::try_from(sent).unwrap()), streams)
}

/// Arrivals within the window that `explain` shows.
fn arrivals(chain: &Chain, chat: &Model) -> Option<f64> {
    let (report, _) = explain(chain, chat);
    report["signals"][0]["backlog"]["arrivalsPerSecond"].as_f64().map(|rate| rate * WINDOW.as_secs_f64())
}

#[tokio::test]
async fn arrivals_are_completions_and_the_change_in_flight() {
    if !can_run() {
        return;
    }
    let chain = Chain::start(&ChainSettings::quick(BINARY)).await;
    let engine = Engine::start(EngineSettings { concurrency: 4, ..EngineSettings::default() });
    let chat = chain
        .model_on(&engine, "arriving,limited", |builder| {
            builder
                .annotated("autoscaling.kthena.io/service-time", "60s")
                .annotated("autoscaling.kthena.io/max-replicas", "1")
        })
        .await;
    let limit = json!({"spec": {"rateLimit": {"inputTokensPerUnit": 5, "unit": "hour"}}});
    let routes = chat.serving.namespace.api(&kinds::model_route());
    routes.patch("chat-1", &PatchParams::default(), &Patch::Merge(&limit)).await.unwrap();
    let client = chat.client().clone();
    let mut second = Router::start(&chain.stack.control_plane, &client, "kthena-router-1").await;
    until_asked(
        "the router serves the model",
        async || {
            let load = load(&chain.router, "arriving", 1);
            load.hold(1);
            sleep(Duration::from_secs(1)).await;
            load.counts().served
        },
        |served| *served > 0,
    )
    .await;
    chain.prometheus.until("count(kthena_router_active_requests)", |count| count == Some(2.0)).await;
    // Both routers are older than the window, and the first requests have left it.
    sleep(WINDOW + MARGIN).await;

    let counted = async |codes: &str| {
        let series =
            format!(r#"kthena_router_requests_total{{model=~"arriving|limited",status_code=~"{codes}"}}"#);
        chain.prometheus.query(&format!("sum({series})")).await.unwrap_or_default()
    };
    let before = [counted("400|429").await, counted(".+").await];
    let (sent, streams) = mixed_load([&chain.router, &second], ["arriving", "limited"]).await;
    // The shorter window is empty again, and the longer one holds everything.
    sleep(SHORT_WINDOW + Duration::from_secs(2)).await;
    let arrived = arrivals(&chain, &chat).unwrap();
    let [refused, ended] = [counted("400|429").await - before[0], counted(".+").await - before[1]];
    let in_flight = f64::from(u32::try_from(streams.counts().in_flight).unwrap());

    assert!(refused > 40.0 && in_flight > 2.0, "{refused} {in_flight}");
    is_near(ended + in_flight, sent);
    is_near(arrived, sent);

    // A router that begins again has lost its counters: all requests in flight count until it is older than the window.
    second.program.kill();
    second.program.start();
    second.ready().await;
    chain.prometheus.until("count(up == 1)", |count| count > Some(1.0)).await;
    until_asked("the arrivals cannot be measured", async || arrivals(&chain, &chat), Option::is_none).await;
}

/// Within two percent.
fn is_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 0.02 * expected, "found {found}, expected {expected}");
}
