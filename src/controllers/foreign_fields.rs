//! Fields of a generated object's spec that are not as desired after a write: another client, a webhook or a default of the CRD sets them.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::server_side_apply::Applied;
use kthena_keda_core::{
    domain::{self, field_path},
    observed::{Fingerprint, LiveObject},
};

/// Removals of a field after which it is left alone.
const REMOVALS: u8 = 2;
/// Time after which a removed field that another client adds again counts as new.
const FORGET_AFTER: Duration = Duration::from_hours(1);
/// Fields of one object that are remembered.
const REMEMBERED: usize = 16;

/// Foreign fields of one object. A restart forgets them: such a field is then removed twice more.
#[derive(Debug, Default)]
pub struct ForeignFields {
    removals: Vec<Removal>,
    /// Fingerprints of the desired object and of the live one that was left alone.
    accepted: Option<(Fingerprint, Fingerprint)>,
    /// JSON pointers to the fields that differ in the live object.
    left_alone: Vec<String>,
}

#[derive(Debug)]
struct Removal {
    field: String,
    times: u8,
    last: Instant,
}

impl ForeignFields {
    /// `true` if this live object is left as it is, although it differs from the desired one.
    pub fn accepts(&self, desired: Fingerprint, live: Fingerprint) -> bool {
        self.accepted == Some((desired, live))
    }

    /// JSON pointers to fields that were removed often enough.
    pub fn persistent(&self) -> Vec<String> {
        let is_persistent = |removal: &&Removal| removal.times >= REMOVALS && removal.is_recent();
        self.removals.iter().filter(is_persistent).map(|removal| removal.field.clone()).collect()
    }

    /// JSON pointers to the fields in which this live object differs and which are left alone.
    pub fn left_alone(&self, live: Fingerprint) -> &[String] {
        match self.accepted {
            Some((_, accepted)) if accepted == live => &self.left_alone,
            _ => &[],
        }
    }

    /// Records a write and what the API server made of it. Returns the removed fields that were not removed before.
    ///
    /// Fields that differ in the response to a write are set by admission or a default, or were removed often enough.
    pub fn record<L: LiveObject>(&mut self, desired: Fingerprint, written: &Applied<L>) -> Vec<String> {
        let (rest, live) = (&written.rest, written.live.owned_object().fingerprint);
        self.left_alone = rest.added.iter().chain(&rest.changed).take(REMEMBERED).cloned().collect();
        self.accepted = (live != desired).then_some((desired, live));
        let mut new = Vec::new();
        for field in &written.removed {
            if self.count(field) == 1 {
                new.push(field.clone());
            }
        }
        new
    }

    /// Counts a removal; returns the number of removals in a row.
    fn count(&mut self, field: &str) -> u8 {
        self.removals.retain(Removal::is_recent);
        if let Some(found) = self.removals.iter_mut().find(|removal| removal.field == field) {
            found.times = found.times.saturating_add(1);
            found.last = Instant::now();
            return found.times;
        }
        if self.removals.len() >= REMEMBERED {
            self.removals.remove(0);
        }
        self.removals.push(Removal { field: field.to_owned(), times: 1, last: Instant::now() });
        1
    }
}

impl Removal {
    fn is_recent(&self) -> bool {
        self.last.elapsed() < FORGET_AFTER
    }
}

/// The fields as a sentence lists them, such as `spec.fallback, spec.idleReplicaCount`.
pub fn listed(fields: &[String]) -> String {
    let paths: Vec<String> = fields.iter().map(|field| field_path(field)).collect();
    domain::listed(&paths, REMEMBERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kthena_keda_core::observed::{LiveScaledObject, SpecDifference};
    use serde_json::json;

    const FIELD: &str = "/spec/idleReplicaCount";

    /// An outcome of which `removed` was removed and `rest` remained.
    fn outcome(removed: &[&str], rest: &[&str]) -> Applied<LiveScaledObject> {
        let owned = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        let live = json!({"metadata": {"name": "chat"}, "spec": {"rest": rest}});
        Applied {
            live: serde_json::from_value(live).unwrap(),
            removed: owned(removed),
            rest: SpecDifference { added: owned(rest), changed: Vec::new() },
        }
    }

    fn fingerprint(of: &Applied<LiveScaledObject>) -> Fingerprint {
        of.live.owned_object().fingerprint
    }

    #[tokio::test(start_paused = true)]
    async fn gives_a_field_up_after_two_removals_within_an_hour() {
        let (mut fields, written) = (ForeignFields::default(), outcome(&[FIELD], &[]));
        let desired = fingerprint(&written);
        assert_eq!(fields.record(desired, &written), [FIELD]);
        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(fields.record(desired, &written), [FIELD]);
        assert_eq!(fields.persistent(), [""; 0]);
        assert_eq!(fields.record(desired, &written), [""; 0]);
        assert_eq!(fields.persistent(), [FIELD]);
        assert!(!fields.accepts(desired, desired));
    }

    #[tokio::test]
    async fn accepts_exactly_the_object_that_a_write_returned() {
        let (mut fields, written) = (ForeignFields::default(), outcome(&[], &[FIELD]));
        let (desired, live) = (fingerprint(&outcome(&[], &[])), fingerprint(&written));
        fields.record(desired, &written);
        assert!(fields.accepts(desired, live) && !fields.accepts(live, live));
        assert_eq!((fields.left_alone(live), fields.left_alone(desired)), (&[FIELD.to_owned()][..], &[][..]));
    }

    #[tokio::test]
    async fn remembers_a_bounded_number_of_fields() {
        let mut fields = ForeignFields::default();
        for i in 0..100 {
            let written = outcome(&[&format!("/spec/{i}")], &[]);
            fields.record(fingerprint(&written), &written);
        }
        assert_eq!(fields.removals.len(), REMEMBERED);
    }
}
