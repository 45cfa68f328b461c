//! Doubts about latency signals.

use super::{ResolvedIntent, triggers::Triggers};
use crate::{
    api::annotations::AnnotationKey,
    domain::{Latency, Signal},
    observed::Observed,
    signals::LatencySignal,
};

/// Least window of scaling down by a latency, in seconds: twice the five minutes that a large model takes to load.
const TWO_LOADING_TIMES: i32 = 600;

/// Reasons for which a latency signal may not do what its user expects.
pub(super) fn warnings(observed: &Observed, resolved: &ResolvedIntent) -> Vec<String> {
    let Triggers { latencies, .. } = &resolved.triggers;
    let unattainable = latencies.iter().filter_map(|signal| unattainable(observed, signal));
    unattainable.chain(fast_scale_down(resolved)).chain(unbounded_backlog(resolved)).collect()
}

/// An objective that no number of ServingGroups meets. The count stays at half of the objective, so engines with little to do must be faster
/// than that.
fn unattainable(observed: &Observed, signal: &LatencySignal) -> Option<String> {
    let objective = signal.objective;
    let is_same = |(latency, _): &&(Latency, u32)| *latency == objective.latency();
    let (_, lowest) = observed.measured.idle_latencies.iter().find(is_same)?;
    (*lowest > objective.millis() / 2).then(|| {
        format!(
            "{} was {lowest}ms or more in the last day while the engines had little to do, which is above half of its objective {objective}, so the model grows to its maximum under any load; set the objective to at least {}ms",
            Signal::Latency(objective.latency()),
            lowest.saturating_mul(3)
        )
    })
}

/// A latency that scales down faster than a removed ServingGroup comes back.
///
/// The latency is flat until the engines are full. So the model shrinks until they are, asks for up to four times the
/// count, and begins again.
fn fast_scale_down(ResolvedIntent { intent, triggers, .. }: &ResolvedIntent) -> Option<String> {
    let signal = triggers.latencies.first()?;
    let window = intent.profile.behavior.scale_down.stabilization_window;
    (window < TWO_LOADING_TIMES).then(|| {
        format!(
            "scaleDown.stabilizationWindow is shorter than {} minutes, so {} may remove ServingGroups and add them again all the time; raise it in the AutoscalingProfile to twice the time that a ServingGroup takes to load",
            TWO_LOADING_TIMES / 60,
            Signal::Latency(signal.objective.latency())
        )
    })
}

/// A latency beside a bounded backlog. Requests stay with the engine that they wait in, and each has a high latency once it
/// is served, long after the further ServingGroups are ready.
fn unbounded_backlog(ResolvedIntent { triggers, .. }: &ResolvedIntent) -> Option<String> {
    triggers.backlog.as_ref()?;
    let signal = Signal::Latency(triggers.latencies.first()?.objective.latency());
    Some(format!(
        "the requests that wait in the engines after a burst keep {signal} high until they are served, so the model may grow to its maximum although the service time bounds the backlog; remove {signal}, or set {} to off",
        AnnotationKey::ServiceTime
    ))
}
