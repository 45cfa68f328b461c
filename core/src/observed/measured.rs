//! Measurements in the history of a model.

use crate::domain::{Latency, ServiceTime};

/// Results of the operator's last look at the history of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// Time for one request that does not wait; `None` without confidence.
    pub service_time: Option<ServiceTime>,
    /// `true` if requests waited for most of the last day although more ServingGroups were allowed.
    pub has_standing_queue: bool,
    /// Lowest P90 of each latency signal in the last day, in milliseconds, while the engines had little to do; none without such a time.
    pub idle_latencies: Vec<(Latency, u32)>,
}
