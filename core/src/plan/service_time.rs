//! The service time in force.

use super::{ResolvedIntent, triggers::Triggers};
use crate::{
    api::annotations::AnnotationKey,
    domain::{ServiceTime, ServiceTimeSetting},
    intent::Intent,
    observed::{Observed, Ownership},
};

/// Change of a measured time at which the query changes, in percent: each change restarts nothing, but is a write.
const ADOPTED: u32 = 20;
/// Difference to the measured time at which a time that a user set is reported, in percent.
const DRIFT: u32 = 30;

/// Time for one request that bounds the backlog; `None` if every request in flight counts.
///
/// A measured time stays until a later one differs by more than [`ADOPTED`] percent. The ScaledObject holds it, so a restart changes
/// nothing.
pub(super) fn in_force(observed: &Observed, intent: &Intent) -> Option<ServiceTime> {
    match intent.backlog.service_time {
        ServiceTimeSetting::Off => None,
        ServiceTimeSetting::Fixed(time) => Some(time),
        ServiceTimeSetting::Auto => measured(observed),
    }
}

fn measured(observed: &Observed) -> Option<ServiceTime> {
    let measured = observed.measured.service_time;
    let is_own = observed.scaled_object_ownership() == Ownership::Owned;
    let Some(kept) = observed.scaled_object.as_ref().filter(|_| is_own).and_then(|found| found.service_time)
    else {
        return measured;
    };
    measured.filter(|measured| measured.differs_by_more_than(ADOPTED, kept)).or(Some(kept))
}

/// Reasons to doubt the service time in force.
pub(super) fn warnings(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> Vec<String> {
    let Triggers { backlog: Some(_), service_time: Some(time), .. } = triggers else { return Vec::new() };
    [drift(observed, intent), standing_queue(observed, *time)].into_iter().flatten().collect()
}

fn drift(observed: &Observed, intent: &Intent) -> Option<String> {
    let ServiceTimeSetting::Fixed(time) = intent.backlog.service_time else { return None };
    let measured =
        observed.measured.service_time.filter(|measured| measured.differs_by_more_than(DRIFT, time))?;
    let effect =
        if measured > time { "requests wait longer" } else { "more ServingGroups run than are needed" };
    Some(format!(
        "the service time is {time}, but requests of the last day took {measured} without waiting, so {effect}; set {} to {measured} or auto",
        AnnotationKey::ServiceTime
    ))
}

fn standing_queue(observed: &Observed, time: ServiceTime) -> Option<String> {
    observed.measured.has_standing_queue.then(|| {
        format!(
            "requests waited for most of the last day although more ServingGroups were allowed, so the service time {time} is probably too short; set {} to a longer time or off, or add an engine signal",
            AnnotationKey::ServiceTime
        )
    })
}
