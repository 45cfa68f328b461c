//! Leader election, queues, retries and watches that survive failures; knows no kind and no model.

pub mod backoff;
pub mod delays;
pub mod fair_queue;
pub mod lease;
pub mod resilient_watch;
pub mod round_robin;
