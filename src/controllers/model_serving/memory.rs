//! What a process remembers of a model: when its condition was last written, and what its objects were to look like.
//!
//! Nothing is lost with it: after a restart a condition waits as if it had just been written, so that a restart writes nothing.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::{
    api::kthena::{ModelServing, ReplicasWriter},
    observed::Fingerprint,
    plan::{Verdict, is_of_load, is_of_others, own_part},
};

/// How often the text of a condition may change while its reason stays.
const SAME_REASON: Duration = Duration::from_mins(10);
/// How often a model may turn from idle to busy and back.
const SAME_STATUS: Duration = Duration::from_mins(1);

/// What is remembered, by the model's identity.
#[derive(Debug)]
pub struct Memory {
    /// When this process began: what it does not remember was written before.
    began: Instant,
    models: Mutex<HashMap<String, Remembered>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { began: Instant::now(), models: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Remembered {
    told: Option<Instant>,
    /// By kind.
    wanted: HashMap<Cow<'static, str>, Fingerprint>,
    refusal: Option<String>,
    said: Option<Said>,
    autoscaled: bool,
    /// The version of the ModelServing that our last write made.
    written: Option<String>,
}

/// What was last said of a model, where no condition holds it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) is_good: bool,
    pub(super) reason: String,
}

impl Memory {
    /// How long a condition has to wait with this verdict, so that nothing is rewritten all the time.
    pub(super) fn hold(&self, identity: &str, before: Option<&Condition>, verdict: &Verdict) -> Option<Duration> {
        let pause = pause(before?, verdict)?;
        let told = self.all().get(identity).and_then(|remembered| remembered.told).unwrap_or(self.began);
        pause.checked_sub(told.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Remembers that a condition was written.
    pub(super) fn told(&self, identity: &str) {
        self.all().entry(identity.to_owned()).or_default().told = Some(Instant::now());
    }

    /// Remembers what an object was to look like; answers whether it was to look like that before, too.
    pub(super) fn wanted(&self, identity: &str, kind: Cow<'static, str>, fingerprint: Fingerprint) -> bool {
        self.all().entry(identity.to_owned()).or_default().wanted.insert(kind, fingerprint) == Some(fingerprint)
    }

    /// Remembers the version of a ModelServing that our own write made.
    pub(super) fn wrote(&self, written: &ModelServing) {
        let identity = written.uid().unwrap_or_default();
        self.all().entry(identity).or_default().written = written.resource_version();
    }

    /// Whether our own write is yet to be seen. It will be, and what was planned without it would only be refused.
    pub(super) fn is_behind(&self, seen: &ModelServing) -> bool {
        let number = |version: Option<String>| version.and_then(|version| version.parse::<u64>().ok());
        let identity = seen.uid().unwrap_or_default();
        let Some(written) = number(self.all().get(&identity).and_then(|remembered| remembered.written.clone())) else { return false };
        number(seen.resource_version()).is_some_and(|seen| seen < written)
    }

    /// Forgets which versions our writes made: a list tells what there is, whatever was there before.
    pub fn forget_versions(&self) {
        self.all().values_mut().for_each(|remembered| remembered.written = None);
    }

    /// What was last said of a model.
    pub(super) fn said(&self, identity: &str) -> Option<Said> {
        self.all().get(identity)?.said.clone()
    }

    /// Remembers what is said of a model.
    pub(super) fn say(&self, identity: &str, verdict: &Verdict) {
        let said = Said { is_good: verdict.is_good(), reason: verdict.reason.to_owned() };
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
            ReplicasWriter::Manager(manager) => all.get(identity).filter(|remembered| remembered.autoscaled).map(|_| manager.clone()),
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

    fn all(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the condition must have stood before it may change like this. What users change themselves shows at once.
fn pause(before: &Condition, verdict: &Verdict) -> Option<Duration> {
    let same_status = before.status == verdict.status.as_str();
    if !same_status {
        return None;
    }
    if before.reason != verdict.reason {
        return (is_of_load(&before.reason) && is_of_load(verdict.reason)).then_some(SAME_STATUS);
    }
    let only_others_changed = own_part(&before.message) == own_part(&verdict.message);
    (is_of_others(verdict.reason) || only_others_changed).then_some(SAME_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Status;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use rstest::rstest;

    #[rstest]
    #[case::first_trouble(("True", "Scaling", "a"), (Status::False, "HpaNotScaling", "b"), None)]
    #[case::over(("False", "HpaNotScaling", "a"), (Status::True, "Idle", "b"), None)]
    #[case::busy_and_idle(("True", "Scaling", "a"), (Status::True, "Idle", "b"), Some(SAME_STATUS))]
    #[case::paused(("True", "Scaling", "a"), (Status::True, "Paused", "b"), None)]
    #[case::text_of_others(("False", "HpaNotScaling", "a"), (Status::False, "HpaNotScaling", "b"), Some(SAME_REASON))]
    #[case::text_of_users(("False", "InvalidConfiguration", "a"), (Status::False, "InvalidConfiguration", "b"), None)]
    #[case::only_the_rest(("False", "InvalidConfiguration", "a; besides X: b"), (Status::False, "InvalidConfiguration", "a; besides X: c"), Some(SAME_REASON))]
    fn what_has_to_wait(
        #[case] before: (&str, &str, &str),
        #[case] after: (Status, &'static str, &str),
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
}
