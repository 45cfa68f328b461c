//! Kubernetes Events on ModelServings, published by one task at a limited rate; reconciles never wait for it.
//!
//! In: events, into a bounded queue. Out: at most [`BURST`] requests at once and one per [`EVENT_REFILL`]
//! thereafter, from the namespaces in turn. If the queue is full, the namespace with the most events loses one, which is counted.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    runtime::{delays::EVENT_REFILL, round_robin::RoundRobin},
    telemetry::metrics::Metrics,
};
use kthena_keda_core::{
    api::{kthena::ModelServing, metadata::OPERATOR},
    domain::{cut, printable},
};

/// Events that may wait in the queue.
const QUEUE_LENGTH: usize = 256;
/// Events that may be published at once, after as many times [`EVENT_REFILL`] without any.
const BURST: u32 = 25;
/// Longest note that the API server accepts, in bytes (Kubernetes `pkg/apis/core/validation/events.go`).
const NOTE_MAX: usize = 1024;

/// An event and the ModelServing that it regards.
type QueuedEvent = (ObjectReference, Event);

/// Events that wait, by namespace.
#[derive(Default)]
struct Queue {
    waiting: Mutex<RoundRobin<QueuedEvent>>,
    any: Notify,
}

/// Sending half of the queue.
#[derive(Clone)]
pub struct Events {
    queue: Arc<Queue>,
    metrics: Metrics,
}

/// Receiving half of the queue, which publishes the events.
pub struct EventPublisher(Arc<Queue>);

/// Both halves of a new queue.
pub fn events(metrics: Metrics) -> (Events, EventPublisher) {
    let queue = Arc::<Queue>::default();
    (Events { queue: queue.clone(), metrics }, EventPublisher(queue))
}

impl Queue {
    /// Adds an event; `false` if that one, or one of a namespace with more, is dropped.
    fn push(&self, (regarding, event): QueuedEvent) -> bool {
        let mut waiting = self.waiting.lock();
        let namespace = regarding.namespace.clone().unwrap_or_default();
        let is_full = waiting.len() >= QUEUE_LENGTH;
        if !is_full || waiting.displace_for(&namespace).is_some() {
            waiting.push(&namespace, (regarding, event));
            self.any.notify_one();
        }
        !is_full
    }

    /// Waits until an event waits.
    async fn wait_filled(&self) {
        while self.waiting.lock().is_empty() {
            self.any.notified().await;
        }
    }

    fn pop(&self) -> Option<QueuedEvent> {
        self.waiting.lock().pop()
    }
}

impl Events {
    /// Queues a `Warning`, for what needs action.
    pub fn warning(&self, regarding: &ModelServing, reason: &str, note: &str) {
        self.enqueue(regarding, EventType::Warning, reason, note);
    }

    /// Queues a `Normal` event.
    pub fn normal(&self, regarding: &ModelServing, reason: &str, note: &str) {
        self.enqueue(regarding, EventType::Normal, reason, note);
    }

    fn enqueue(&self, regarding: &ModelServing, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(cut(&printable(note), NOTE_MAX).into_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if !self.queue.push((regarding.object_ref(&()), event)) {
            let dropped = self.metrics.dropped_event();
            tracing::debug!(dropped, reason, "the event queue is full; dropped an event");
        }
    }
}

/// Token bucket of [`BURST`] tokens that regains one per [`EVENT_REFILL`].
#[derive(Debug)]
struct TokenBucket {
    /// Instant at which the bucket is full again: each missing token puts it one refill into the future.
    full_at: Instant,
}

impl TokenBucket {
    fn full() -> Self {
        Self { full_at: Instant::now() }
    }

    /// Takes a token; waits for one if the bucket is empty.
    async fn take(&mut self) {
        let now = Instant::now();
        self.full_at = self.full_at.max(now) + EVENT_REFILL;
        let wait = self.full_at.duration_since(now).saturating_sub(EVENT_REFILL * BURST);
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
    }
}

impl EventPublisher {
    /// Publishes events until the process ends.
    pub async fn run(self, client: Client) {
        let reporter = Reporter { controller: OPERATOR.to_owned(), instance: None };
        let mut bucket = TokenBucket::full();
        loop {
            self.0.wait_filled().await;
            bucket.take().await;
            // Only now, so that events that came meanwhile get their turn.
            let Some((regarding, event)) = self.0.pop() else { continue };
            // A recorder of its own for each event: a recorder with a cache treats an event as a repetition
            // of an earlier one with the same reason, and drops the new note.
            let recorder = Recorder::new(client.clone(), reporter.clone());
            if let Err(error) = recorder.publish(&event, &regarding).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    reason = event.reason,
                    "cannot publish an event; dropped it"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use serde_json::json;
    use tokio::time::advance;

    use super::*;

    /// A publisher at work, and the events that the API server received.
    struct Published {
        events: Events,
        registry: Registry,
        /// Seconds since the start.
        seconds: Arc<Mutex<Vec<f64>>>,
        paths: Arc<Mutex<Vec<String>>>,
    }

    impl Published {
        fn start() -> Self {
            let mut registry = Registry::default();
            let (events, publisher) = events(Metrics::new(&mut registry));
            let (start, seconds) = (Instant::now(), Arc::<Mutex<Vec<f64>>>::default());
            let paths = Arc::<Mutex<Vec<String>>>::default();
            let recorded = (seconds.clone(), paths.clone());
            let api_server = move |request: http::Request<Body>| {
                recorded.0.lock().push(start.elapsed().as_secs_f64());
                recorded.1.lock().push(request.uri().path().to_owned());
                async move {
                    let body = request.into_body().collect_bytes().await?;
                    Ok::<_, kube::Error>(http::Response::new(Body::from(body)))
                }
            };
            let client = Client::new(tower::service_fn(api_server), "models");
            tokio::spawn(publisher.run(client));
            Self { events, registry, seconds, paths }
        }

        fn emit(&self) {
            self.emit_in("models");
        }

        fn emit_in(&self, namespace: &str) {
            let chat = json!({"metadata": {"name": "chat", "namespace": namespace, "uid": "u"}});
            self.events.normal(&serde_json::from_value(chat).unwrap(), "Scaling", "scales");
        }

        /// Emits an event every 100 ms.
        async fn emit_for(&self, duration: Duration) {
            let end = Instant::now() + duration;
            while Instant::now() < end {
                self.emit();
                sleep(Duration::from_millis(100)).await;
            }
        }

        fn count(&self) -> usize {
            self.seconds.lock().len()
        }

        fn dropped(&self) -> usize {
            let mut text = String::new();
            encode(&mut text, &self.registry).unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix("kthena_keda_events_dropped_total "));
            value.unwrap().parse().unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_is_limited_to_the_burst_and_five_per_second() {
        let published = Published::start();
        published.emit_for(Duration::from_mins(1)).await;
        let seconds = published.seconds.lock().clone();
        assert!((324..=326).contains(&seconds.len()), "25 + 300: {}", seconds.len());
        let after = |second: f64| seconds.iter().filter(|at| **at >= second && **at < second + 10.0).count();
        assert!((74..=76).contains(&after(0.0)), "25 + 50: {}", after(0.0));
        assert!((49..=51).contains(&after(30.0)), "50: {}", after(30.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_burst_is_back_after_a_quiet_time() {
        let published = Published::start();
        for burst in 1..=2 {
            for _ in 0..30 {
                published.emit();
            }
            sleep(Duration::from_millis(10)).await;
            assert_eq!(published.count(), (burst - 1) * 30 + 25);
            // Five seconds for the rest of the queue, and 25 to fill the bucket.
            sleep(Duration::from_secs(31)).await;
            assert_eq!(published.count(), burst * 30);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_quiet_time_brings_back_a_part_of_the_burst() {
        let mut bucket = TokenBucket::full();
        for _ in 0..BURST {
            bucket.take().await;
        }
        advance(EVENT_REFILL * 3).await;
        let start = Instant::now();
        for _ in 0..3 {
            bucket.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        bucket.take().await;
        assert_eq!(start.elapsed(), EVENT_REFILL);
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_find_the_queue_full_are_dropped_and_counted() {
        let published = Published::start();
        // The publisher does not run between these lines.
        for _ in 0..QUEUE_LENGTH + 7 {
            published.emit();
        }
        assert_eq!(published.dropped(), 7);
        sleep(EVENT_REFILL * 256).await;
        assert_eq!((published.count(), published.dropped()), (QUEUE_LENGTH, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_one_namespace_displace_none_of_another() {
        let published = Published::start();
        for _ in 0..2 * QUEUE_LENGTH {
            published.emit_in("many");
        }
        published.emit_in("few");
        assert_eq!(published.dropped(), QUEUE_LENGTH + 1);
        sleep(Duration::from_millis(10)).await;
        let paths = published.paths.lock().clone();
        assert_eq!(paths.iter().position(|path| path.contains("/namespaces/few/")), Some(1), "{paths:?}");
        sleep(EVENT_REFILL * 256).await;
        assert_eq!(published.count(), QUEUE_LENGTH);
    }
}
