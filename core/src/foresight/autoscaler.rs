//! The HPA and KEDA's scale loop of one model, fed with values as they come.

use std::collections::VecDeque;

use super::{
    hpa::{Decision, DecisionReason, Hpa, Sync, proposals},
    keda::ScaleLoop,
    spec::{HpaSpec, KedaSpec, UnsupportedSpec, quantity},
    time::Time,
};
use crate::api::keda::ScaledObject;

/// Time after which Kthena's `status.replicas` follows a change; measured as 3 to 6 s.
const STATUS_LAG: Time = Time::from_seconds(5);

/// Interval between two syncs of the HPA with this period: the controller queues the next one after the queries of this one, which take some
/// 50 ms. Without them a policy whose period is a multiple of that of the syncs would take one more sync in half of the cases.
#[must_use]
pub const fn sync_interval(period: Time) -> Time {
    period.after(Time::from_millis(50))
}

/// Settings of both.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalerSpec {
    /// Settings of the HPA.
    pub hpa: HpaSpec,
    /// Settings of the scale loop.
    pub keda: KedaSpec,
}

impl AutoscalerSpec {
    /// Settings that a ScaledObject states.
    ///
    /// # Errors
    /// If the object has settings that the simulation does not support.
    pub fn from_scaled_object(object: &ScaledObject) -> Result<Self, UnsupportedSpec> {
        Ok(Self { hpa: HpaSpec::from_scaled_object(object)?, keda: KedaSpec::from_scaled_object(object) })
    }
}

/// Autoscaler of one model, and the number of replicas that it holds.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    spec: AutoscalerSpec,
    hpa: Hpa,
    scale_loop: ScaleLoop,
    replicas: i32,
    /// Changes that `status.replicas` has yet to follow.
    changes: VecDeque<(Time, i32)>,
    status: i32,
    status_lag: Time,
}

impl Autoscaler {
    /// A ScaledObject and HPA that were created at this time, of a model that has this number of replicas, which is brought within the bounds
    /// unless all scaling is paused.
    /// `sync_period` is that of the HPA controller.
    pub fn new(spec: AutoscalerSpec, replicas: i32, created: Time, sync_period: Time) -> Self {
        let within = replicas.clamp(spec.keda.min.min(spec.hpa.max()), spec.hpa.max());
        let replicas = if spec.keda.is_paused() { replicas } else { within };
        Self {
            spec,
            hpa: Hpa::default(),
            scale_loop: ScaleLoop::new(created),
            replicas,
            changes: VecDeque::new(),
            status: replicas,
            status_lag: STATUS_LAG.min(sync_period),
        }
    }

    /// Settings in force.
    pub const fn spec(&self) -> &AutoscalerSpec {
        &self.spec
    }

    /// Number of replicas that it holds.
    pub const fn replicas(&self) -> i32 {
        self.replicas
    }

    /// Changes the settings. As in a cluster, the number and the memory of both stay; new bounds act at the next step.
    pub fn set_spec(&mut self, spec: AutoscalerSpec) {
        self.spec = spec;
    }

    /// Corrects the number of replicas after a sync whose result is known. From and to 0 it is KEDA's, else the HPA's.
    pub fn correct(&mut self, now: Time, replicas: i32) {
        if self.replicas != 0 && replicas != 0 {
            self.hpa.record_change(&self.spec.hpa, now, self.replicas, replicas);
        }
        self.scale(now, replicas);
    }

    /// One poll of KEDA, with one value for each trigger; `None` is an error.
    pub fn poll(&mut self, now: Time, values: &[Option<f64>]) {
        let replicas = self.scale_loop.poll(&self.spec.keda, now, self.replicas, values);
        self.scale(now, replicas);
    }

    /// One sync of the HPA, with one value for each trigger; `None` is an error. All replicas count as ready.
    pub fn sync(&mut self, now: Time, values: &[Option<f64>]) -> Decision {
        self.sync_with_ready(now, values, Some(self.replicas))
    }

    /// The same with the number of pods that are ready; `None` if it is not known.
    pub fn sync_with_ready(&mut self, now: Time, values: &[Option<f64>], ready: Option<i32>) -> Decision {
        self.follow_status(now);
        if self.spec.keda.is_paused() {
            return self.pause();
        }
        let values = quantities(values);
        let (spec, status) = (self.replicas, self.status);
        let decision = self.hpa.sync(&self.spec.hpa, Sync { now, spec, status, ready, values: &values });
        self.scale(now, decision.replicas);
        decision
    }

    /// KEDA deletes the HPA, and with it what the HPA remembers (`controllers/keda/scaledobject_controller.go`).
    fn pause(&mut self) -> Decision {
        self.hpa = Hpa::default();
        let reason = DecisionReason::Paused;
        Decision { replicas: self.replicas, proposal: None, stabilized: None, reason }
    }

    /// `status.replicas` of a sync at this time, and the replicas that each trigger asks for in it.
    pub fn proposals(
        &mut self,
        now: Time,
        values: &[Option<f64>],
        ready: Option<i32>,
    ) -> (i32, Vec<Option<i32>>) {
        self.follow_status(now);
        let values = quantities(values);
        let (spec, status) = (self.replicas, self.status);
        (status, proposals(&self.spec.hpa, Sync { now, spec, status, ready, values: &values }))
    }

    fn follow_status(&mut self, now: Time) {
        while let Some((_, replicas)) = self.changes.pop_front_if(|(at, _)| now.since(*at) >= self.status_lag)
        {
            self.status = replicas;
        }
    }

    fn scale(&mut self, now: Time, replicas: i32) {
        if replicas != self.replicas {
            self.replicas = replicas;
            self.changes.push_back((now, replicas));
        }
    }
}

fn quantities(values: &[Option<f64>]) -> Vec<Option<i64>> {
    values.iter().map(|value| value.and_then(quantity)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{
        domain::Pause,
        observed::fixture::Fixture,
        plan::{Desired, plan},
    };

    const PERIOD: Time = Time::from_seconds(15);

    fn spec(min: &str, max: &str) -> AutoscalerSpec {
        let fixture = Fixture::model("llama").annotated("min-replicas", min).annotated("max-replicas", max);
        let plan = plan(&fixture.observed(), fixture.capabilities, &fixture.defaults);
        let Desired::Apply(object) = plan.scaled_object else { panic!("{:?}", plan.findings) };
        AutoscalerSpec::from_scaled_object(&object).unwrap()
    }

    fn at(seconds: u64) -> Time {
        Time::from_seconds(1_700_000_000 + seconds)
    }

    fn autoscaler(min: &str, max: &str, replicas: i32) -> Autoscaler {
        Autoscaler::new(spec(min, max), replicas, at(0), PERIOD)
    }

    #[rstest]
    #[case(5, 5)]
    #[case(0, 2)]
    #[case(12, 8)]
    fn begins_within_the_bounds(#[case] replicas: i32, #[case] expected: i32) {
        assert_eq!(autoscaler("2", "8", replicas).replicas(), expected);
    }

    /// With the built-in settings: two, or as many again, per minute up; and the highest of ten minutes down.
    #[test]
    fn follows_the_load_with_the_speed_of_the_settings() {
        let mut autoscaler = autoscaler("1", "10", 1);
        let mut held = Vec::new();
        for step in 0..=20 {
            let now = at(15 * step);
            autoscaler.sync(now, &[Some(if step < 12 { 95.0 } else { 5.0 })]);
            held.push(autoscaler.replicas());
        }
        assert_eq!(held[..5], [3, 3, 3, 3, 6]);
        assert_eq!(held[20], 10, "the window of ten minutes");
    }

    #[test]
    fn keeps_the_number_without_a_value() {
        let mut autoscaler = autoscaler("1", "10", 4);
        let decision = autoscaler.sync(at(0), &[None]);
        assert_eq!((decision.reason, autoscaler.replicas()), (DecisionReason::FailedGetExternalMetric, 4));
    }

    #[test]
    fn a_pause_keeps_the_number_and_ends_the_windows() {
        let mut autoscaler = autoscaler("1", "10", 6);
        autoscaler.sync(at(0), &[Some(60.0)]);
        let running = autoscaler.spec().clone();
        let mut paused = running.clone();
        paused.keda.pause = Some(Pause::All);
        autoscaler.set_spec(paused);
        assert_eq!(autoscaler.sync(at(590), &[Some(100.0)]).reason, DecisionReason::Paused);
        assert_eq!(autoscaler.replicas(), 6);
        autoscaler.set_spec(running);
        autoscaler.sync(at(700), &[Some(10.0)]);
        assert_eq!(autoscaler.replicas(), 6, "the window of ten minutes begins anew");
    }

    #[test]
    fn a_pause_keeps_a_number_outside_of_the_bounds() {
        let mut paused = spec("2", "8");
        paused.keda.pause = Some(Pause::All);
        let mut autoscaler = Autoscaler::new(paused, 0, at(0), PERIOD);
        autoscaler.sync(at(0), &[Some(60.0)]);
        autoscaler.poll(at(15), &[Some(60.0)]);
        assert_eq!(autoscaler.replicas(), 0);
    }

    #[test]
    fn sleeps_and_wakes_by_the_polls_alone() {
        let mut autoscaler = autoscaler("0", "10", 4);
        let idle = [Some(0.0), Some(0.0)];
        autoscaler.poll(at(900), &idle);
        assert_eq!(autoscaler.replicas(), 4, "the initial cooldown is 15 minutes");
        autoscaler.poll(at(901), &idle);
        assert_eq!(autoscaler.replicas(), 0);
        let busy = [Some(25.0), Some(0.0)];
        autoscaler.sync(at(915), &busy);
        assert_eq!(autoscaler.replicas(), 0, "the HPA does nothing at zero");
        autoscaler.poll(at(916), &busy);
        assert_eq!(autoscaler.replicas(), 1);
    }

    /// The recommendations of the last ten minutes stay, and so does the number.
    #[test]
    fn new_settings_keep_the_number_and_the_windows() {
        let mut autoscaler = autoscaler("1", "10", 6);
        autoscaler.sync(at(0), &[Some(60.0)]);
        autoscaler.set_spec(spec("1", "20"));
        autoscaler.sync(at(15), &[Some(10.0)]);
        assert_eq!(autoscaler.replicas(), 6);
        autoscaler.set_spec(spec("1", "4"));
        assert_eq!(autoscaler.replicas(), 6, "until the next sync");
        autoscaler.sync(at(30), &[Some(10.0)]);
        assert_eq!(autoscaler.replicas(), 4);
    }

    /// The tolerance compares with `status.replicas`, which follows a change after some seconds.
    #[rstest]
    #[case::short_period(Time::from_seconds(2), 3, 3)]
    #[case::usual_period(PERIOD, 15, 3)]
    #[case::before_the_status_follows(PERIOD, 3, 4)]
    fn the_status_follows_a_change(#[case] period: Time, #[case] after: u64, #[case] proposal: i32) {
        let mut autoscaler = Autoscaler::new(spec("1", "10"), 1, at(0), period);
        autoscaler.sync(at(0), &[Some(30.0)]);
        assert_eq!(autoscaler.replicas(), 3);
        assert_eq!(autoscaler.sync(at(after), &[Some(31.0)]).proposal, Some(proposal));
    }
}
