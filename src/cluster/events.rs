//! Events on ModelServings: told by one worker of low priority, never waited for.
//!
//! Whoever has something to tell hands it over and goes on; what comes faster than the worker may tell is dropped and counted.

use std::time::Duration;

use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc, time::sleep};

use crate::telemetry::metrics::Metrics;
use kthena_keda_core::api::{kthena::ModelServing, metadata::OPERATOR};

/// How many may wait to be told.
const WAITING: usize = 256;
/// How many are told at once after some quiet.
const BURST: u32 = 25;
/// How often one more may be told.
const REFILL: Duration = Duration::from_secs(1);
/// The longest note that the API server accepts, in bytes (Kubernetes `pkg/apis/core/validation/events.go`).
const NOTE_MAX: usize = 1024;

/// What is told about a ModelServing.
type QueuedEvent = (k8s_openapi::api::core::v1::ObjectReference, Event);

/// Takes what is to be told.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<QueuedEvent>,
    metrics: Metrics,
}

/// Tells it.
#[derive(Debug)]
pub struct EventPublisher(mpsc::Receiver<QueuedEvent>);

/// The two ends.
pub fn events(metrics: Metrics) -> (Events, EventPublisher) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Events { sender, metrics }, EventPublisher(receiver))
}

impl Events {
    /// Something that has to be done.
    pub fn warning(&self, about: &ModelServing, reason: &str, note: &str) {
        self.tell(about, EventType::Warning, reason, note);
    }

    /// Something that is good to know.
    pub fn normal(&self, about: &ModelServing, reason: &str, note: &str) {
        self.tell(about, EventType::Normal, reason, note);
    }

    fn tell(&self, about: &ModelServing, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(cut(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if self.sender.try_send((about.object_ref(&()), event)).is_err() {
            let dropped = self.metrics.dropped_event();
            tracing::debug!(dropped, "too many events at once; one is dropped");
        }
    }
}

fn cut(note: &str) -> String {
    let mut end = note.len().min(NOTE_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default().to_owned()
}

impl EventPublisher {
    /// Tells for life, at its own pace.
    pub async fn run(mut self, client: Client) {
        let reporter = Reporter { controller: OPERATOR.to_owned(), instance: None };
        let mut tokens = BURST;
        while let Some((about, event)) = self.0.recv().await {
            if tokens == 0 {
                sleep(REFILL).await;
            } else {
                tokens -= 1;
            }
            if self.0.is_empty() {
                tokens = tokens.saturating_add(1).min(BURST);
            }
            // A recorder of its own for each: one that remembers would take an event for a repetition of an earlier one with the same
            // reason, and drop what it says.
            let recorder = Recorder::new(client.clone(), reporter.clone());
            if let Err(error) = recorder.publish(&event, &about).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    reason = event.reason,
                    "an event could not be told"
                );
            }
        }
    }
}
