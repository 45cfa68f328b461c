//! The writes of the condition of one model, and the time for which it stays as it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::controllers::throttle::Throttle;
use kthena_keda_core::{
    api::kthena::AutoscalingReady,
    domain::VerdictReason,
    plan::{Verdict, is_load_reason},
};

/// Least time between two changes of a condition's message while its reason stays.
const MESSAGE_INTERVAL: Duration = Duration::from_mins(10);
/// Least time between two changes from idle to scaling or back.
const LOAD_REASON_INTERVAL: Duration = Duration::from_mins(1);

/// Time for which a first condition `Pending` is not written by itself: KEDA reports on a new ScaledObject within seconds.
const FIRST_PENDING_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct ConditionHistory {
    writes: Throttle,
    /// First reconcile in which the model had no condition and waited for KEDA.
    pending_since: Option<Instant>,
    /// Hash of the users' settings at the last write; after a restart, at the first reconcile.
    user_input: Option<u64>,
}

impl ConditionHistory {
    /// Time until the condition may be rewritten with this verdict. A write that is not in the history happened before `started`, the start
    /// of the process.
    pub(super) fn delay(
        &self,
        before: Option<&AutoscalingReady>,
        verdict: &Verdict,
        user_input: u64,
        started: Instant,
    ) -> Option<Duration> {
        let Some(before) = before else {
            // If it was written before, another client has removed it.
            return self.writes.remaining_delay();
        };
        let least_age = least_age(before, verdict)?;
        if self.user_input.is_some_and(|known| known != user_input) {
            return None;
        }
        let age = self.writes.last().unwrap_or(started).elapsed();
        least_age.checked_sub(age).filter(|delay| !delay.is_zero())
    }

    /// Time until a first condition with this verdict is worth a write of its own. One that was written, and that another client removed, is
    /// not the first.
    pub(super) fn first_delay(&mut self, verdict: &Verdict) -> Option<Duration> {
        if verdict.reason != VerdictReason::Pending || self.writes.last().is_some() {
            return None;
        }
        let age = self.pending_since.get_or_insert_with(Instant::now).elapsed();
        FIRST_PENDING_AFTER.checked_sub(age).filter(|delay| !delay.is_zero())
    }

    /// Records what users have written, unless it is known.
    pub(super) fn record_first_input(&mut self, user_input: impl FnOnce() -> u64) {
        self.user_input.get_or_insert_with(user_input);
    }

    pub(super) fn record_input(&mut self, user_input: u64) {
        self.user_input = Some(user_input);
    }

    pub(super) fn record_write(&mut self, user_input: u64) {
        self.writes.record();
        self.user_input = Some(user_input);
    }
}

/// Age that a condition must have before it may change to this verdict, unless users caused the change.
fn least_age(before: &AutoscalingReady, verdict: &Verdict) -> Option<Duration> {
    if before.status != verdict.status.as_str() {
        return None;
    }
    if before.reason != verdict.reason.as_str() {
        return (is_load_reason(&before.reason) && is_load_reason(verdict.reason.as_str()))
            .then_some(LOAD_REASON_INTERVAL);
    }
    // Other tenants' series and routes are the cause of some messages, so no kind of message is exempt.
    Some(MESSAGE_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use kthena_keda_core::domain::{
        Reason, Status,
        VerdictReason::{Idle, Paused, Pending, Problem},
    };
    use rstest::rstest;

    #[rstest]
    #[case::first_trouble(("True", "Scaling", "a"), (Status::False, Problem(Reason::HpaNotScaling), "b"), None)]
    #[case::over(("False", "HpaNotScaling", "a"), (Status::True, Idle, "b"), None)]
    #[case::busy_and_idle(("True", "Scaling", "a"), (Status::True, Idle, "b"), Some(LOAD_REASON_INTERVAL))]
    #[case::paused(("True", "Scaling", "a"), (Status::True, Paused, "b"), None)]
    #[case::text_of_others(("False", "HpaNotScaling", "a"), (Status::False, Problem(Reason::HpaNotScaling), "b"), Some(MESSAGE_INTERVAL))]
    #[case::warning_of_a_probe(("True", "Idle", "a; a router elsewhere serves requests"), (Status::True, Idle, "a"), Some(MESSAGE_INTERVAL))]
    #[case::text_of_the_operator(("False", "InvalidConfiguration", "a"), (Status::False, Problem(Reason::InvalidConfiguration), "b"), Some(MESSAGE_INTERVAL))]
    #[case::only_the_rest(("False", "InvalidConfiguration", "a; also reported: X: b"), (Status::False, Problem(Reason::InvalidConfiguration), "a; also reported: X: c"), Some(MESSAGE_INTERVAL))]
    fn throttles_changes_that_users_did_not_make(
        #[case] before: (&str, &str, &str),
        #[case] after: (Status, VerdictReason, &str),
        #[case] expected: Option<Duration>,
    ) {
        let before = AutoscalingReady {
            status: before.0.to_owned(),
            reason: before.1.to_owned(),
            message: before.2.to_owned().into(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let verdict = Verdict { status: after.0, reason: after.1, message: after.2.to_owned() };
        assert_eq!(least_age(&before, &verdict), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_keda_time_before_the_first_condition_says_that_it_waits() {
        let verdict = |reason| Verdict { status: Status::Unknown, reason, message: String::new() };
        let (mut a, mut b) = (ConditionHistory::default(), ConditionHistory::default());
        assert_eq!(a.first_delay(&verdict(Pending)), Some(FIRST_PENDING_AFTER));
        tokio::time::advance(FIRST_PENDING_AFTER / 2).await;
        assert_eq!(a.first_delay(&verdict(Pending)), Some(FIRST_PENDING_AFTER / 2));
        assert_eq!(a.first_delay(&verdict(Idle)), None);
        assert_eq!(b.first_delay(&verdict(Pending)), Some(FIRST_PENDING_AFTER));
        tokio::time::advance(FIRST_PENDING_AFTER / 2).await;
        assert_eq!(a.first_delay(&verdict(Pending)), None);
        let mut removed = ConditionHistory::default();
        removed.record_write(1);
        assert_eq!(removed.first_delay(&verdict(Pending)), None);
    }

    /// Other controllers' words are throttled, and those that follow from an annotation, a profile or a route are not.
    #[tokio::test(start_paused = true)]
    async fn answers_at_once_to_what_users_write() {
        let before = AutoscalingReady {
            status: "False".to_owned(),
            reason: "ModelNotSeen".to_owned(),
            message: "no ModelRoute carries \"lama\"".to_owned().into(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let (started, mut history) = (Instant::now(), ConditionHistory::default());
        history.record_write(1);
        let message = "no ModelRoute carries \"Llama\"".to_owned();
        let verdict = Verdict { status: Status::False, reason: Problem(Reason::ModelNotSeen), message };
        assert!(history.delay(Some(&before), &verdict, 1, started).is_some());
        assert_eq!(history.delay(Some(&before), &verdict, 2, started), None);
        history.record_write(2);
        assert!(history.delay(Some(&before), &verdict, 2, started).is_some());
        // After a restart, the first reconcile is what a change is compared with.
        let mut restarted = ConditionHistory::default();
        restarted.record_first_input(|| 2);
        restarted.record_first_input(|| 9);
        assert!(restarted.delay(Some(&before), &verdict, 2, started).is_some());
        assert_eq!(restarted.delay(Some(&before), &verdict, 3, started), None);
    }

    /// The wall clock may have stepped since the condition was written, by this process or an earlier one.
    #[rstest]
    fn ignores_the_wall_clock_time_in_a_condition(#[values(-3600, 0, 3600)] step: i64) {
        let before = AutoscalingReady {
            status: "True".to_owned(),
            reason: "Scaling".to_owned(),
            message: String::new().into(),
            last_transition_time: Time(Timestamp::from_second(Timestamp::now().as_second() + step).unwrap()),
        };
        let verdict = Verdict { status: Status::True, reason: Idle, message: String::new() };
        let delay = ConditionHistory::default().delay(Some(&before), &verdict, 0, Instant::now());
        assert!(
            delay.is_some_and(|delay| delay <= LOAD_REASON_INTERVAL && delay > LOAD_REASON_INTERVAL / 2),
            "{delay:?}"
        );
    }
}
