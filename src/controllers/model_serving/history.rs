//! What a process remembers of a model: when its condition was last written, and what its objects were to look like.
//!
//! Nothing is lost with it: after a restart a condition waits as if it had just been written, so that a restart writes nothing.

use parking_lot::{Mutex, MutexGuard};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{ResourceExt as _, api::PartialObjectMeta};
use tokio::time::Instant;

use kthena_keda_core::{
    api::kthena::{ModelServing, ReplicasWriter},
    domain::version,
    observed::Fingerprint,
    plan::{Verdict, is_load_reason, stable_part},
};

/// How often the text of a condition may change while its reason stays.
const SAME_REASON: Duration = Duration::from_mins(10);
/// How often a model may turn from idle to busy and back.
const SAME_STATUS: Duration = Duration::from_mins(1);

/// How long to wait before the third write of the same within [`CALM`]; twice as long before each further one.
const FIRST_REST: Duration = Duration::from_millis(250);
/// The longest such wait.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// After how long the next write of the same is the first again.
const CALM: Duration = Duration::from_mins(2);

/// What is remembered, by the model's identity.
#[derive(Debug)]
pub struct History {
    /// When this process began: what it does not remember was written before.
    began: Instant,
    models: Mutex<HashMap<String, ModelHistory>>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), models: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct ModelHistory {
    told: Throttle,
    /// One of each kind.
    wanted: Vec<LastApplied>,
    refusal: Option<String>,
    said: Option<ReportedCondition>,
    autoscaled: bool,
    /// The version of the ModelServing that our last write made.
    written: Option<u64>,
}

/// What an object was to look like when it was last written, and how it has been brought back to that since.
#[derive(Debug)]
struct LastApplied {
    kind: Cow<'static, str>,
    fingerprint: Fingerprint,
    repairs: Throttle,
}

/// How often in a row the same was written, so that somebody who undoes it each time is not fought as fast as both can write.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    times: u32,
}

impl Throttle {
    fn step(&mut self) {
        let goes_on = self.last.is_some_and(|last| last.elapsed() < CALM);
        self.times = if goes_on { self.times.saturating_add(1) } else { 1 };
        self.last = Some(Instant::now());
    }

    /// How long the next one has to wait, if at all.
    fn rest(&self) -> Option<Duration> {
        let doublings = self.times.checked_sub(2)?.min(20);
        let rest = FIRST_REST.saturating_mul(1 << doublings).min(LONGEST_REST);
        rest.checked_sub(self.last?.elapsed()).filter(|rest| !rest.is_zero())
    }
}

/// What was last said of a model, where no condition holds it.
#[derive(Clone, Debug)]
pub(super) struct ReportedCondition {
    pub(super) is_good: bool,
    pub(super) reason: String,
}

impl History {
    /// How long a condition has to wait with this verdict, so that nothing is rewritten all the time.
    pub(super) fn hold(
        &self,
        identity: &str,
        before: Option<&Condition>,
        verdict: &Verdict,
    ) -> Option<Duration> {
        let Some(before) = before else {
            // Somebody dropped it, if it was written before.
            return self.all().get(identity)?.told.rest();
        };
        let pause = pause(before, verdict)?;
        let told = self.all().get(identity).and_then(|remembered| remembered.told.last).unwrap_or(self.began);
        pause.checked_sub(told.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Remembers that a condition was written.
    pub(super) fn told(&self, identity: &str) {
        self.all().entry(identity.to_owned()).or_default().told.step();
    }

    /// Remembers what an object was to look like; answers whether it was to look like that before, too.
    pub(super) fn wanted(&self, identity: &str, kind: Cow<'static, str>, fingerprint: Fingerprint) -> bool {
        let mut all = self.all();
        let wanted = &mut all.entry(identity.to_owned()).or_default().wanted;
        let as_before = wanted.iter().any(|wanted| wanted.kind == kind && wanted.fingerprint == fingerprint);
        if !as_before {
            wanted.retain(|wanted| wanted.kind != kind);
            // Most models have one of them only.
            wanted.reserve_exact(1);
            wanted.push(LastApplied { kind, fingerprint, repairs: Throttle::default() });
        }
        as_before
    }

    /// Remembers that an object was brought back to what it was to look like.
    pub(super) fn repaired(&self, identity: &str, kind: &str) {
        if let Some(remembered) = self.all().get_mut(identity) {
            remembered
                .wanted
                .iter_mut()
                .filter(|wanted| wanted.kind == kind)
                .for_each(|wanted| wanted.repairs.step());
        }
    }

    /// How long bringing an object back to this has to wait, if at all.
    pub(super) fn rest(&self, identity: &str, kind: &str, fingerprint: Fingerprint) -> Option<Duration> {
        let all = self.all();
        let wanted = all.get(identity)?.wanted.iter().find(|wanted| wanted.kind == kind)?;
        wanted.repairs.rest().filter(|_| wanted.fingerprint == fingerprint)
    }

    /// Remembers the version of a ModelServing that our own write made.
    pub(super) fn wrote(&self, written: &PartialObjectMeta<ModelServing>) {
        let identity = written.uid().unwrap_or_default();
        self.all().entry(identity).or_default().written = Some(version(written));
    }

    /// Whether our own write is yet to be seen. It will be, and what was planned without it would only be refused.
    pub(super) fn is_stale(&self, seen: &ModelServing) -> bool {
        let written =
            self.all().get(&seen.uid().unwrap_or_default()).and_then(|remembered| remembered.written);
        written.is_some_and(|written| version(seen) < written)
    }

    /// What was last said of a model.
    pub(super) fn said(&self, identity: &str) -> Option<ReportedCondition> {
        self.all().get(identity)?.said.clone()
    }

    /// Remembers what is said of a model.
    pub(super) fn say(&self, identity: &str, verdict: &Verdict) {
        let said =
            ReportedCondition { is_good: verdict.is_good(), reason: verdict.reason.as_str().to_owned() };
        self.all().entry(identity.to_owned()).or_default().said = Some(said);
    }

    /// Who sets the number of ServingGroups now, although autoscalers did before. One that has not been scaled yet is no matter of
    /// dispute, and every manifest sets a number at first.
    pub(super) fn second_writer(&self, identity: &str, writer: &ReplicasWriter) -> Option<String> {
        let mut all = self.all();
        match writer {
            ReplicasWriter::Unknown => None,
            ReplicasWriter::Scale => {
                all.entry(identity.to_owned()).or_default().autoscaled = true;
                None
            }
            ReplicasWriter::Manager(manager) => {
                all.get(identity).filter(|remembered| remembered.autoscaled).map(|_| manager.clone())
            }
        }
    }

    /// Remembers why the API server did not take what was wanted.
    pub(super) fn refused(&self, identity: &str, refusal: String) {
        self.all().entry(identity.to_owned()).or_default().refusal = Some(refusal);
    }

    /// Remembers that nothing is refused: everything that is wanted stands, or nothing is wanted.
    pub(super) fn accepted(&self, identity: &str) {
        if let Some(remembered) = self.all().get_mut(identity) {
            remembered.refusal = None;
        }
    }

    /// Why the API server did not take what was wanted the last time.
    pub(super) fn refusal(&self, identity: &str) -> Option<String> {
        self.all().get(identity)?.refusal.clone()
    }

    /// Forgets a model that is gone, or not scaled any more.
    pub(super) fn forget(&self, identity: &str) {
        self.all().remove(identity);
    }

    /// Forgets all models that are not among these; of those that are, which versions our writes made: a list tells what there is, whatever
    /// was there before.
    pub(super) fn listed(&self, there: &HashSet<String>) {
        let mut models = self.all();
        models.retain(|identity, _| there.contains(identity));
        models.values_mut().for_each(|remembered| remembered.written = None);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, ModelHistory>> {
        self.models.lock()
    }
}

/// How long the condition must have stood before it may change like this. What users change themselves shows at once.
fn pause(before: &Condition, verdict: &Verdict) -> Option<Duration> {
    let same_status = before.status == verdict.status.as_str();
    if !same_status {
        return None;
    }
    if before.reason != verdict.reason.as_str() {
        return (is_load_reason(&before.reason) && is_load_reason(verdict.reason.as_str()))
            .then_some(SAME_STATUS);
    }
    let only_others_changed = stable_part(&before.message) == stable_part(&verdict.message);
    (verdict.reason.is_external() || only_others_changed).then_some(SAME_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use kthena_keda_core::domain::{
        Reason, Status,
        VerdictReason::{self, Idle, Paused, Problem},
    };
    use rstest::rstest;

    #[rstest]
    #[case::first_trouble(("True", "Scaling", "a"), (Status::False, Problem(Reason::HpaNotScaling), "b"), None)]
    #[case::over(("False", "HpaNotScaling", "a"), (Status::True, Idle, "b"), None)]
    #[case::busy_and_idle(("True", "Scaling", "a"), (Status::True, Idle, "b"), Some(SAME_STATUS))]
    #[case::paused(("True", "Scaling", "a"), (Status::True, Paused, "b"), None)]
    #[case::text_of_others(("False", "HpaNotScaling", "a"), (Status::False, Problem(Reason::HpaNotScaling), "b"), Some(SAME_REASON))]
    #[case::text_of_users(("False", "InvalidConfiguration", "a"), (Status::False, Problem(Reason::InvalidConfiguration), "b"), None)]
    #[case::only_the_rest(("False", "InvalidConfiguration", "a; also reported: X: b"), (Status::False, Problem(Reason::InvalidConfiguration), "a; also reported: X: c"), Some(SAME_REASON))]
    fn what_has_to_wait(
        #[case] before: (&str, &str, &str),
        #[case] after: (Status, VerdictReason, &str),
        #[case] expected: Option<Duration>,
    ) {
        let before = Condition {
            status: before.0.to_owned(),
            reason: before.1.to_owned(),
            message: before.2.to_owned(),
            type_: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        let verdict = Verdict { status: after.0, reason: after.1, message: after.2.to_owned() };
        assert_eq!(pause(&before, &verdict), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn who_undoes_the_same_each_time_is_answered_ever_more_slowly() {
        let mut pace = Throttle::default();
        let mut rests = Vec::new();
        for _ in 0..12 {
            let rest = pace.rest().unwrap_or_default();
            tokio::time::advance(rest).await;
            rests.push(rest.as_millis());
            pace.step();
        }
        assert_eq!(rests, [0, 0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        tokio::time::advance(CALM).await;
        pace.step();
        assert_eq!(pace.rest(), None);
    }

    /// The wall clock may have stepped since the condition was written, by whatever process.
    #[rstest]
    fn the_time_in_a_condition_decides_nothing(#[values(-3600, 0, 3600)] step: i64) {
        let before = Condition {
            status: "True".to_owned(),
            reason: "Scaling".to_owned(),
            message: String::new(),
            type_: String::new(),
            last_transition_time: Time(Timestamp::from_second(Timestamp::now().as_second() + step).unwrap()),
            observed_generation: None,
        };
        let verdict = Verdict { status: Status::True, reason: Idle, message: String::new() };
        let held = History::default().hold("a", Some(&before), &verdict);
        assert!(held.is_some_and(|held| held <= SAME_STATUS && held > SAME_STATUS / 2), "{held:?}");
    }
}
