//! Up and down with the load, by KEDA's and the HPA's own doing.

use std::time::Duration;

use super::shared::chain;

#[tokio::test]
async fn out_with_the_load_to_what_it_needs_and_in_again() {
    let Some(chain) = chain().await else { return };
    let chat = chain.model("llama").await;
    chat.serves(chain).await;
    chat.keda_says("Ready", "True").await;
    let load = chain.load(&chat);
    // 10 requests a ServingGroup: 37 need four.
    load.hold(37);
    chat.has_replicas(4).await;
    chat.keeps_replicas(4, Duration::from_secs(6)).await;
    load.hold(17);
    chat.has_replicas(2).await;
    load.hold(0);
    chat.has_replicas(1).await;
}
