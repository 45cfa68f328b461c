//! Scale to zero with a cooldown of ten seconds.

use std::time::Duration;

use harness::wait::until_asked_within;
use tokio::time::sleep;

use super::shared::{SETTLED, chain};

/// The longest range of a query, and a margin.
const LOOK_BACK: Duration = Duration::from_mins(3);

#[tokio::test]
async fn sporadic_requests_do_not_make_a_model_flap() {
    let Some(chain) = chain().await else { return };
    let chat = chain
        .model_with("now-and-then", |builder| builder.annotated("autoscaling.kthena.io/min-replicas", "0"))
        .await;
    chat.serves(chain).await;
    // The activation query compares with a total that is two minutes old, in steps of 15 seconds.
    let oldest = async || chain.prometheus.query("max(kthena_router_active_requests offset 140s)").await;
    until_asked_within(LOOK_BACK, "Prometheus has 140 seconds of data", oldest, Option::is_some).await;
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
