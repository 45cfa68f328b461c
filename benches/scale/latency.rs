//! Latency of a change to one model while all others are at rest, measured by watching both objects.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use harness::kinds;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, WatchEvent, WatchParams},
};

use crate::models::{Models, name};

/// Index of the changed model.
const CHANGED: usize = 0;

/// Latencies of many changes in milliseconds, in ascending order.
pub struct Latency {
    /// From the ModelServing's watch event to the ScaledObject's.
    pub events: Vec<f64>,
    /// From the response to the change of the annotation to the ScaledObject's watch event.
    pub responses: Vec<f64>,
}

/// Changes an annotation repeatedly, each time after the operator has written the previous change.
pub async fn latency(models: &Models, changes: usize) -> Latency {
    let mut model_servings = events(models.namespace().api(&kinds::model_serving())).await;
    let mut scaled_objects = events(models.namespace().api(&kinds::scaled_object())).await;
    let (mut latency, mut max) = (Latency { events: Vec::new(), responses: Vec::new() }, 30);
    for _ in 0..changes {
        max += 1;
        let wanted = max.to_string();
        let change = async {
            models.annotate(CHANGED, "autoscaling.kthena.io/max-replicas", Some(&wanted)).await;
            Instant::now()
        };
        let seen = async {
            while model_servings
                .next()
                .await
                .expect("a change")
                .annotations()
                .get("autoscaling.kthena.io/max-replicas")
                != Some(&wanted)
            {}
            Instant::now()
        };
        let followed = async {
            while scaled_objects.next().await.expect("a change").data["spec"]["maxReplicaCount"] != max {}
            Instant::now()
        };
        let (responded, seen, followed) = tokio::join!(change, seen, followed);
        latency.events.push(milliseconds(followed.saturating_duration_since(seen)));
        latency.responses.push(milliseconds(followed.saturating_duration_since(responded)));
        // By then the operator has handled the watch events of its own writes.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    latency.events.sort_by(f64::total_cmp);
    latency.responses.sort_by(f64::total_cmp);
    latency
}

/// Value that `percent` of the sorted values do not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// States of the changed model's object after the present one.
async fn events(api: Api<DynamicObject>) -> impl Stream<Item = DynamicObject> + Unpin {
    let now = api.get(&name(CHANGED)).await.expect("the object").resource_version().unwrap_or_default();
    let params = WatchParams::default().fields(&format!("metadata.name={}", name(CHANGED))).timeout(290);
    let events = api.watch(&params, &now).await.expect("a watch");
    Box::pin(events.into_stream().filter_map(async |event| match event.expect("an event") {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Some(object),
        _ => None,
    }))
}
