//! Service time and cold start.

use super::{
    stats::{interval, quantile, resampled},
    windows::{Window, Windows},
};
use crate::{
    foresight::history::{History, SeriesName},
    signals::{REQUESTS_MIN, WINDOWS_MIN},
};

/// Time with requests that a service time needs, in hours.
const HOURS_MIN: f64 = 24.0;
/// Starts that a cold start needs.
const STARTS_MIN: usize = 3;
/// Cold start where none is known, in seconds.
const COLD_START: f64 = 300.0;

/// Time that one request takes without waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MeasuredTime {
    /// Seconds.
    pub(super) seconds: f64,
    pub(super) interval: Option<(f64, f64)>,
    /// Windows; 0 if the time is given.
    pub(super) windows: usize,
    /// `true` if the router's durations are recorded.
    pub(super) is_recorded: bool,
}

/// Cause for which there is no service time.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NoServiceTime {
    /// Too short a time with requests.
    #[error(
        "requests were recorded in {0:.1} hours, and {HOURS_MIN} are needed for a service time; choose a longer --since or file, or pass --service-time"
    )]
    Hours(f64),
    /// Too few windows.
    #[error(
        "{0} windows of five minutes have {REQUESTS_MIN} requests that did not wait, and {WINDOWS_MIN} are needed for a service time; choose a longer --since or file, or pass --service-time"
    )]
    Windows(usize),
}

/// Upper quartile of the means of windows with at most this load.
pub(super) fn service_time(windows: &Windows, load_max: Option<f64>) -> Result<MeasuredTime, NoServiceTime> {
    #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
    let hours = windows.all.iter().filter(|it| it.requests > 0.0).count() as f64 * windows.seconds / 3600.0;
    // Half a window is lost where the record begins and ends.
    if hours + 0.1 < HOURS_MIN {
        return Err(NoServiceTime::Hours(hours));
    }
    let is_recorded = windows.all.iter().any(|window| window.duration.is_some());
    let blocks = windows.blocks(|window| {
        let is_calm = window.per_group().zip(load_max).is_none_or(|(load, max)| load <= max);
        let counts =
            window.requests >= f64::from(REQUESTS_MIN) && is_calm && window.duration.is_some() == is_recorded;
        window.service_time(windows.seconds).filter(|seconds| counts && *seconds > 0.0)
    });
    let mut means: Vec<f64> = blocks.iter().flatten().copied().collect();
    let found = quantile(&mut means, 0.75).filter(|_| means.len() >= WINDOWS_MIN as usize);
    let seconds = found.ok_or(NoServiceTime::Windows(means.len()))?;
    let mut resamples = resampled(&blocks, |means| quantile(means, 0.75));
    Ok(MeasuredTime { seconds, interval: interval(&mut resamples), windows: means.len(), is_recorded })
}

/// Requests that ended for each ready ServingGroup in a window with more load than the capacity, times the service time:
/// those that it serves at once. `None` with too few of such windows.
pub(super) fn served_at_once(windows: &Windows, load_min: f64, service_time: f64) -> Option<f64> {
    let rate = |pair: &[Window]| {
        let [before, window] = pair else { return None };
        let load = window.per_group().filter(|load| *load >= load_min)?;
        let ready = window.in_flight / load;
        Some(window.completed(before) / ready / windows.seconds * service_time)
    };
    let mut served: Vec<f64> = windows.all.windows(2).filter_map(rate).collect();
    quantile(&mut served, 0.5).filter(|served_at_once| served.len() >= 5 && *served_at_once > 0.0)
}

/// Source of a cold start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartsFrom {
    /// The operator's histogram.
    Operator,
    /// The recorded numbers of ServingGroups.
    Replicas,
    /// A flag.
    Given,
    /// An assumption.
    Assumed,
}

/// Time from the creation of a ServingGroup until it is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ColdStart {
    /// Median, in seconds.
    pub(super) usual: f64,
    /// 95th percentile, in seconds.
    pub(super) long: f64,
    pub(super) starts: usize,
    pub(super) from: StartsFrom,
}

/// The cold start: given, measured by the operator, seen in the record, or assumed.
pub(super) fn cold_start(history: Option<&History>, given: Option<f64>) -> ColdStart {
    if let Some(seconds) = given {
        return ColdStart { usual: seconds, long: seconds, starts: 0, from: StartsFrom::Given };
    }
    let by_operator = history.and_then(by_operator);
    let by_replicas = history.and_then(by_replicas);
    let enough = |it: &ColdStart| it.starts >= STARTS_MIN;
    let seen = by_operator.iter().chain(&by_replicas).map(|it| it.starts).max().unwrap_or(0);
    by_operator.filter(enough).or_else(|| by_replicas.filter(enough)).unwrap_or(ColdStart {
        usual: COLD_START,
        long: COLD_START,
        starts: seen,
        from: StartsFrom::Assumed,
    })
}

fn by_operator(history: &History) -> Option<ColdStart> {
    let last = |name| history.series(&name)?.iter().flatten().last().filter(|value: &f64| *value > 0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturates")]
    let starts = last(SeriesName::Starts)?.round() as usize;
    let (usual, long) = (last(SeriesName::Start(50))?, last(SeriesName::Start(95))?);
    Some(ColdStart { usual, long, starts, from: StartsFrom::Operator })
}

/// Times between a rise of the existing ServingGroups and that of the ready ones.
fn by_replicas(history: &History) -> Option<ColdStart> {
    let ready = history.series(&SeriesName::Ready)?;
    let total = history.series(&SeriesName::Total).or_else(|| history.series(&SeriesName::Spec))?;
    let mut starting: Vec<usize> = Vec::new();
    let mut times: Vec<f64> = Vec::new();
    let mut before: Option<(f64, f64)> = None;
    for step in 0..history.grid().steps() {
        let Some(now) = total.get(step).zip(ready.get(step)) else {
            // The course within a gap is not known.
            starting.clear();
            before = None;
            continue;
        };
        if let Some((total, ready)) = before {
            let added = change(now.0 - total);
            if now.0 > total {
                starting.extend(std::iter::repeat_n(step, added));
            } else {
                starting.truncate(starting.len().saturating_sub(added));
            }
            let became_ready = if now.1 > ready { change(now.1 - ready) } else { 0 };
            for since in starting.drain(..became_ready.min(starting.len())) {
                #[allow(clippy::cast_precision_loss, reason = "bounded by the grid")]
                times.push((step - since) as f64 * f64::from(history.grid().step()));
            }
        }
        before = Some(now);
    }
    let (usual, long) = (quantile(&mut times, 0.5)?, quantile(&mut times, 0.95)?);
    let at_least = |seconds: f64| seconds.max(f64::from(history.grid().step()));
    Some(ColdStart {
        usual: at_least(usual),
        long: at_least(long),
        starts: times.len(),
        from: StartsFrom::Replicas,
    })
}

/// Groups of a change, up to a thousand.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
fn change(groups: f64) -> usize {
    groups.abs().round().min(1000.0) as usize
}
