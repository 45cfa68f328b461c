//! The HPA and KEDA's scale loop on one clock.

use std::collections::VecDeque;

use crate::foresight::{
    hpa::{Decision, Hpa, Sync, proposals},
    keda::ScaleLoop,
    settings::Settings,
    spec::quantity,
    time::Time,
};

/// Interval between two syncs of the HPA: its period, and the time of a query.
const SYNC_PERIOD: Time = Time::from_millis(15_050);
/// Time after which Kthena's `status.replicas` follows a change; measured as 3 to 6 s.
const STATUS_LAG: Time = Time::from_seconds(5);

/// A model that is scaled.
pub(super) trait Plant {
    /// Everything that happens until this time.
    fn advance(&mut self, until: Time);
    /// Values of the triggers; `None` is an error of the query.
    fn values(&mut self, now: Time, values: &mut Vec<Option<f64>>);
    /// Pods that are ready; `None` if they are not known.
    fn ready(&self, now: Time) -> Option<i32>;
    /// Sets `spec.replicas`.
    fn scale(&mut self, now: Time, replicas: i32);
}

/// Time and phases of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Time of the first sync.
    pub(super) phase: Time,
    /// End.
    pub(super) end: Time,
    /// Time whose sync is explained: the last one that is not after it.
    pub(super) explain: Option<Time>,
}

/// One sync of the HPA, with its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Time since the start.
    pub at: Time,
    /// Value of each trigger; `None` is an error.
    pub values: Vec<Option<f64>>,
    /// Replicas that each trigger asks for.
    pub proposals: Vec<Option<i32>>,
    /// `spec.replicas` before.
    pub spec: i32,
    /// `status.replicas`.
    pub status: i32,
    /// Result.
    pub decision: Decision,
}

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Driven {
    /// Changes of `spec.replicas`.
    pub(super) changes: u32,
    /// The sync that is explained.
    pub(super) pass: Option<Pass>,
}

struct Clock<'a> {
    settings: &'a Settings,
    hpa: Hpa,
    scale_loop: ScaleLoop,
    replicas: i32,
    /// Changes of `spec.replicas` that `status.replicas` has yet to follow.
    changes: VecDeque<(Time, i32)>,
    status: i32,
    values: Vec<Option<f64>>,
    quantities: Vec<Option<i64>>,
    explain: Option<Time>,
    driven: Driven,
}

/// Scales a model with these settings, from this number of replicas on.
pub(super) fn drive(
    settings: &Settings,
    schedule: Schedule,
    replicas: i32,
    plant: &mut impl Plant,
) -> Driven {
    let mut clock = Clock {
        settings,
        hpa: Hpa::default(),
        scale_loop: ScaleLoop::new(Time::default()),
        replicas,
        changes: VecDeque::new(),
        status: replicas,
        values: Vec::new(),
        quantities: Vec::new(),
        explain: schedule.explain,
        driven: Driven::default(),
    };
    let polling = u64::try_from(settings.keda.polling_interval).unwrap_or(1).max(1);
    let polling = Time::from_seconds(polling);
    let (mut poll, mut sync) = (schedule.phase, schedule.phase);
    loop {
        let now = poll.min(sync);
        if now >= schedule.end {
            plant.advance(schedule.end);
            return clock.driven;
        }
        plant.advance(now);
        plant.values(now, &mut clock.values);
        if now == poll {
            clock.poll(now, plant);
            poll = poll.after(polling);
        }
        if now == sync {
            clock.sync(now, plant);
            sync = sync.after(SYNC_PERIOD);
        }
    }
}

impl Clock<'_> {
    fn poll(&mut self, now: Time, plant: &mut impl Plant) {
        let replicas = self.scale_loop.poll(&self.settings.keda, now, self.replicas, &self.values);
        self.scale(now, replicas, plant);
    }

    fn sync(&mut self, now: Time, plant: &mut impl Plant) {
        while let Some((_, replicas)) = self.changes.pop_front_if(|(at, _)| now.since(*at) >= STATUS_LAG) {
            self.status = replicas;
        }
        self.quantities.clear();
        self.quantities.extend(self.values.iter().map(|value| value.and_then(quantity)));
        let ready = plant.ready(now);
        let (spec, status, values) = (self.replicas, self.status, self.quantities.as_slice());
        let input = Sync { now, spec, status, ready, values };
        let decision = self.hpa.sync(&self.settings.hpa, input);
        if self.explain.is_some_and(|time| now <= time) {
            let proposals = proposals(&self.settings.hpa, input);
            self.driven.pass =
                Some(Pass { at: now, values: self.values.clone(), proposals, spec, status, decision });
        }
        self.scale(now, decision.replicas, plant);
    }

    fn scale(&mut self, now: Time, replicas: i32, plant: &mut impl Plant) {
        if replicas != self.replicas {
            self.replicas = replicas;
            self.changes.push_back((now, replicas));
            self.driven.changes += 1;
            plant.scale(now, replicas);
        }
    }
}
