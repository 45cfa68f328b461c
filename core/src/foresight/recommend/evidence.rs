//! All measurements of a model, and the values that follow from them.

use super::{
    Recommend, Refused,
    bounds::{DAYS_MIN, Need, PERIOD, room},
    capacity::{Capacity, NoCapacity, capacity},
    measure::{ColdStart, MeasuredTime, StartsFrom, cold_start, served_at_once, service_time},
    objective::Objective,
    value::{Confidence, Value, duration, short},
    waiting_slo,
    windows::Windows,
};
use crate::{
    domain::ServiceTimeSetting,
    foresight::{
        backtest::Source,
        history::{MISSING_MAX, Series, SeriesName},
        report::{Finding, Slo},
        settings::{Settings, SignalModel},
    },
};

/// Part of the capacity that is the target.
const TARGET: f64 = 0.8;
/// Greatest step by which a target rises without a load that exceeds the objective.
const RAISE: f64 = 1.25;
/// Greatest bucket of the router's histogram of durations, in seconds (Kthena `pkg/kthena-router/metrics/metrics.go`).
const ROUTER_TOP: f64 = 60.0;
/// Shortest and longest drain time of a profile, in seconds.
const DRAIN: (f64, f64) = (600.0, 3600.0);
/// Share of idle time above which zero is offered.
const IDLE: f64 = 0.3;
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
    room: Option<u32>,
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
        let load_max =
            capacity.as_ref().map(|it| TARGET * it.requests).ok().or(ask.current.requests_per_group());
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
                return Err(Refused(reasons));
            }
        };
        let (target, target_kept) = target(ask.current, &capacity);
        let slots = slots(ask, &windows, &capacity, target, service_time.seconds)
            .ok_or_else(|| Refused(vec![crate::foresight::backtest::Unfit::Capacity.to_string()]))?;
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

    /// Each value with its evidence.
    pub(super) fn values(&self, ask: &Recommend<'_>, need: &Need) -> Vec<Value> {
        let mut values =
            vec![self.capacity_value(), self.target_value(ask.current), self.service_time_value(ask)];
        values.push(self.cold_start_value());
        values.push(self.drain_time_value(ask));
        values.push(self.min_value(ask.current, need));
        values.push(self.max_value(ask, need));
        values.push(self.scale_up_value(ask.current, need));
        if ask.current.min() == 0 {
            let now = format!("{}s", ask.current.keda.cooldown);
            let cooldown = duration(need.cooldown(self.cold_start.usual));
            let evidence =
                "three cold starts, and most of the gaps after which requests came back within an hour";
            values.push(Value::evident("cooldown", Some(now), cooldown, self.by_days(), evidence.to_owned()));
        }
        values
    }

    fn by_days(&self) -> Confidence {
        Confidence::of_days(self.days)
    }

    fn capacity_value(&self) -> Value {
        let found = match &self.capacity {
            Ok(found) => found,
            Err(error) => return Value::kept("capacity", None, error.to_string()),
        };
        let shown = short(found.requests);
        if found.windows == 0 {
            return Value::evident(
                "capacity",
                None,
                shown.to_string(),
                Confidence::Medium,
                "--capacity".to_owned(),
            );
        }
        let (text, confidence, evidence) = if found.is_bound {
            let evidence = format!(
                "no load of {} busy windows exceeded {:.1} s, so the capacity may be greater",
                found.windows, found.seconds
            );
            (format!("at least {shown}"), Confidence::Low, evidence)
        } else {
            let confidence = Confidence::of(self.days, found.requests, found.interval);
            let evidence = format!(
                "greatest load that keeps {:.1} s, of {} busy windows; {:.1} s while calm",
                found.seconds, found.windows, found.calm
            );
            (shown.to_string(), confidence, evidence)
        };
        Value::evident("capacity", None, text, confidence, evidence).within(found.interval)
    }

    fn target_value(&self, current: &Settings) -> Value {
        let now = current.requests_per_group().map(|target| short(target).to_string());
        let (Some(target), Ok(found)) = (self.target, &self.capacity) else {
            return Value::kept("target", now, self.target_kept.clone());
        };
        let interval = found.interval.map(|(low, high)| (TARGET * low, TARGET * high));
        let (confidence, evidence) = if found.is_bound {
            (Confidence::Low, "a step of 25 % at most, since no load exceeded the objective; run recommend again after a week".to_owned())
        } else if found.windows == 0 {
            (Confidence::Medium, format!("{TARGET} of the capacity"))
        } else {
            (Confidence::of(self.days, found.requests, found.interval), format!("{TARGET} of the capacity"))
        };
        Value::evident("target", now, target.to_string(), confidence, evidence).within(interval)
    }

    fn service_time_value(&self, ask: &Recommend<'_>) -> Value {
        let now = Some(ask.backlog.service_time.to_string());
        let found = &self.service_time;
        let is_of_requests = |it: &SignalModel| matches!(it, SignalModel::ActiveRequests(_));
        let has_signal = ask.current.triggers.iter().any(|trigger| is_of_requests(&trigger.signal));
        let evidence = match (found.windows, found.is_recorded) {
            (0, _) => "--service-time".to_owned(),
            (windows, true) => format!("upper quartile of {windows} windows without waiting"),
            (windows, false) => format!("upper quartile of {windows} windows: requests in flight / arrivals"),
        };
        let confidence = match found.windows {
            0 => Confidence::Medium,
            _ => Confidence::of(self.days, found.seconds, found.interval),
        };
        let text = duration(found.seconds.clamp(0.1, 3600.0));
        if !has_signal {
            return Value::kept(
                "serviceTime",
                None,
                format!("{text}, but it bounds only the signal active-requests"),
            );
        }
        // A time that is measured again and again, or that is close to the new one, stays.
        let (low, high) = found.interval.unwrap_or((found.seconds, found.seconds));
        let stays = match ask.backlog.service_time {
            ServiceTimeSetting::Auto => true,
            ServiceTimeSetting::Fixed(time) => {
                let seconds = f64::from(time.millis()) / 1000.0;
                seconds >= 0.8 * low && seconds <= 1.2 * high
            }
            ServiceTimeSetting::Off => false,
        };
        let text = now.clone().filter(|_| stays).unwrap_or(text);
        let evidence = if stays { format!("{}: {evidence}", duration(found.seconds)) } else { evidence };
        Value::evident("serviceTime", now, text, confidence, evidence).within(found.interval)
    }

    fn cold_start_value(&self) -> Value {
        let ColdStart { usual, long, starts, from } = self.cold_start;
        let (confidence, evidence) = match from {
            StartsFrom::Operator => (
                Confidence::High,
                format!("kthena_keda_start_seconds, {starts} starts; 95 % take {} at most", duration(long)),
            ),
            StartsFrom::Replicas => (
                Confidence::Medium,
                format!(
                    "{starts} starts in the recorded numbers of ServingGroups; 95 % take {} at most",
                    duration(long)
                ),
            ),
            StartsFrom::Given => (Confidence::Medium, "--cold-start".to_owned()),
            StartsFrom::Assumed => (
                Confidence::Low,
                format!("assumed: {starts} starts were seen, and 3 are needed; pass --cold-start"),
            ),
        };
        Value::evident("coldStart", None, duration(usual), confidence, evidence)
    }

    fn drain_time_value(&self, ask: &Recommend<'_>) -> Value {
        let now = format!("{}s", ask.backlog.drain_time.seconds());
        let seconds = (2.0 * self.cold_start.long).clamp(DRAIN.0, DRAIN.1);
        let confidence =
            if self.cold_start.from == StartsFrom::Assumed { Confidence::Low } else { self.by_days() };
        let evidence = "two long cold starts, and ten minutes at least".to_owned();
        Value::evident("drainTime", Some(now), duration(seconds), confidence, evidence)
    }

    fn min_value(&self, current: &Settings, need: &Need) -> Value {
        let now = Some(current.min().to_string());
        if self.days < DAYS_MIN - 0.01 {
            let reason = format!(
                "{:.1} days were recorded, and {DAYS_MIN} are needed; choose a longer --since",
                self.days
            );
            return Value::kept("min", now, reason);
        }
        match need.least() {
            // Zero costs less and was chosen.
            Some(_) if current.min() == 0 => Value::kept(
                "min",
                now,
                "zero is kept; a model that always has requests stays above it".to_owned(),
            ),
            Some(least) => {
                let evidence = "need of the quietest hour of the day, all but 1 % of the time".to_owned();
                Value::evident("min", now, least.to_string(), self.by_days(), evidence)
            }
            None => Value::kept("min", now, "the need is not known".to_owned()),
        }
    }

    fn max_value(&self, ask: &Recommend<'_>, need: &Need) -> Value {
        let now = Some(ask.current.hpa.max().to_string());
        let Some(most) = need.most() else {
            return Value::kept("max", now, "the need is not known".to_owned());
        };
        let bounded = self.room.map_or(most, |room| most.min(room.max(1)));
        let mut evidence = "need of all but 0.1 % of the time, and a quarter more".to_owned();
        if bounded < most {
            evidence = format!(
                "{evidence}: {most}, but ServingGroups beyond {bounded} stayed pending; add nodes to use more"
            );
        }
        if let (Some(gpus), Some(price)) = (ask.costs.gpus_per_group, ask.costs.gpu_hour) {
            let hourly = f64::from(gpus) * price * f64::from(bounded);
            evidence = format!("{evidence}; costs {hourly:.2} an hour while all of them run");
        }
        Value::evident("max", now, bounded.to_string(), self.by_days(), evidence)
    }

    fn scale_up_value(&self, current: &Settings, need: &Need) -> Value {
        let policies = &current.hpa.scale_up.policies;
        let text = |policy: &crate::intent::Policy| {
            let percent = if policy.kind == crate::intent::PolicyKind::Percent { "%" } else { "" };
            format!("{}{percent}/{}s", policy.value, policy.period)
        };
        let now = policies.iter().map(text).collect::<Vec<_>>().join(",");
        match need.rise() {
            Some(rise) => {
                let evidence = "rise of the need within a minute, all but 0.1 % of the time".to_owned();
                Value::evident(
                    "scaleUp.policies",
                    Some(now),
                    format!("{rise}/{PERIOD}s"),
                    self.by_days(),
                    evidence,
                )
            }
            None => Value::kept("scaleUp.policies", Some(now), "the need is not known".to_owned()),
        }
    }

    /// Zero, if the model is idle for long.
    pub(super) fn offers(&self, ask: &Recommend<'_>, need: &Need) -> Vec<String> {
        let cooldown = need.cooldown(self.cold_start.usual);
        let idle = need.idle_share(3.0 * cooldown);
        if ask.current.min() == 0 || idle <= IDLE {
            return Vec::new();
        }
        vec![format!(
            "min=0 cooldown={}: no request arrives in {:.0} % of the time, in gaps that are long enough. The first requests after a gap fail or wait for {}, so clients must retry; see docs/scale-to-zero.md",
            duration(cooldown),
            idle * 100.0,
            duration(self.cold_start.usual)
        )]
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
fn target(current: &Settings, capacity: &Result<Capacity, NoCapacity>) -> (Option<f64>, String) {
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
        return Err(Refused(vec![format!(
            "the objective {set} leaves no time to wait: a request takes {without_waiting:.1} s without waiting; choose a longer --slo"
        )]));
    }
    Ok((waiting_slo(set.share(), set.seconds() - without_waiting), set.to_string()))
}
