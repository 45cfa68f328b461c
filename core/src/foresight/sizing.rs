//! Results of simulations in the figures by which demand signals are compared.

use super::{
    fleet::FleetSpec,
    law::Law,
    load::{Load, Slice},
    simulation::{Outcome, Setup, simulate},
    spec::{HpaSpec, KedaSpec, Metric, UnsupportedSpec, quantity},
    time::Time,
};
use crate::{api::keda::MetricType, intent::Profile};

/// Start of a load step and the ServingGroups that it needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Time of the step.
    pub at: Time,
    /// ServingGroups that serve the load at the target.
    pub need: u32,
}

/// Load of a step case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLoad {
    /// Time without requests, in seconds.
    pub quiet: f64,
    /// Time with requests after it, in seconds.
    pub seconds: f64,
    /// Requests per second.
    pub rate: f64,
    /// Mean service time without waiting, in seconds.
    pub service_time: f64,
    /// Requests that one ServingGroup carries, above 0.
    pub target: f64,
}

/// Case in which demand signals are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Requests.
    pub load: Load,
    /// Step in it, or a trace.
    pub step: Option<Step>,
    /// The HPA.
    pub hpa: HpaSpec,
    /// KEDA's scale loop.
    pub keda: KedaSpec,
    /// Engines, router and clients.
    pub fleet: FleetSpec,
}

/// Figures of one case and demand signal: means over the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Highest number of ServingGroups.
    pub peak: f64,
    /// Time from the step until `spec.replicas` is what the load needs, in seconds; 0 without a step.
    pub reach: f64,
    /// Time from the step until that many are ready and no request waits, in seconds; 0 without a step.
    pub clear: f64,
    /// Mean waiting time, in seconds; with a step, of the requests of its first 15 minutes.
    pub wait_mean: f64,
    /// 95th percentile of the same.
    pub wait_p95: f64,
    /// 95th percentile of the waiting time of the requests after those 15 minutes, in seconds.
    pub late_p95: f64,
    /// Group-hours since the step.
    pub group_hours: f64,
    /// ServingGroups at the end.
    pub end: f64,
    /// Streams that the removal of ServingGroups cut.
    pub cut: f64,
    /// Refusals by the router.
    pub refused: f64,
    /// Clients that gave up.
    pub lost: f64,
    /// Changes of `spec.replicas`.
    pub changes: f64,
}

/// Requests that count for the first figures of waiting after a step.
const EARLY: Time = Time::from_seconds(900);

impl Case {
    /// One quiet time without requests, and a constant load after it.
    ///
    /// # Errors
    /// If the target is not above 0.
    pub fn step(step: &StepLoad, fleet: FleetSpec, profile: &Profile) -> Result<Self, UnsupportedSpec> {
        let slice = |seconds, rate| Slice { seconds, rate, service_time: step.service_time };
        let load = Load::new([slice(step.quiet, 0.0), slice(step.seconds, step.rate)]);
        let start = Time::from_seconds_f64(step.quiet);
        let need = need(step.rate * step.service_time, step.target);
        Self::new(load, Some(Step { at: start, need }), fleet, profile, step.target)
    }

    /// A recorded load; `target` is the number of requests that one ServingGroup carries.
    ///
    /// # Errors
    /// If the target is not above 0.
    pub fn trace(
        load: Load,
        fleet: FleetSpec,
        profile: &Profile,
        target: f64,
    ) -> Result<Self, UnsupportedSpec> {
        Self::new(load, None, fleet, profile, target)
    }

    fn new(
        load: Load,
        step: Option<Step>,
        fleet: FleetSpec,
        profile: &Profile,
        target: f64,
    ) -> Result<Self, UnsupportedSpec> {
        let metric = Metric { kind: MetricType::AverageValue, target: quantity(target).unwrap_or(0) };
        let hpa = HpaSpec::from_intent(profile.replicas, &profile.behavior, vec![metric])?;
        Ok(Self { load, step, hpa, keda: KedaSpec::from_intent(profile.replicas, profile), fleet })
    }

    /// Simulates the case with a demand signal, once per seed; no figures without a seed.
    pub fn figures(&self, law: Law, seeds: impl IntoIterator<Item = u64>) -> Figures {
        let setup = Setup { hpa: self.hpa.clone(), keda: self.keda.clone(), law, fleet: self.fleet };
        let runs: Vec<Figures> =
            seeds.into_iter().map(|seed| self.of_outcome(&simulate(&setup, &self.load, seed))).collect();
        mean(&runs)
    }

    fn of_outcome(&self, outcome: &Outcome) -> Figures {
        let start = self.step.map_or(Time::default(), |step| step.at);
        let early = if self.step.is_some() { start.after(EARLY) } else { Time::MAX };
        let (waiting, late) = (outcome.waiting(start, early), outcome.waiting(early, Time::MAX));
        Figures {
            peak: f64::from(outcome.peak()),
            reach: self.step.map_or(0.0, |step| reach(outcome, step)),
            clear: self.step.map_or(0.0, |step| clear(outcome, step)),
            wait_mean: waiting.mean,
            wait_p95: waiting.p95,
            late_p95: late.p95,
            group_hours: since(&outcome.groups, start).iter().map(|it| f64::from(*it)).sum::<f64>() / 3600.0,
            end: outcome.groups.last().copied().map_or(0.0, f64::from),
            cut: to_f64(outcome.counts.cut),
            refused: to_f64(outcome.counts.refused),
            lost: to_f64(outcome.counts.lost),
            changes: f64::from(outcome.changes),
        }
    }
}

impl Figures {
    fn combine(self, other: Self, with: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            peak: with(self.peak, other.peak),
            reach: with(self.reach, other.reach),
            clear: with(self.clear, other.clear),
            wait_mean: with(self.wait_mean, other.wait_mean),
            wait_p95: with(self.wait_p95, other.wait_p95),
            late_p95: with(self.late_p95, other.late_p95),
            group_hours: with(self.group_hours, other.group_hours),
            end: with(self.end, other.end),
            cut: with(self.cut, other.cut),
            refused: with(self.refused, other.refused),
            lost: with(self.lost, other.lost),
            changes: with(self.changes, other.changes),
        }
    }
}

fn mean(runs: &[Figures]) -> Figures {
    let count = to_f64(runs.len() as u64).max(1.0);
    let sum = runs.iter().fold(Figures::default(), |sum, run| sum.combine(*run, |sum, value| sum + value));
    sum.combine(sum, |sum, _| sum / count)
}

/// ServingGroups for a number of requests at the same time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn need(requests: f64, target: f64) -> u32 {
    (requests / target).ceil() as u32
}

/// Values per second from a time on.
fn since(values: &[u32], start: Time) -> &[u32] {
    let second = usize::try_from(start.millis() / 1000).unwrap_or(usize::MAX);
    values.get(second..).unwrap_or_default()
}

fn reach(outcome: &Outcome, step: Step) -> f64 {
    let groups = since(&outcome.groups, step.at);
    seconds(groups.iter().position(|groups| *groups >= step.need).unwrap_or(groups.len()))
}

fn clear(outcome: &Outcome, step: Step) -> f64 {
    let (ready, waiting) = (since(&outcome.ready, step.at), since(&outcome.waiting, step.at));
    let is_clear = |(ready, waiting): (&u32, &u32)| *ready >= step.need && *waiting == 0;
    seconds(ready.iter().zip(waiting).position(is_clear).unwrap_or(ready.len()))
}

fn seconds(count: usize) -> f64 {
    to_f64(count as u64)
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use rstest::rstest;

    use super::*;
    use crate::{
        domain::ReplicaBounds,
        foresight::{
            fleet::{Clients, Queue},
            law::BoundedBacklog,
        },
    };

    fn fleet(queue: Queue, loading: u64) -> FleetSpec {
        let clients = Clients { retry: None, patience: None };
        FleetSpec { slots: 10, loading: Time::from_seconds(loading), queue, waiting_limit: None, clients }
    }

    fn law(service_time: Option<f64>) -> Law {
        service_time.map_or(Law::InFlight, |service_time| {
            Law::BoundedBacklog(BoundedBacklog::new(service_time, 1.2, 600.0).unwrap())
        })
    }

    /// Peaks in multiples of the need of 10 that an independent simulation has measured for a step from 0 to 16
    /// requests per second of 5 s: 9.6 and 4.8 in flight, 1.4 to 1.7 with a bounded backlog. The load waits in
    /// the engines or in the router.
    #[rstest]
    #[case::in_flight(Queue::Engine, 60, None, 82.0..=100.0)]
    #[case::in_flight_router(Queue::Router, 60, None, 43.0..=53.0)]
    #[case::in_flight_slow(Queue::Engine, 180, None, 100.0..=100.0)]
    #[case::in_flight_slow_router(Queue::Router, 180, None, 100.0..=100.0)]
    #[case::bounded(Queue::Engine, 60, Some(5.0), 13.0..=18.0)]
    #[case::bounded_router(Queue::Router, 60, Some(5.0), 13.0..=18.0)]
    #[case::bounded_slow(Queue::Engine, 180, Some(5.0), 13.0..=18.5)]
    #[case::bounded_slow_router(Queue::Router, 180, Some(5.0), 13.0..=18.5)]
    fn a_step_overshoots_as_measured(
        #[case] queue: Queue,
        #[case] loading: u64,
        #[case] service_time: Option<f64>,
        #[case] peak: RangeInclusive<f64>,
    ) {
        let replicas = ReplicaBounds::new(1, 100).unwrap();
        let profile = Profile { replicas, ..Profile::built_in() };
        let step = StepLoad { quiet: 600.0, seconds: 1800.0, rate: 16.0, service_time: 5.0, target: 8.0 };
        let case = Case::step(&step, fleet(queue, loading), &profile).unwrap();
        let figures = case.figures(law(service_time), 1..=2);
        assert!(peak.contains(&figures.peak), "{figures:?}");
        assert!((130.0..=150.0).contains(&figures.reach), "{figures:?}");
    }
}
