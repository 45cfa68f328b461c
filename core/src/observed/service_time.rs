//! The service time in the history of a model.

use crate::domain::ServiceTime;

/// Results of the operator's last look at the history of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeasuredServiceTime {
    /// Time for one request that does not wait; `None` without confidence.
    pub time: Option<ServiceTime>,
    /// `true` if requests waited for most of the last day although more ServingGroups were allowed.
    pub has_standing_queue: bool,
}
