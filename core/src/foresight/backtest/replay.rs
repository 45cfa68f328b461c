//! Replay: the settings in force on the recorded values of their own queries, compared with the recorded replicas.

use serde::Serialize;

use super::clock::{Driven, Pass, Plant, Schedule, drive};
use crate::foresight::{
    history::{History, Series, SeriesName},
    settings::Settings,
    time::Time,
};

/// Phases of the HPA's syncs that are tried: the real one is not known.
const PHASES: u64 = 5;

/// The phases of a period, evenly spaced.
pub(super) fn phases(period: Time) -> impl Iterator<Item = Time> {
    (0..PHASES).map(move |phase| Time::from_millis(period.millis() * phase / PHASES))
}

/// Agreement of a replay with the recorded replicas.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fidelity {
    /// Share of the steps in which the numbers are equal, 0 to 1, in the best phase.
    pub equal: f64,
    /// Greatest difference in the best phase.
    pub max_difference: u32,
    /// Longest time without a break in which the numbers differ in the best phase, in seconds: a change of one is
    /// that much later than in the other.
    pub longest_difference: u64,
    /// Greatest number of the replay.
    pub simulated_peak: u32,
    /// Greatest recorded number.
    pub recorded_peak: u32,
    /// Steps that were compared.
    pub compared: usize,
    /// Replica-hours of the replay.
    pub simulated_hours: f64,
    /// Recorded replica-hours of the same steps.
    pub recorded_hours: f64,
    /// Result of each phase.
    pub phases: Vec<PhaseResult>,
}

/// Agreement with the HPA's syncs at one phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseResult {
    /// Seconds after a step.
    pub phase: f64,
    /// Share of the steps in which the numbers are equal, 0 to 1.
    pub equal: f64,
    /// Greatest difference.
    pub max_difference: u32,
}

impl Fidelity {
    /// Least and greatest share of equal steps over the phases.
    pub fn spread(&self) -> (f64, f64) {
        let shares = self.phases.iter().map(|phase| phase.equal);
        shares.fold((1.0, 0.0), |(least, greatest), it| (it.min(least), it.max(greatest)))
    }

    /// Phase of the best agreement.
    pub fn best_phase(&self) -> Time {
        let best = self.phases.iter().rev().max_by(|a, b| a.equal.total_cmp(&b.equal));
        best.map(|phase| Time::from_seconds_f64(phase.phase)).unwrap_or_default()
    }
}

/// The recorded values, which do not depend on the number of replicas.
struct Record<'a> {
    triggers: Vec<Option<&'a Series>>,
    ready: Option<&'a Series>,
    step: u32,
    replicas: i32,
    /// Replicas at each step.
    course: Vec<i32>,
    steps: usize,
}

impl Record<'_> {
    fn index(&self, now: Time) -> usize {
        usize::try_from(now.millis() / (u64::from(self.step) * 1000)).unwrap_or(usize::MAX)
    }
}

impl Plant for Record<'_> {
    fn advance(&mut self, until: Time) {
        let step = u64::from(self.step) * 1000;
        while self.course.len() < self.steps && (self.course.len() as u64) * step <= until.millis() {
            self.course.push(self.replicas);
        }
    }

    fn values(&mut self, now: Time, values: &mut Vec<Option<f64>>) {
        let index = self.index(now);
        values.clear();
        values.extend(self.triggers.iter().map(|series| series.and_then(|series| series.get(index))));
    }

    #[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
    fn ready(&self, now: Time) -> Option<i32> {
        self.ready.map_or(Some(self.replicas), |ready| ready.get(self.index(now)).map(|it| it as i32))
    }

    fn scale(&mut self, _now: Time, replicas: i32) {
        self.replicas = replicas;
    }
}

/// Replicas at each step in one phase, and the explained sync.
pub(super) fn replay(
    history: &History,
    settings: &Settings,
    (period, phase): (Time, Time),
    explain: Option<Time>,
) -> (Vec<i32>, Option<Pass>) {
    let grid = history.grid();
    let series = |name: &str| history.series(&SeriesName::Trigger(name.to_owned()));
    let replicas = first_replicas(history).unwrap_or_else(|| settings.min());
    let mut record = Record {
        triggers: settings.triggers.iter().map(|trigger| series(&trigger.name)).collect(),
        ready: history.series(&SeriesName::Ready),
        step: grid.step(),
        replicas,
        course: Vec::with_capacity(grid.steps()),
        steps: grid.steps(),
    };
    let end = Time::from_seconds(u64::from(grid.step()) * grid.steps() as u64);
    let schedule = Schedule { phase, period, end, explain };
    let Driven { pass, .. } = drive(settings, schedule, replicas, &mut record);
    (record.course, pass)
}

/// The recorded number of replicas that the HPA sets.
pub(super) fn recorded_replicas(history: &History) -> Option<&Series> {
    let names = [SeriesName::Spec, SeriesName::Total];
    names.iter().filter_map(|name| history.series(name)).find(|series| !series.is_empty())
}

#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub(in crate::foresight) fn first_replicas(history: &History) -> Option<i32> {
    recorded_replicas(history)?.iter().flatten().next().map(|replicas| replicas as i32)
}

/// Compares the replay in each phase with the record; `None` without recorded replicas.
pub(super) fn fidelity(history: &History, settings: &Settings, period: Time) -> Option<Fidelity> {
    let recorded = recorded_replicas(history)?;
    let hours = |sum: f64| sum * f64::from(history.grid().step()) / 3600.0;
    let mut best: Option<Fidelity> = None;
    let mut results = Vec::new();
    for phase in phases(period) {
        let (course, _) = replay(history, settings, (period, phase), None);
        let found = compare(&course, recorded, history.grid().step());
        let (equal, max_difference) = (found.equal, found.max_difference);
        results.push(PhaseResult { phase: phase.seconds(), equal, max_difference });
        if best.as_ref().is_none_or(|best| found.equal > best.equal) {
            best = Some(Fidelity {
                simulated_hours: hours(found.simulated_hours),
                recorded_hours: hours(found.recorded_hours),
                ..found
            });
        }
    }
    best.filter(|best| best.compared > 0).map(|best| Fidelity { phases: results, ..best })
}

/// Agreement of one course, with sums of replicas in place of hours.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bounded"
)]
fn compare(course: &[i32], recorded: &Series, step: u32) -> Fidelity {
    let (mut equal, mut compared, mut max_difference) = (0_usize, 0_usize, 0.0_f64);
    let (mut differing, mut longest) = (0_u64, 0_u64);
    let (mut simulated_peak, mut recorded_peak) = (0.0_f64, 0.0_f64);
    let (mut simulated_hours, mut recorded_hours) = (0.0, 0.0);
    for (simulated, recorded) in course.iter().zip(recorded.iter()) {
        let Some(recorded) = recorded else { continue };
        let simulated = f64::from(*simulated);
        let difference = (simulated - recorded).abs();
        let is_equal = difference < 0.5;
        compared += 1;
        equal += usize::from(is_equal);
        differing = if is_equal { 0 } else { differing + u64::from(step) };
        longest = longest.max(differing);
        max_difference = max_difference.max(difference);
        simulated_peak = simulated_peak.max(simulated);
        recorded_peak = recorded_peak.max(recorded);
        simulated_hours += simulated;
        recorded_hours += recorded;
    }
    Fidelity {
        equal: if compared > 0 { equal as f64 / compared as f64 } else { 0.0 },
        max_difference: max_difference.round() as u32,
        longest_difference: longest,
        simulated_peak: simulated_peak.round() as u32,
        recorded_peak: recorded_peak.round() as u32,
        compared,
        simulated_hours,
        recorded_hours,
        phases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::keda::{ScaledObject, ScaledObjectSpec},
        domain::Backlog,
        foresight::history::Grid,
    };

    /// A change that is two steps late, one that is one step early, and a gap.
    #[test]
    fn a_comparison_has_the_longest_difference_and_both_peaks() {
        let object = ScaledObject::new("", ScaledObjectSpec::default());
        let mut history = History::new(Grid::new(0, 15, 8).unwrap(), "n", "m", &object, Backlog::default());
        for (step, value) in [1.0, 3.0, 3.0, 3.0, 3.0, f64::NAN, 5.0, 1.0].into_iter().enumerate() {
            history.record(&SeriesName::Spec, f64::from(u32::try_from(step).unwrap() * 15), value);
        }
        let found = compare(&[1, 1, 1, 3, 3, 9, 1, 1], recorded_replicas(&history).unwrap(), 15);
        assert_eq!((found.compared, found.max_difference, found.longest_difference), (7, 4, 30));
        assert_eq!((found.simulated_peak, found.recorded_peak), (3, 5));
        assert!((found.equal - 4.0 / 7.0).abs() < 1e-9);
    }
}
