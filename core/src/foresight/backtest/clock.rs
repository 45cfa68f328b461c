//! The HPA and KEDA's scale loop on one clock.

use crate::foresight::{
    autoscaler::{Autoscaler, AutoscalerSpec, sync_interval},
    hpa::Decision,
    settings::Settings,
    time::Time,
};

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
    /// Period of the HPA's syncs.
    pub(super) period: Time,
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

/// Scales a model with these settings, from this number of replicas on.
pub(super) fn drive(
    settings: &Settings,
    schedule: Schedule,
    replicas: i32,
    plant: &mut impl Plant,
) -> Driven {
    let spec = AutoscalerSpec { hpa: settings.hpa.clone(), keda: settings.keda.clone() };
    let polling = Time::from_seconds(u64::try_from(settings.keda.polling_interval).unwrap_or(1).max(1));
    let interval = sync_interval(schedule.period);
    let mut autoscaler = Autoscaler::new(spec, replicas, Time::default(), interval);
    let mut driven = Driven::default();
    let mut values = Vec::new();
    let mut held = replicas;
    let mut follow = |now: Time, autoscaler: &Autoscaler, plant: &mut _, changes: &mut u32| {
        if autoscaler.replicas() != held {
            held = autoscaler.replicas();
            *changes += 1;
            Plant::scale(plant, now, held);
        }
    };
    follow(Time::default(), &autoscaler, plant, &mut 0);
    let (mut poll, mut sync) = (schedule.phase, schedule.phase);
    loop {
        let now = poll.min(sync);
        if now >= schedule.end {
            plant.advance(schedule.end);
            return driven;
        }
        plant.advance(now);
        plant.values(now, &mut values);
        if now == poll {
            autoscaler.poll(now, &values);
            follow(now, &autoscaler, plant, &mut driven.changes);
            poll = poll.after(polling);
        }
        if now == sync {
            let ready = plant.ready(now);
            let spec = autoscaler.replicas();
            let explained = schedule.explain.filter(|time| now <= *time);
            let before = explained.map(|_| autoscaler.proposals(now, &values, ready));
            let decision = autoscaler.sync_with_ready(now, &values, ready);
            if let Some((status, proposals)) = before {
                let values = values.clone();
                driven.pass = Some(Pass { at: now, values, proposals, spec, status, decision });
            }
            follow(now, &autoscaler, plant, &mut driven.changes);
            sync = sync.after(interval);
        }
    }
}
