//! At the edge of zero, with a cooldown of ten seconds.

use std::time::Duration;

use harness::wait::until_asked_within;
use tokio::time::sleep;

use super::shared::{SETTLED, chain};

/// The longest look back of a query, and some more.
const LOOK_BACK: Duration = Duration::from_mins(3);

#[tokio::test]
async fn a_model_that_is_asked_for_now_and_then_does_not_flap() {
    let Some(chain) = chain().await else { return };
    let chat = chain
        .model_with("now-and-then", |builder| builder.annotated("autoscaling.kthena.io/min-replicas", "0"))
        .await;
    chat.serves(chain).await;
    // Whether somebody woke it is known once Prometheus looks back on two minutes.
    let known = async || chain.prometheus.query("max(kthena_router_active_requests offset 2m)").await;
    until_asked_within(LOOK_BACK, "Prometheus looks back on two minutes", known, Option::is_some).await;
    let load = chain.load_of(&chat.name, 100);
    for _ in 0..4 {
        load.hold(1);
        sleep(Duration::from_secs(2)).await;
        load.hold(0);
        chat.keeps_replicas(1, Duration::from_secs(8)).await;
    }
    chat.wants_replicas_within(LOOK_BACK, 0).await;
    chat.has_replicas(0).await;
    chat.keeps_replicas(0, SETTLED).await;
}
