//! What-if: settings on the requests of a workload, with a fleet of their own.

use super::{
    EQUAL_MIN, Periods,
    clock::{Pass, Plant, Schedule, drive},
    replay::recorded_replicas,
};
use crate::foresight::{
    fleet::Queue,
    fluid::{Fluid, FluidSpec, Totals},
    history::{History, Series, SeriesName},
    law::Law,
    prometheus::{Sample, Samples},
    settings::{Settings, SignalModel, TriggerModel},
    time::Time,
    waits::Waits,
    workload::Workload,
};

/// Window of rates, in seconds, as the queries have it.
const RATE_WINDOW: u64 = 120;
/// Time before the start for which Prometheus has samples: the longest window of a law, and a lookback.
const PAST: Time = Time::from_seconds(3900);
/// Waiting requests from which recorded values no longer hold.
const WAITING: f64 = 0.5;

/// The requests and the fleet of a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Requests.
    pub workload: &'a Workload,
    /// Recorded values of the triggers, which hold where no request waits.
    pub history: Option<&'a History>,
    /// The fleet.
    pub fleet: FluidSpec,
    /// Time above which a request waits for long, in seconds.
    pub limit: f64,
    /// Phase of the HPA's syncs.
    pub phase: Time,
    /// Time of the first scrape.
    pub scrape_phase: Time,
    /// Periods of the cluster.
    pub periods: Periods,
    /// Time whose sync is explained.
    pub explain: Option<Time>,
}

/// State at one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepState {
    /// ServingGroups, those that load included.
    pub groups: u32,
    /// ServingGroups that are ready.
    pub ready: u32,
    /// Requests in flight.
    pub in_flight: f32,
    /// Requests that wait.
    pub waiting: f32,
}

/// Results of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// State at the start of each step.
    pub steps: Vec<StepState>,
    /// Sums.
    pub totals: Totals,
    /// Waiting times.
    pub waits: Waits,
    /// Changes of the number of ServingGroups.
    pub changes: u32,
    /// Share of the steps in which values of triggers are modelled instead of recorded, 0 to 1.
    pub modelled: f64,
    /// The sync that is explained.
    pub pass: Option<Pass>,
}

/// The fleet of a run, step by step.
struct Course<'a> {
    workload: &'a Workload,
    fluid: Fluid,
    now: f64,
    steps: Vec<StepState>,
}

impl<'a> Course<'a> {
    fn new(setup: &Setup<'a>, groups: u32) -> Self {
        Self {
            workload: setup.workload,
            fluid: Fluid::new(setup.fleet, groups, setup.limit),
            now: 0.0,
            steps: Vec::with_capacity(setup.workload.grid().steps()),
        }
    }

    fn step(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }

    /// Advances to a time, and records each step that begins until then.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bounded, or only shown")]
    fn advance(&mut self, until: f64) {
        let grid = self.workload.grid();
        loop {
            let next = f64::from(grid.step()) * self.steps.len() as f64;
            let end = if self.steps.len() < grid.steps() { next.min(until) } else { until };
            if end > self.now {
                self.fluid.advance(self.now, end, self.workload.inflow(self.step()));
                self.now = end;
            }
            if self.steps.len() >= grid.steps() || next > until {
                return;
            }
            self.steps.push(StepState {
                groups: self.fluid.groups(),
                ready: self.fluid.ready(),
                in_flight: self.fluid.in_flight() as f32,
                waiting: self.fluid.waiting() as f32,
            });
        }
    }

    fn finish(self, changes: u32) -> Outcome {
        Outcome {
            totals: *self.fluid.totals(),
            waits: self.fluid.waits().clone(),
            steps: self.steps,
            changes,
            modelled: 0.0,
            pass: None,
        }
    }
}

/// A fleet that is scaled by settings.
struct Scaled<'a> {
    course: Course<'a>,
    settings: &'a Settings,
    /// Place where requests wait.
    queue: Queue,
    /// Recorded values of each trigger; `None` if it is modelled everywhere.
    recorded: Vec<Option<&'a Series>>,
    samples: Samples,
    next_scrape: Time,
    scrape_interval: Time,
    /// For each step so far, `true` if a value was modelled.
    modelled: Vec<bool>,
}

impl Scaled<'_> {
    const fn workload_steps(&self) -> usize {
        self.course.workload.grid().steps()
    }

    fn scrape(&mut self, at: Time) {
        let fluid = &self.course.fluid;
        let totals = fluid.totals();
        self.samples.push(Sample {
            at: PAST.after(at),
            in_flight: fluid.in_flight(),
            ended: totals.ended,
            refused: totals.refused,
            running: fluid.running(),
            waiting: fluid.waiting(),
            tokens: totals.tokens,
        });
    }

    /// Samples before the start: requests came as in the first step, and all were served.
    fn scrape_past(&mut self) {
        let first = self.course.workload.inflow(0);
        let (rate, tokens) = first.map_or((0.0, 0.0), |inflow| (inflow.rate, inflow.rate * inflow.tokens));
        let mut at = Time::default();
        while at < PAST {
            let before = PAST.since(at).seconds();
            let (ended, tokens) = (-rate * before, -tokens * before);
            self.samples.push(Sample { at, ended, tokens, ..Sample::default() });
            at = at.after(self.scrape_interval);
        }
        self.scrape(Time::default());
    }

    /// Value that follows from the requests of this run.
    fn model(&self, signal: SignalModel, now: Time) -> Option<f64> {
        let now = PAST.after(now);
        let newest = self.samples.at(now)?;
        let growth = |of: fn(&Sample) -> f64| {
            let window = RATE_WINDOW * 1000;
            let before =
                now.millis().checked_sub(window).and_then(|at| self.samples.at(Time::from_millis(at)));
            Some(of(newest) - before.map(of)?)
        };
        #[allow(clippy::cast_precision_loss, reason = "two minutes")]
        let seconds = RATE_WINDOW as f64;
        match signal {
            SignalModel::ActiveRequests(law) => law.value(&self.samples, now),
            SignalModel::RequestRate => Some(growth(|it| it.ended + it.refused)? / seconds),
            SignalModel::OutputTokens => Some(growth(|it| it.tokens)? / seconds),
            SignalModel::Waiting(queue) if queue == self.queue => Some(newest.waiting),
            SignalModel::Waiting(_) => Some(0.0),
            SignalModel::Running => Some(newest.running),
            SignalModel::Activation => growth(|it| it.ended + it.refused + it.in_flight),
            SignalModel::Unknown { .. } => None,
        }
    }
}

impl Plant for Scaled<'_> {
    fn advance(&mut self, until: Time) {
        while self.next_scrape <= until {
            self.course.advance(self.next_scrape.seconds());
            self.scrape(self.next_scrape);
            self.next_scrape = self.next_scrape.after(self.scrape_interval);
        }
        self.course.advance(until.seconds());
    }

    fn values(&mut self, now: Time, values: &mut Vec<Option<f64>>) {
        values.clear();
        let step = self.course.step();
        let holds = !self.course.workload.is_saturated(step) && self.course.fluid.waiting() < WAITING;
        let is_known = self.course.workload.inflow(step).is_some();
        let mut is_modelled = !holds;
        for (trigger, recorded) in self.settings.triggers.iter().zip(&self.recorded) {
            let value = match recorded.map(|series| series.get(step)) {
                // Prometheus had no answer, with any fleet.
                Some(None) => None,
                Some(Some(value)) if holds || matches!(trigger.signal, SignalModel::Unknown { .. }) => {
                    Some(value)
                }
                Some(Some(_)) | None => {
                    is_modelled = true;
                    self.model(trigger.signal, now).filter(|_| is_known)
                }
            };
            values.push(value);
        }
        // A value holds for the steps since the one before.
        let until = (step + 1).min(self.workload_steps());
        if self.modelled.len() < until {
            self.modelled.resize(until, is_modelled);
        }
    }

    fn ready(&self, _now: Time) -> Option<i32> {
        i32::try_from(self.course.fluid.ready()).ok()
    }

    fn scale(&mut self, now: Time, replicas: i32) {
        self.course.fluid.scale(now.seconds(), u32::try_from(replicas).unwrap_or(0));
    }
}

/// The settings on the requests, from the recorded number of replicas or that of the first step on. A pause of all scaling does not count:
/// under it there is nothing to simulate.
#[allow(clippy::cast_precision_loss, reason = "bounded")]
pub(in crate::foresight) fn autoscaled(
    setup: &Setup<'_>,
    settings: &Settings,
    first: Option<i32>,
) -> Outcome {
    let settings = &settings.clone().resumed();
    let grid = setup.workload.grid();
    let replicas = first.unwrap_or_else(|| first_need(setup.workload, settings));
    let replicas = replicas.clamp(settings.min(), settings.hpa.max());
    let recorded = settings.triggers.iter().map(|trigger| recorded_values(setup.history?, trigger)).collect();
    let mut scaled = Scaled {
        course: Course::new(setup, u32::try_from(replicas).unwrap_or(0)),
        settings,
        queue: setup.fleet.queue,
        recorded,
        samples: Samples::default(),
        next_scrape: setup.scrape_phase,
        // At least a second, so that a run ends.
        scrape_interval: setup.periods.scrape.max(Time::from_seconds(1)),
        modelled: Vec::with_capacity(grid.steps()),
    };
    scaled.scrape_past();
    let end = Time::from_seconds(u64::from(grid.step()) * grid.steps() as u64);
    let schedule = Schedule { phase: setup.phase, period: setup.periods.sync, end, explain: setup.explain };
    let driven = drive(settings, schedule, replicas, &mut scaled);
    let modelled = scaled.modelled.iter().filter(|modelled| **modelled).count() as f64 / grid.steps() as f64;
    Outcome { modelled, pass: driven.pass, ..scaled.course.finish(driven.changes) }
}

/// Time of the first scrape of a record: the point of the interval at which most requests in flight change. With steps that are no shorter
/// than the interval it does not show, and is 0.
pub(in crate::foresight) fn scrape_phase(history: &History, interval: Time) -> Time {
    let step = u64::from(history.grid().step());
    let steps = usize::try_from(interval.millis() / 1000 / step).unwrap_or(0);
    let Some(series) = history.series(&SeriesName::InFlight).filter(|_| steps > 1) else {
        return Time::default();
    };
    let values: Vec<Option<f64>> = series.iter().collect();
    let mut changes = vec![0_u32; steps];
    for (index, pair) in values.windows(2).enumerate() {
        if let [Some(before), Some(after)] = pair
            && (before - after).abs() > 1e-9
            && let Some(count) = changes.get_mut((index + 1) % steps)
        {
            *count += 1;
        }
    }
    let most = changes.iter().enumerate().rev().max_by_key(|(_, count)| **count);
    Time::from_seconds(most.map_or(0, |(phase, _)| phase as u64) * step)
}

/// Values that were recorded for the query of a trigger.
pub(super) fn recorded_values<'a>(history: &'a History, trigger: &TriggerModel) -> Option<&'a Series> {
    if trigger.signal == SignalModel::ActiveRequests(Law::InFlight)
        && history.query(&trigger.name) != Some(&trigger.query)
    {
        return history.series(&SeriesName::InFlight);
    }
    let is_same = history.query(&trigger.name) == Some(&trigger.query);
    history.series(&SeriesName::Trigger(trigger.name.clone())).filter(|_| is_same)
}

/// `true` if a run has another number of ServingGroups than the record in more steps than a replay may have, or the record has none.
pub(super) fn has_other_fleet(history: &History, outcome: &Outcome) -> bool {
    let Some(recorded) = recorded_replicas(history) else { return true };
    let steps = outcome.steps.iter().zip(recorded.iter());
    let steps = steps.filter_map(|(step, recorded)| Some((f64::from(step.groups), recorded?)));
    let (differing, all) = steps.fold((0_u32, 0_u32), |(differing, all), (simulated, recorded)| {
        (differing + u32::from((simulated - recorded).abs() >= 0.5), all + 1)
    });
    f64::from(differing) > (1.0 - EQUAL_MIN) * f64::from(all)
}

#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn first_need(workload: &Workload, settings: &Settings) -> i32 {
    let per_group = settings.requests_per_group().unwrap_or(f64::INFINITY);
    workload.need(per_group).flatten().next().map_or(1, |need| need.ceil() as i32)
}

/// A fixed number of ServingGroups on the requests.
pub(super) fn fixed(setup: &Setup<'_>, groups: u32) -> Outcome {
    let mut course = Course::new(setup, groups);
    course.advance(end(setup.workload));
    course.finish(0)
}

/// The recorded numbers of ServingGroups on the requests; `None` if none are recorded.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub(super) fn recorded(setup: &Setup<'_>) -> Option<Outcome> {
    let history = setup.history?;
    let total = history.series(&SeriesName::Total).filter(|series| !series.is_empty());
    let groups = total.or_else(|| recorded_replicas(history))?;
    let ready = history.series(&SeriesName::Ready);
    let mut before = groups.iter().flatten().next().map_or(0, |groups| groups as u32);
    let mut course = Course::new(setup, before);
    let (step, mut changes) = (f64::from(setup.workload.grid().step()), 0);
    for index in 0..setup.workload.grid().steps() {
        #[allow(clippy::cast_precision_loss, reason = "bounded")]
        let now = step * index as f64;
        course.advance(now - step.min(1.0) * 1e-3);
        if let Some(groups) = groups.get(index).map(|groups| groups as u32) {
            changes += u32::from(groups != before);
            before = groups;
            course.fluid.scale(now, groups);
        }
        if let Some(ready) = ready.and_then(|ready| ready.get(index)) {
            course.fluid.set_ready(now, ready as u32);
        }
        course.advance(now);
    }
    course.advance(end(setup.workload));
    Some(course.finish(changes))
}

#[allow(clippy::cast_precision_loss, reason = "bounded")]
fn end(workload: &Workload) -> f64 {
    f64::from(workload.grid().step()) * workload.grid().steps() as f64
}
