//! All measurements of a model.

use super::{
    Recommend, Refused,
    bounds::room,
    capacity::{Capacity, NoCapacity, capacity},
    known::known,
    measure::{ColdStart, MeasuredTime, cold_start, served_at_once, service_time},
    objective::Objective,
    value::short,
    waiting_slo,
    windows::Windows,
};
use crate::foresight::{
    backtest::Source,
    history::{MISSING_MAX, Series, SeriesName},
    report::{Finding, Slo},
    settings::SignalModel,
};

/// Part of the capacity that is the target.
pub(super) const TARGET: f64 = 0.8;
/// Greatest step by which a target rises without a load that exceeds the objective.
const RAISE: f64 = 1.25;
/// Greatest bucket of the router's histogram of durations, in seconds (Kthena `pkg/kthena-router/metrics/metrics.go`).
const ROUTER_TOP: f64 = 60.0;
/// Time for which a ServingGroup loads at most before it counts as pending, in seconds.
const PENDING: f64 = 1800.0;

/// Measurements of a model.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) days: f64,
    pub(super) capacity: Result<Capacity, NoCapacity>,
    pub(super) service_time: MeasuredTime,
    pub(super) cold_start: ColdStart,
    /// Recommended target; `None` keeps it.
    pub(super) target: Option<f64>,
    /// Reason for which the target is kept.
    pub(super) target_kept: String,
    /// Requests that one ServingGroup serves at once.
    pub(super) slots: f64,
    /// Objective for the waiting time.
    pub(super) slo: Slo,
    /// The objective in words.
    pub(super) objective: String,
    /// Groups that the cluster had room for, if some stayed pending.
    pub(super) room: Option<u32>,
    pub(super) findings: Vec<Finding>,
}

impl Evidence {
    /// Measures everything.
    ///
    /// # Errors
    /// With every reason, if there are too many gaps or no service time.
    pub(super) fn of(ask: &Recommend<'_>) -> Result<Self, Refused> {
        let wanted = ask.objective.unwrap_or(Objective::Duration(Slo::default()));
        let windows = Windows::of(ask.source, Some(&wanted.series()));
        let capacity = match ask.plant.slots {
            Some(requests) => Ok(given(requests, ask.objective)),
            None => measured_capacity(ask, &windows, wanted),
        };
        let load_max = match &capacity {
            // No load was too much.
            Ok(capacity) if capacity.is_bound => Some(capacity.requests),
            Ok(capacity) => Some(TARGET * capacity.requests),
            Err(_) => ask.current.requests_per_group(),
        };
        let measured = match ask.plant.service_time {
            Some(seconds) => Ok(MeasuredTime { seconds, interval: None, windows: 0, is_recorded: false }),
            None => service_time(&windows, load_max),
        };
        let mut reasons: Vec<String> = gaps(ask).into_iter().collect();
        let service_time = match measured {
            Ok(time) if reasons.is_empty() => time,
            other => {
                reasons.extend(other.err().map(|error| error.to_string()));
                reasons.extend(capacity.err().map(|error| error.to_string()));
                return Err(Refused { reasons, known: known(ask, &windows) });
            }
        };
        let (target, target_kept) = target(ask, &capacity);
        let slots = slots(ask, &windows, &capacity, target, service_time.seconds)
            .ok_or_else(|| Refused::because(vec![crate::foresight::backtest::Unfit::Capacity.to_string()]))?;
        let (slo, objective) = objective(ask.objective, &capacity, service_time.seconds)?;
        let history = if let Source::History(history) = ask.source { Some(history) } else { None };
        let cold_start = cold_start(history, ask.cold_start);
        let room = history.and_then(|history| {
            let ready = history.series(&SeriesName::Ready)?;
            let total = history.series(&SeriesName::Total).or_else(|| history.series(&SeriesName::Spec))?;
            room(history.grid(), total.iter(), ready.iter(), PENDING.max(3.0 * cold_start.long))
        });
        let days = windows.days;
        let findings = Vec::new();
        Ok(Self {
            days,
            capacity,
            service_time,
            cold_start,
            target,
            target_kept,
            slots,
            slo,
            objective,
            room,
            findings,
        })
    }
}

fn given(requests: f64, objective: Option<Objective>) -> Capacity {
    let seconds = objective.map_or(0.0, Objective::seconds);
    Capacity { requests, interval: None, is_bound: false, windows: 0, seconds, calm: 0.0 }
}

fn measured_capacity(
    ask: &Recommend<'_>,
    windows: &Windows,
    wanted: Objective,
) -> Result<Capacity, NoCapacity> {
    let series = wanted.series();
    let history = match ask.source {
        Source::History(history) => history,
        Source::Load(_) => {
            return Err(NoCapacity::Durations(
                "a file of arrivals has no durations, so the capacity is not known; pass --capacity"
                    .to_owned(),
            ));
        }
    };
    if history.series(&series).is_none_or(Series::is_empty) {
        let remedy = match wanted {
            Objective::Duration(_) => "record the history again with this --slo, or pass --capacity",
            Objective::FirstToken(_) => "have Prometheus scrape the engines, or set --slo p95=TIME",
        };
        return Err(NoCapacity::Durations(format!("there are no values of {series}; {remedy}")));
    }
    let top = if matches!(wanted, Objective::Duration(_)) { ROUTER_TOP } else { f64::INFINITY };
    capacity(windows, ask.objective.map(Objective::seconds), top)
}

/// Too many gaps, as a reason.
fn gaps(ask: &Recommend<'_>) -> Option<String> {
    let missing = match ask.source {
        Source::History(history) => {
            history.missing(ask.current.triggers.iter().map(|trigger| trigger.name.as_str()))
        }
        Source::Load(_) => 0.0,
    };
    (missing > MISSING_MAX).then(|| {
        format!("{:.0} % of the steps have no value of a trigger, and at most {:.0} % may; choose a time in which Prometheus scraped the router", missing * 100.0, MISSING_MAX * 100.0)
    })
}

/// Recommended target, or the reason for which it is kept.
fn target(ask: &Recommend<'_>, capacity: &Result<Capacity, NoCapacity>) -> (Option<f64>, String) {
    if ask.counts_twice {
        return (
            None,
            "the router counts each request twice, for prefill and for decode, and the operator doubles the target; compare targets with backtest --set target=NUMBER"
                .to_owned(),
        );
    }
    let current = ask.current;
    let is_of_requests =
        |it: &SignalModel| matches!(it, SignalModel::ActiveRequests(_) | SignalModel::Running);
    let first = current.triggers.first().filter(|trigger| is_of_requests(&trigger.signal));
    let (Some(_), Some(now)) = (first, current.requests_per_group()) else {
        return (
            None,
            "the first signal does not count requests; set signals=active-requests to derive a target"
                .to_owned(),
        );
    };
    let capacity = match capacity {
        Ok(capacity) => capacity,
        Err(error) => return (None, error.to_string()),
    };
    if !capacity.is_bound {
        return (Some(rounded_down(TARGET * capacity.requests)), String::new());
    }
    let raised = capacity.requests.min(RAISE * now);
    if raised <= now * 1.01 {
        let tried = rounded_down(RAISE * now);
        return (
            None,
            format!(
                "no load exceeded the objective, and none was much above the target; try target={tried} for a week to learn more"
            ),
        );
    }
    (Some(rounded_down(raised)), String::new())
}

/// A whole target from 10 on, else one with a decimal.
fn rounded_down(target: f64) -> f64 {
    let rounded = if target >= 10.0 { target.floor() } else { (target * 10.0).floor() / 10.0 };
    rounded.max(0.1)
}

/// Requests that one ServingGroup serves at once: given, seen where requests wait, or the capacity.
fn slots(
    ask: &Recommend<'_>,
    windows: &Windows,
    capacity: &Result<Capacity, NoCapacity>,
    target: Option<f64>,
    service_time: f64,
) -> Option<f64> {
    let now = ask.current.requests_per_group();
    let usual = now.map(|target| target * RAISE);
    let slots = ask.plant.slots.or(match capacity {
        Ok(found) if found.is_bound => {
            let raised = target.or(now).map_or(found.requests, |target| target * RAISE);
            Some(found.requests.max(raised))
        }
        Ok(found) => Some(
            served_at_once(windows, 1.2 * found.requests, service_time)
                .map_or(found.requests, |served| served.min(found.requests)),
        ),
        Err(_) => usual,
    })?;
    Some(short(slots))
}

/// Objective for the waiting time, and the objective in words.
fn objective(
    objective: Option<Objective>,
    capacity: &Result<Capacity, NoCapacity>,
    service_time: f64,
) -> Result<(Slo, String), Refused> {
    let measured = capacity.as_ref().ok().filter(|found| found.windows > 0);
    let Some(set) = objective else {
        let Some(found) = measured else {
            let slo = Slo::default();
            return Ok((slo, format!("{slo} of waiting, by default; set --slo")));
        };
        let text =
            format!("p95={:.1}s, 1.5 times the durations while calm, by default; set --slo", found.seconds);
        return Ok((waiting_slo(Slo::default().share, found.seconds - found.calm), text));
    };
    let without_waiting = match (set, measured) {
        (_, Some(found)) => found.calm,
        (Objective::Duration(_), None) => service_time,
        (Objective::FirstToken(_), None) => 0.0,
    };
    if set.seconds() <= without_waiting {
        return Err(Refused::because(vec![format!(
            "the objective {set} leaves no time to wait: a request takes {without_waiting:.1} s without waiting; choose a longer --slo"
        )]));
    }
    Ok((waiting_slo(set.share(), set.seconds() - without_waiting), set.to_string()))
}
