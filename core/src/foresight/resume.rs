//! An autoscaler that continues after a restart, on the values that Prometheus recorded in between and before.

use super::{
    autoscaler::{Autoscaler, AutoscalerSpec},
    history::Grid,
    hpa::Decision,
    time::Time,
};

/// Longest time that is read back, in seconds. Only a cooldown may be longer.
const MEMORY_MAX: i32 = 86_400;

/// Series of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedSeries {
    /// Values of the trigger with this index.
    Trigger(usize),
    /// Number of replicas that the dry run held.
    Held,
}

/// Recorded values of one dry run on a grid whose step is the sync period of the HPA.
#[derive(Clone, Debug)]
pub struct Recorded {
    grid: Grid,
    triggers: Vec<Vec<Option<f64>>>,
    held: Vec<Option<f64>>,
}

/// Beginning of a dry run.
#[derive(Clone, Copy, Debug)]
pub struct Beginning {
    /// Number of replicas at the first step, unless one is recorded.
    pub replicas: i32,
    /// Time since which it runs.
    pub since: Time,
}

impl AutoscalerSpec {
    /// Time on which a decision may depend, in seconds: the longest window, period or cooldown, at most a day.
    pub fn memory(&self) -> i32 {
        let (up, down) = (&self.hpa.scale_up, &self.hpa.scale_down);
        let periods = up.policies.iter().chain(&down.policies).map(|policy| policy.period);
        let cooldowns = [self.keda.cooldown, self.keda.initial_cooldown];
        let cooldowns = cooldowns.into_iter().filter(|_| self.keda.min == 0);
        let longest = periods.chain(cooldowns).chain([up.window, down.window]).max();
        longest.unwrap_or(0).clamp(0, MEMORY_MAX)
    }
}

impl Recorded {
    /// No values yet of this many triggers.
    pub fn new(grid: Grid, triggers: usize) -> Self {
        let empty = vec![None; grid.steps()];
        Self { grid, triggers: vec![empty.clone(); triggers], held: empty }
    }

    /// Adds a value at a time in seconds since 1970; one that is between the steps or not finite is left out.
    pub fn record(&mut self, series: RecordedSeries, at: f64, value: f64) {
        let series = match series {
            RecordedSeries::Trigger(index) => self.triggers.get_mut(index),
            RecordedSeries::Held => Some(&mut self.held),
        };
        let slot = series.zip(self.grid.index(at)).and_then(|(series, step)| series.get_mut(step));
        if let Some(slot) = slot.filter(|_| value.is_finite()) {
            *slot = Some(value);
        }
    }

    /// `true` if no value of any trigger was recorded.
    pub fn is_empty(&self) -> bool {
        self.triggers.iter().flatten().all(Option::is_none)
    }

    /// The autoscaler after all steps, and its last decision.
    ///
    /// It begins with the first recorded number of replicas, follows the recorded ones, and continues from the last.
    pub fn resume(&self, spec: AutoscalerSpec, beginning: Beginning) -> (Autoscaler, Option<Decision>) {
        let period = Time::from_seconds(self.grid.step().into());
        let polling = Time::from_seconds(u64::try_from(spec.keda.polling_interval).unwrap_or(1).max(1));
        let first = self.held.iter().find_map(|held| *held).map_or(beginning.replicas, rounded);
        let last = self.held.iter().rposition(Option::is_some);
        let mut autoscaler = Autoscaler::new(spec, first, beginning.since, period);
        let (mut decision, mut next_poll) = (None, Time::default());
        for step in 0..self.grid.steps() {
            let now = self.time(step);
            let values: Vec<Option<f64>> =
                self.triggers.iter().map(|values| values.get(step).copied().flatten()).collect();
            if now >= next_poll {
                autoscaler.poll(now, &values);
                next_poll = now.after(polling);
            }
            let before = autoscaler.replicas();
            decision = Some(autoscaler.sync(now, &values));
            let held = self.held.get(step).copied().flatten().map(rounded);
            // A recorded number is older than the step by a scrape, so that before the sync may be right, too.
            let is_right =
                |held: i32| held == autoscaler.replicas() || (held == before && last != Some(step));
            if let Some(held) = held.filter(|held| !is_right(*held)) {
                autoscaler.correct(now, held);
            }
        }
        (autoscaler, decision)
    }

    fn time(&self, step: usize) -> Time {
        let start = u64::try_from(self.grid.start()).unwrap_or(0);
        Time::from_seconds(start + u64::from(self.grid.step()) * step as u64)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn rounded(replicas: f64) -> i32 {
    replicas.round() as i32
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    const START: i64 = 1_700_000_010;
    const BEGINNING: u64 = 1_700_000_010;

    fn spec(min: &str) -> AutoscalerSpec {
        let fixture = Fixture::model("llama").annotated("min-replicas", min).annotated("max-replicas", "20");
        let plan = plan(&fixture.observed(), fixture.capabilities, &fixture.defaults);
        let Desired::Apply(object) = plan.scaled_object else { panic!("{:?}", plan.findings) };
        AutoscalerSpec::from_scaled_object(&object).unwrap()
    }

    fn second(step: usize) -> i64 {
        START + 15 * i64::try_from(step).unwrap()
    }

    #[allow(clippy::cast_precision_loss, reason = "small")]
    fn at(step: usize) -> f64 {
        second(step) as f64
    }

    fn recorded(values: impl Iterator<Item = Option<f64>>, held: &[(usize, f64)], steps: usize) -> Recorded {
        let mut recorded = Recorded::new(Grid::new(START, 15, steps).unwrap(), 1);
        for (step, value) in values.enumerate() {
            if let Some(value) = value {
                recorded.record(RecordedSeries::Trigger(0), at(step), value);
            }
        }
        for (step, held) in held {
            recorded.record(RecordedSeries::Held, at(*step), *held);
        }
        recorded
    }

    fn beginning(replicas: i32) -> Beginning {
        Beginning { replicas, since: Time::from_seconds(BEGINNING) }
    }

    /// A process that never stopped, and one that reads the last ten minutes back.
    #[test]
    fn continues_as_if_it_had_never_stopped() {
        let load = |step: usize| 10.0 * (1.0 + f64::from(u8::from((20..60).contains(&step))) * 7.0);
        let steps = 160;
        let mut steady = Autoscaler::new(spec("1"), 1, Time::from_seconds(BEGINNING), Time::from_seconds(15));
        let mut course = Vec::new();
        for step in 0..steps {
            steady.sync(Time::from_seconds_f64(at(step)), &[Some(load(step))]);
            course.push(steady.replicas());
        }
        for restart in 45..steps {
            let window = restart - 40..restart;
            let mut recorded = Recorded::new(Grid::new(second(window.start), 15, 40).unwrap(), 1);
            for step in window {
                recorded.record(RecordedSeries::Trigger(0), at(step), load(step));
                recorded.record(RecordedSeries::Held, at(step), f64::from(course[step]));
            }
            let (mut resumed, _) = recorded.resume(spec("1"), beginning(1));
            let mut again = Vec::new();
            for step in restart..steps {
                resumed.sync(Time::from_seconds_f64(at(step)), &[Some(load(step))]);
                again.push(resumed.replicas());
            }
            assert_eq!(again, course[restart..], "after {restart} steps");
        }
    }

    #[rstest]
    #[case::nothing_recorded(&[], 6)]
    #[case::first(&[(0, 9.0)], 9)]
    #[case::last_counts(&[(0, 9.0), (30, 12.0)], 12)]
    fn begins_with_what_was_held(#[case] held: &[(usize, f64)], #[case] expected: i32) {
        let recorded = recorded((0..40).map(|_| None), held, 40);
        assert!(recorded.is_empty());
        assert_eq!(recorded.resume(spec("1"), beginning(6)).0.replicas(), expected);
    }

    /// The initial cooldown counts from the beginning of the dry run.
    #[test]
    fn sleeps_by_the_cooldown_since_the_beginning() {
        let idle = || {
            let mut recorded = recorded((0..40).map(|_| Some(0.0)), &[], 40);
            recorded.triggers.push(vec![Some(0.0); 40]);
            recorded
        };
        let (awake, _) = idle().resume(spec("0"), beginning(6));
        let long_ago = Beginning { replicas: 6, since: Time::from_seconds(BEGINNING - 1000) };
        let (asleep, _) = idle().resume(spec("0"), long_ago);
        assert_eq!((awake.replicas(), asleep.replicas()), (6, 0));
    }

    #[rstest]
    #[case::window_of_scale_down("1", 600)]
    #[case::cooldown("0", 1800)]
    fn reads_back_the_longest_memory(#[case] min: &str, #[case] expected: i32) {
        assert_eq!(spec(min).memory(), expected);
    }

    #[test]
    fn leaves_out_what_is_no_value_of_a_step() {
        let mut recorded = recorded([].into_iter(), &[], 2);
        recorded.record(RecordedSeries::Trigger(0), at(0) + 7.0, 1.0);
        recorded.record(RecordedSeries::Trigger(0), at(1), f64::NAN);
        recorded.record(RecordedSeries::Trigger(0), at(2), 1.0);
        recorded.record(RecordedSeries::Trigger(1), at(0), 1.0);
        assert!(recorded.is_empty());
    }
}
