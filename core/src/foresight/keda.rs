//! Decisions of KEDA's scale loop: between 0 and 1 replica, and up to the minimum.
//!
//! Source: KEDA 2.21 `pkg/scaling/executor/scale_scaledobjects.go`.

use super::{spec::KedaSpec, time::Time};
use crate::domain::Pause;

/// State of one ScaledObject that the scale loop needs.
#[derive(Clone, Copy, Debug)]
pub struct ScaleLoop {
    created: Time,
    /// `status.lastActiveTime`, in whole seconds; survives restarts.
    last_active: Option<Time>,
}

impl ScaleLoop {
    /// Loop of a ScaledObject that was created at this time.
    pub const fn new(created: Time) -> Self {
        Self { created, last_active: None }
    }

    /// One poll: `spec.replicas` after it. `values` has one value per trigger; `None` is an error.
    pub fn poll(&mut self, spec: &KedaSpec, now: Time, replicas: i32, values: &[Option<f64>]) -> i32 {
        if spec.is_paused() {
            return replicas;
        }
        if is_active(spec, values) {
            self.active(spec, now, replicas, values)
        } else {
            self.inactive(spec, now, replicas, values)
        }
    }

    fn active(&mut self, spec: &KedaSpec, now: Time, replicas: i32, values: &[Option<f64>]) -> i32 {
        if replicas == 0 {
            if spec.pause == Some(Pause::ScaleOut) {
                return 0;
            }
            self.last_active = Some(whole_seconds(now));
            return spec.min.max(1);
        }
        if !has_error(spec, values) {
            self.last_active = Some(whole_seconds(now));
        }
        replicas
    }

    fn inactive(&self, spec: &KedaSpec, now: Time, replicas: i32, values: &[Option<f64>]) -> i32 {
        if has_error(spec, values) {
            return replicas;
        }
        if replicas > 0 && spec.min == 0 {
            let is_due = self.is_cooled_down(spec, now) && spec.pause != Some(Pause::ScaleIn);
            return if is_due { 0 } else { replicas };
        }
        replicas.max(spec.min)
    }

    fn is_cooled_down(&self, spec: &KedaSpec, now: Time) -> bool {
        self.last_active.map_or_else(
            || self.created.is_before(spec.initial_cooldown, now),
            |last| last.is_before(spec.cooldown, now),
        )
    }
}

/// `true` if a trigger exceeds its activation threshold; a trigger in error is inactive.
fn is_active(spec: &KedaSpec, values: &[Option<f64>]) -> bool {
    let thresholds = spec.activation.iter();
    thresholds.zip(values).any(|(threshold, value)| value.is_some_and(|value| value > *threshold))
}

fn has_error(spec: &KedaSpec, values: &[Option<f64>]) -> bool {
    values.len() < spec.activation.len() || values.iter().any(Option::is_none)
}

fn whole_seconds(time: Time) -> Time {
    Time::from_seconds(time.millis() / 1000)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn spec(min: i32, pause: Option<Pause>) -> KedaSpec {
        KedaSpec {
            polling_interval: 15,
            cooldown: 1800,
            initial_cooldown: 900,
            min,
            activation: vec![0.0, 2.0],
            pause,
        }
    }

    #[rstest]
    #[case::wakes(0, None, 0, 10, &[Some(0.5), Some(0.0)], 1)]
    #[case::wakes_in_spite_of_an_error(0, None, 0, 10, &[Some(0.5), None], 1)]
    #[case::threshold_is_exclusive(0, None, 0, 10, &[Some(0.0), Some(2.0)], 0)]
    #[case::wakes_to_the_minimum(3, None, 0, 10, &[Some(1.0), Some(0.0)], 3)]
    #[case::paused_scale_out(0, Some(Pause::ScaleOut), 0, 10, &[Some(1.0), Some(0.0)], 0)]
    #[case::paused(0, Some(Pause::All), 0, 10, &[Some(1.0), Some(0.0)], 0)]
    #[case::raises_to_the_minimum(3, None, 1, 10, &[Some(0.0), Some(0.0)], 3)]
    #[case::leaves_the_rest_to_the_hpa(1, None, 7, 10, &[Some(90.0), Some(0.0)], 7)]
    #[case::waits_for_the_initial_cooldown(0, None, 7, 900, &[Some(0.0), Some(0.0)], 7)]
    #[case::stops_from_any_number(0, None, 7, 901, &[Some(0.0), Some(0.0)], 0)]
    #[case::paused_scale_in(0, Some(Pause::ScaleIn), 7, 901, &[Some(0.0), Some(0.0)], 7)]
    #[case::an_error_changes_nothing(0, None, 7, 901, &[Some(0.0), None], 7)]
    #[case::a_missing_value_is_an_error(0, None, 7, 901, &[Some(0.0)], 7)]
    fn polls(
        #[case] min: i32,
        #[case] pause: Option<Pause>,
        #[case] replicas: i32,
        #[case] seconds: u64,
        #[case] values: &[Option<f64>],
        #[case] expected: i32,
    ) {
        let mut scale_loop = ScaleLoop::new(Time::default());
        let now = Time::from_seconds(seconds);
        assert_eq!(scale_loop.poll(&spec(min, pause), now, replicas, values), expected);
    }

    /// The cooldown counts from the last poll with activity and without an error.
    #[test]
    fn cools_down_after_activity() {
        let (spec, mut scale_loop) = (spec(0, None), ScaleLoop::new(Time::default()));
        let mut poll =
            |seconds, values: &[Option<f64>]| scale_loop.poll(&spec, Time::from_seconds(seconds), 2, values);
        assert_eq!(poll(1000, &[Some(1.0), Some(0.0)]), 2);
        assert_eq!(poll(1015, &[Some(1.0), None]), 2);
        assert_eq!(poll(2800, &[Some(0.0), Some(0.0)]), 2);
        assert_eq!(poll(2801, &[Some(0.0), Some(0.0)]), 0);
    }
}
