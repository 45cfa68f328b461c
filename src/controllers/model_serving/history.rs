//! In-memory history of each model: the writes of its condition, its last report and its last applied objects.
//!
//! A restart empties it and still writes nothing: a condition is then throttled as if it had just been written.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::{ResourceExt as _, api::PartialObjectMeta};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::condition_history::ConditionHistory;
use crate::{
    cluster::server_side_apply::Applied,
    controllers::{foreign_fields::ForeignFields, throttle::Throttle},
};
use kthena_keda_core::{
    api::{
        kthena::{AutoscalingReady, ModelServing, ReplicasWriter},
        metadata::OPERATOR,
    },
    domain::version,
    observed::{Fingerprint, LiveObject},
    plan::Verdict,
};

/// Time after the start of the process in which mistyped annotations are not reported: they were reported when
/// they were set.
const MISTYPED_BEFORE: Duration = Duration::from_secs(30);

/// History of every model, by uid.
#[derive(Debug)]
pub struct History {
    /// Start of this process: a write that is not in the history happened before.
    started: Instant,
    /// In boxes, since a hash table has up to twice the entries that it needs.
    models: Mutex<HashMap<String, Box<ModelHistory>>>,
}

impl Default for History {
    fn default() -> Self {
        Self { started: Instant::now(), models: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct ModelHistory {
    condition: ConditionHistory,
    pause_writes: Throttle,
    /// First reconcile in a row in which KEDA reported a pause without an annotation.
    ended_pause_since: Option<Instant>,
    /// One entry for each kind.
    applied: Vec<LastApplied>,
    reported: Option<ReportedCondition>,
    /// `spec.replicas` as an autoscaler last set it.
    autoscaled: Option<i32>,
    /// This process has set the numbers of its roles.
    has_set_roles: bool,
    /// Resource version of the ModelServing that our last write made.
    written: Option<u64>,
    /// Annotation that has no effect, as last seen.
    mistyped: Option<Box<str>>,
    /// Error with which the last write of the stand-in was rejected.
    stand_in_rejection: Option<Box<str>>,
}

/// The desired object at the last apply, and its repairs since.
#[derive(Debug)]
struct LastApplied {
    kind: Cow<'static, str>,
    fingerprint: Fingerprint,
    repairs: Throttle,
    /// `None` as long as every write had its effect.
    foreign: Option<Box<ForeignFields>>,
}

/// The last report on a model.
#[derive(Clone, Debug)]
pub(super) struct ReportedCondition {
    /// The model was scaled, or paused on purpose.
    pub(super) is_good: bool,
    pub(super) reason: Cow<'static, str>,
}

impl History {
    /// Time until a condition may be rewritten with this verdict.
    pub(super) fn condition_delay(
        &self,
        uid: &str,
        before: Option<&AutoscalingReady>,
        verdict: &Verdict,
        user_input: u64,
    ) -> Option<Duration> {
        let (models, unknown) = (self.models(), ConditionHistory::default());
        let condition = models.get(uid).map_or(&unknown, |model| &model.condition);
        condition.delay(before, verdict, user_input, self.started)
    }

    /// Time until a first condition with this verdict is worth a write of its own.
    pub(super) fn first_condition_delay(&self, uid: &str, verdict: &Verdict) -> Option<Duration> {
        self.models().entry(uid.to_owned()).or_default().condition.first_delay(verdict)
    }

    /// Records what users have written, at the first reconcile after a restart.
    pub(super) fn record_first_input(&self, uid: &str, user_input: impl FnOnce() -> u64) {
        self.models().entry(uid.to_owned()).or_default().condition.record_first_input(user_input);
    }

    /// Records the input that the condition in place is about.
    pub(super) fn record_input(&self, uid: &str, user_input: u64) {
        self.models().entry(uid.to_owned()).or_default().condition.record_input(user_input);
    }

    /// Records that a condition was written.
    pub(super) fn record_condition_write(&self, uid: &str, user_input: u64) {
        self.models().entry(uid.to_owned()).or_default().condition.record_write(user_input);
    }

    /// Time until the pause of a kept ScaledObject may be changed again.
    pub(super) fn pause_delay(&self, uid: &str) -> Option<Duration> {
        self.models().get(uid)?.pause_writes.remaining_delay()
    }

    /// Records a change of the pause of a kept ScaledObject.
    pub(super) fn record_pause(&self, uid: &str) {
        self.models().entry(uid.to_owned()).or_default().pause_writes.record();
    }

    /// Records that KEDA reports a pause that has ended, or that it does not. Returns for how long it has done so.
    pub(super) fn record_ended_pause(&self, uid: &str, is_reported: bool) -> Option<Duration> {
        let mut models = self.models();
        if !is_reported {
            if let Some(model) = models.get_mut(uid) {
                model.ended_pause_since = None;
            }
            return None;
        }
        let model = models.entry(uid.to_owned()).or_default();
        Some(model.ended_pause_since.get_or_insert_with(Instant::now).elapsed())
    }

    /// Records the desired object of an apply. Returns `true` if the last apply had the same one, so that a write restored it.
    pub(super) fn record_applied(
        &self,
        uid: &str,
        kind: Cow<'static, str>,
        fingerprint: Fingerprint,
    ) -> bool {
        let mut models = self.models();
        let applied = &mut models.entry(uid.to_owned()).or_default().applied;
        if applied.iter().any(|last| last.kind == kind && last.fingerprint == fingerprint) {
            return true;
        }
        if let Some(last) = applied.iter_mut().find(|last| last.kind == kind) {
            (last.fingerprint, last.repairs) = (fingerprint, Throttle::default());
            return false;
        }
        // Most models have a single generated object.
        applied.reserve_exact(1);
        applied.push(LastApplied { kind, fingerprint, repairs: Throttle::default(), foreign: None });
        false
    }

    /// `true` if the live object is left as it is, although it differs from the desired one.
    pub(super) fn accepts(&self, uid: &str, kind: &str, desired: Fingerprint, live: Fingerprint) -> bool {
        self.of_foreign(uid, kind, |foreign| foreign.accepts(desired, live)).unwrap_or_default()
    }

    /// Fields of the object that were removed often enough.
    pub(super) fn persistent_fields(&self, uid: &str, kind: &str) -> Vec<String> {
        self.of_foreign(uid, kind, ForeignFields::persistent).unwrap_or_default()
    }

    /// Fields in which this live object differs and which are left alone.
    pub(super) fn left_alone(&self, uid: &str, kind: &str, live: Fingerprint) -> Vec<String> {
        self.of_foreign(uid, kind, |foreign| foreign.left_alone(live).to_vec()).unwrap_or_default()
    }

    fn of_foreign<T>(&self, uid: &str, kind: &str, read: impl FnOnce(&ForeignFields) -> T) -> Option<T> {
        let models = self.models();
        let last = models.get(uid)?.applied.iter().find(|last| last.kind == kind)?;
        last.foreign.as_deref().map(read)
    }

    /// Records the outcome of a write. Returns the fields that it removed for the first time.
    pub(super) fn record_outcome<L: LiveObject>(
        &self,
        uid: &str,
        kind: &str,
        desired: Fingerprint,
        written: &Applied<L>,
    ) -> Vec<String> {
        let mut models = self.models();
        let applied = models.get_mut(uid).map(|model| &mut model.applied);
        let Some(last) = applied.and_then(|all| all.iter_mut().find(|last| last.kind == kind)) else {
            return Vec::new();
        };
        if last.foreign.is_none() && written.removed.is_empty() && written.rest.is_empty() {
            return Vec::new();
        }
        last.foreign.get_or_insert_default().record(desired, written)
    }

    /// Records that the operator itself removed an object: the next apply creates it, and restores nothing.
    pub(super) fn record_removal(&self, uid: &str, kind: &str) {
        if let Some(model) = self.models().get_mut(uid) {
            model.applied.retain(|last| last.kind != kind);
        }
    }

    /// Records that an object was restored to its desired state. Returns the number of such writes in a row.
    pub(super) fn record_repair(&self, uid: &str, kind: &str) -> u32 {
        let mut models = self.models();
        let applied = models.get_mut(uid).map(|model| &mut model.applied);
        let Some(last) = applied.and_then(|all| all.iter_mut().find(|last| last.kind == kind)) else {
            return 0;
        };
        last.repairs.record()
    }

    /// Time until an object may be restored to this desired state again.
    pub(super) fn repair_delay(&self, uid: &str, kind: &str, fingerprint: Fingerprint) -> Option<Duration> {
        let models = self.models();
        let last = models.get(uid)?.applied.iter().find(|last| last.kind == kind)?;
        last.repairs.remaining_delay().filter(|_| last.fingerprint == fingerprint)
    }

    /// Records the version of a ModelServing that our own write made.
    pub(super) fn record_write(&self, written: &PartialObjectMeta<ModelServing>) {
        let uid = written.uid().unwrap_or_default();
        self.models().entry(uid).or_default().written = Some(version(written));
    }

    /// `true` if a ModelServing is older than our own last write. The watch brings the newer version; a plan for the older one would only
    /// lead to a conflict.
    pub(super) fn is_stale(&self, seen: &ModelServing) -> bool {
        let written = self.models().get(&seen.uid().unwrap_or_default()).and_then(|model| model.written);
        written.is_some_and(|written| version(seen) < written)
    }

    /// The last report on a model.
    pub(super) fn reported(&self, uid: &str) -> Option<ReportedCondition> {
        self.models().get(uid)?.reported.clone()
    }

    /// Records a report on a model.
    pub(super) fn record_report(&self, uid: &str, verdict: &Verdict) {
        let reported =
            ReportedCondition { is_good: verdict.is_good(), reason: verdict.reason.as_str().into() };
        self.models().entry(uid.to_owned()).or_default().reported = Some(reported);
    }

    /// Records who wrote `spec.replicas` last. Returns a field manager that did so although an autoscaler had before; a model that
    /// was not scaled yet has none, since every manifest sets a first number, and neither has one whose number is still that of the
    /// autoscaler.
    pub(super) fn record_replicas_writer(&self, model_serving: &ModelServing) -> Option<String> {
        let (mut models, uid) = (self.models(), model_serving.uid().unwrap_or_default());
        match &model_serving.replicas_set_by {
            ReplicasWriter::Unknown => None,
            ReplicasWriter::Scale => {
                models.entry(uid).or_default().autoscaled = Some(model_serving.replicas());
                None
            }
            ReplicasWriter::Manager(manager) => {
                let autoscaled = models.get(&uid)?.autoscaled?;
                (autoscaled != model_serving.replicas()).then(|| manager.clone())
            }
        }
    }

    /// Records that the numbers of the roles were written.
    pub(super) fn record_roles(&self, uid: &str) {
        self.models().entry(uid.to_owned()).or_default().has_set_roles = true;
    }

    /// A field manager that set the roles after this process had.
    pub(super) fn roles_writer(&self, model_serving: &ModelServing) -> Option<String> {
        let manager = model_serving.roles_set_by.as_deref().filter(|manager| *manager != OPERATOR)?;
        let models = self.models();
        let has_set_roles = models.get(&model_serving.uid().unwrap_or_default())?.has_set_roles;
        has_set_roles.then(|| manager.to_owned())
    }

    /// Records an annotation that has no effect; `true` if it is new.
    pub(super) fn record_mistyped(&self, uid: &str, key: Option<&str>) -> bool {
        let mut models = self.models();
        let Some(key) = key else {
            if let Some(model) = models.get_mut(uid) {
                model.mistyped = None;
            }
            return false;
        };
        let before = models.entry(uid.to_owned()).or_default().mistyped.replace(key.into());
        before.as_deref() != Some(key) && self.started.elapsed() > MISTYPED_BEFORE
    }

    /// Error with which the last write of the stand-in was rejected.
    pub(super) fn stand_in_rejection(&self, uid: &str) -> Option<String> {
        self.models().get(uid)?.stand_in_rejection.as_deref().map(str::to_owned)
    }

    /// Records the outcome of the last write of the stand-in.
    pub(super) fn record_stand_in_rejection(&self, uid: &str, rejection: Option<String>) {
        let mut models = self.models();
        if rejection.is_some() || models.contains_key(uid) {
            models.entry(uid.to_owned()).or_default().stand_in_rejection = rejection.map(Into::into);
        }
    }

    /// Drops a model that is gone, or no longer opted in.
    pub(super) fn forget(&self, uid: &str) {
        self.models().remove(uid);
    }

    /// Drops every model that a new list lacks, and the written versions of the others: the list is newer.
    pub(super) fn retain_listed(&self, listed: &HashSet<String>) {
        let mut models = self.models();
        models.retain(|uid, _| listed.contains(uid));
        models.values_mut().for_each(|model| model.written = None);
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, Box<ModelHistory>>> {
        self.models.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::delays::KEDA_RESUME;

    #[tokio::test(start_paused = true)]
    async fn reports_a_mistyped_annotation_once_for_each_change() {
        let history = History::default();
        assert!(!history.record_mistyped("old", Some("a")), "set before the start");
        tokio::time::advance(MISTYPED_BEFORE * 2).await;
        assert!(!history.record_mistyped("old", Some("a")));
        assert!(history.record_mistyped("new", Some("a")));
        assert!(!history.record_mistyped("new", Some("a")));
        assert!(history.record_mistyped("new", Some("b")));
        assert!(!history.record_mistyped("new", None));
        assert!(history.record_mistyped("new", Some("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn measures_how_long_keda_reports_a_pause_that_has_ended() {
        let history = History::default();
        assert_eq!(history.record_ended_pause("a", false), None);
        assert_eq!(history.record_ended_pause("a", true), Some(Duration::ZERO));
        tokio::time::advance(KEDA_RESUME).await;
        assert_eq!(history.record_ended_pause("a", true), Some(KEDA_RESUME));
        assert_eq!(history.record_ended_pause("b", true), Some(Duration::ZERO));
        assert_eq!(history.record_ended_pause("a", false), None);
        assert_eq!(history.record_ended_pause("a", true), Some(Duration::ZERO));
    }

    fn model_serving(replicas: i32, manager: &str, subresource: Option<&str>) -> ModelServing {
        let fields = serde_json::json!({"f:spec": {"f:replicas": {}}});
        let writer = serde_json::json!({"manager": manager, "subresource": subresource, "fieldsV1": fields});
        let metadata = serde_json::json!({"name": "chat", "uid": "a", "managedFields": [writer]});
        let object = serde_json::json!({"metadata": metadata, "spec": {"replicas": replicas}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_second_writer_changes_the_number_of_an_autoscaler() {
        let history = History::default();
        assert_eq!(history.record_replicas_writer(&model_serving(1, "kubectl", None)), None);
        assert_eq!(history.record_replicas_writer(&model_serving(3, "hpa", Some("scale"))), None);
        assert_eq!(history.record_replicas_writer(&model_serving(3, "kthena", None)), None);
        let reset = history.record_replicas_writer(&model_serving(1, "kthena", None));
        assert_eq!(reset.as_deref(), Some("kthena"));
    }
}
