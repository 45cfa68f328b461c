//! Requests in flight that one ServingGroup carries within the objective.
//!
//! In: for windows of five minutes the requests in flight for each ready ServingGroup, and the tail of the durations. The
//! tail is fitted by a function that never falls; the capacity is the greatest load at which the fit keeps the objective
//! in nine of ten resamples. Where more load no longer completes more requests the capacity ends, too.

use super::{
    objective::CALM_FACTOR,
    stats::{interval, isotonic, quantile, resampled},
    windows::{Window, Windows},
};

/// Windows with much load that a capacity needs.
pub(super) const WINDOWS_MIN: usize = 30;
/// Part of the capacity from which a load is much.
const MUCH: f64 = 0.6;
/// Windows of one point of the fit, and its width as a part of the load.
const POINT_WINDOWS: usize = 5;
const POINT_WIDTH: f64 = 0.08;
/// Share of the windows with the least load that count as calm.
const CALM: f64 = 0.1;
/// Windows that are calm at least.
const CALM_MIN: usize = 10;
/// Part of the greatest throughput from which more load mostly waits.
const PLATEAU: f64 = 0.9;
/// Part of the greatest load at which a plateau begins at the latest.
const PLATEAU_FROM: f64 = 0.75;

/// Greatest load that keeps the objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Capacity {
    /// Requests in flight for one ServingGroup.
    pub(super) requests: f64,
    /// Interval of nine of ten resamples.
    pub(super) interval: Option<(f64, f64)>,
    /// `true` if no load exceeded the objective, so the capacity may be greater.
    pub(super) is_bound: bool,
    /// Windows with much load.
    pub(super) windows: usize,
    /// The objective, in seconds.
    pub(super) seconds: f64,
    /// Tail while calm, in seconds.
    pub(super) calm: f64,
}

/// Cause for which there is no capacity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoCapacity {
    /// Nothing is known of the durations.
    #[error("{0}")]
    Durations(String),
    /// The ready ServingGroups are not known.
    #[error(
        "the number of ready ServingGroups is not known; have Prometheus scrape the operator, or pass --capacity"
    )]
    Ready,
    /// Too few windows.
    #[error(
        "only {0} windows of five minutes have much load, and {WINDOWS_MIN} are needed; choose a longer --since or file, or pass --capacity"
    )]
    Few(usize),
    /// Even few requests take longer.
    #[error(
        "even with few requests in flight they take {calm:.1} s, longer than the objective of {seconds} s; choose a longer --slo"
    )]
    Objective {
        /// Tail while calm, in seconds.
        calm: f64,
        /// The objective, in seconds.
        seconds: f64,
    },
    /// The histogram ends below the objective.
    #[error(
        "the router's histogram of durations ends at {top} s, so the objective of {seconds:.0} s cannot be seen; set --slo ttft=TIME, or pass --capacity"
    )]
    Top {
        /// Greatest bucket, in seconds.
        top: f64,
        /// The objective, in seconds.
        seconds: f64,
    },
}

/// Load and tail of a window.
type Point = (f64, f64);

/// The capacity at an objective in seconds; `None` is 1.5 times the tail while calm. `top` is the greatest tail that the
/// histogram shows, in seconds.
pub(super) fn capacity(windows: &Windows, objective: Option<f64>, top: f64) -> Result<Capacity, NoCapacity> {
    if windows.all.iter().all(|window| window.ready.is_none()) {
        return Err(NoCapacity::Ready);
    }
    let blocks = windows.blocks(|window| {
        // A tail that is not a number has no requests.
        window.per_group().zip(window.tail).filter(|(load, tail)| *load > 0.0 && *tail > 0.0)
    });
    let mut points: Vec<Point> = blocks.iter().flatten().copied().collect();
    let calm = calm_tail(&mut points).ok_or(NoCapacity::Few(points.len()))?;
    let seconds = objective.unwrap_or(CALM_FACTOR * calm);
    let knee = knee(windows);
    let busy = |requests: f64| points.iter().filter(|(load, _)| *load >= MUCH * requests).count();
    if seconds >= top {
        // The throughput shows what the durations do not.
        let requests = knee.filter(|_| objective.is_none()).ok_or(NoCapacity::Top { top, seconds })?;
        let windows = busy(requests);
        return Ok(Capacity { requests, interval: None, is_bound: false, windows, seconds, calm });
    }
    let fit = fitted(&mut points.clone());
    let Some((first, _)) = fit.first().filter(|(_, tail)| *tail <= seconds) else {
        return Err(NoCapacity::Objective { calm, seconds });
    };
    let (requests, interval, is_bound) = if fit.iter().all(|(_, tail)| *tail <= seconds) {
        let seen = fit.last().map_or(*first, |(load, _)| *load);
        knee.map_or((seen, None, true), |knee| (knee.min(seen), None, false))
    } else {
        let mut crossings = resampled(&blocks, |points| crossing(&fitted(points), seconds));
        let low = quantile(&mut crossings, 0.1).unwrap_or(*first);
        let knee = knee.unwrap_or(f64::INFINITY);
        let interval = interval(&mut crossings).map(|(low, high)| (low.min(knee), high.min(knee)));
        (low.min(knee), interval, false)
    };
    let windows = busy(requests);
    if windows < WINDOWS_MIN {
        return Err(NoCapacity::Few(windows));
    }
    Ok(Capacity { requests, interval, is_bound, windows, seconds, calm })
}

/// Least load at which a ServingGroup completes almost as many requests as it ever does: with more of them, requests only
/// wait. `None` if more load always completed more.
fn knee(windows: &Windows) -> Option<f64> {
    let throughput = |pair: &[Window]| {
        let [before, window] = pair else { return None };
        let (load, ready) = (window.per_group()?, window.ready?);
        Some((load, window.completed(before) / ready / windows.seconds))
    };
    let mut points: Vec<Point> = windows.all.windows(2).filter_map(throughput).collect();
    let fit = fitted(&mut points);
    let (most, greatest) = *fit.last()?;
    crossing(&fit, PLATEAU * greatest).filter(|load| *load <= PLATEAU_FROM * most)
}

/// Median of the tails under the least load; `None` with too few windows.
fn calm_tail(points: &mut [Point]) -> Option<f64> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "bounded"
    )]
    let count = (points.len() as f64 * CALM) as usize;
    if points.len() < CALM_MIN {
        return None;
    }
    let mut tails: Vec<f64> = points.iter().take(count.max(CALM_MIN)).map(|(_, tail)| *tail).collect();
    quantile(&mut tails, 0.5)
}

/// Points of the fit: median load and fitted tail, of windows with about the same load.
fn fitted(points: &mut [Point]) -> Vec<Point> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut medians, mut rest) = (Vec::new(), &*points);
    while let Some((from, _)) = rest.first() {
        let similar = rest.partition_point(|(load, _)| *load <= from * (1.0 + POINT_WIDTH));
        let (point, after) = rest.split_at(similar.max(POINT_WINDOWS).min(rest.len()));
        rest = after;
        let mut tails: Vec<f64> = point.iter().map(|(_, tail)| *tail).collect();
        let load = point.get(point.len() / 2).map_or(*from, |(load, _)| *load);
        #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
        medians.extend(quantile(&mut tails, 0.5).map(|tail| (load, tail, point.len() as f64)));
    }
    let tails: Vec<(f64, f64)> = medians.iter().map(|(_, tail, weight)| (*tail, *weight)).collect();
    medians.iter().map(|(load, ..)| *load).zip(isotonic(&tails)).collect()
}

/// Greatest load at which the fit is at most this value, interpolated.
fn crossing(fit: &[Point], most: f64) -> Option<f64> {
    let above = fit.partition_point(|(_, value)| *value <= most);
    let (load, value) = *fit.get(above.checked_sub(1)?)?;
    let Some((next_load, next_value)) = fit.get(above) else { return Some(load) };
    let share = (most - value) / (next_value - value).max(f64::MIN_POSITIVE);
    Some((next_load - load).mul_add(share.clamp(0.0, 1.0), load))
}
