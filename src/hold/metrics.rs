//! Counts of a stand-in.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::refusal::Refusal;
use crate::telemetry::metrics::{HANDED_OVER, HELD, HELD_TOTAL, HOLD_REFUSED, HOLD_WAIT, add};

/// Buckets of the time in the queue, in seconds: engines load for seconds to minutes.
const WAIT_SECONDS: [f64; 11] = [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0];

/// Metrics of a stand-in. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    held: Gauge,
    received: Counter,
    wait: Histogram,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    handed_over: Counter,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            held: Gauge::default(),
            received: Counter::default(),
            wait: Histogram::new(WAIT_SECONDS),
            refused: Family::default(),
            handed_over: Counter::default(),
        };
        add(registry, &HELD, metrics.held.clone());
        add(registry, &HELD_TOTAL, metrics.received.clone());
        add(registry, &HOLD_WAIT, metrics.wait.clone());
        add(registry, &HOLD_REFUSED, metrics.refused.clone());
        add(registry, &HANDED_OVER, metrics.handed_over.clone());
        metrics
    }

    /// Sets the number of requests that wait.
    pub fn held(&self, requests: usize) {
        self.held.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Counts a request that waits from now on.
    pub fn received(&self) {
        self.received.inc();
    }

    /// Counts a request that an engine has accepted after this wait.
    pub fn handed_over(&self, waited: Duration) {
        self.handed_over.inc();
        self.wait.observe(waited.as_secs_f64());
    }

    /// Counts a request without an answer of an engine.
    pub fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&[("cause", refusal.cause())]).inc();
    }
}
