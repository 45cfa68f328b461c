//! Failures of a watch: how many in a row show that it will not list soon.

use kube::runtime::watcher;

use crate::{cache::SyncState, telemetry::metrics::Metrics};

/// Rejections in a row before a kind counts as forbidden, over at least a second: an API server that has just
/// started forbids everything before it knows the roles.
const FORBIDDEN_CONFIRM: u32 = 3;
/// Failures of the initial list in a row, over at least ten seconds, before nothing waits for it any longer.
const FAILING_CONFIRM: u32 = 6;

/// Failures of one watch in a row.
#[derive(Default)]
pub(super) struct FailuresInARow(u32);

impl FailuresInARow {
    /// Counts an event; returns the progress of the watch where failures show it.
    pub(super) fn count<K>(
        &mut self,
        event: &Result<watcher::Event<K>, watcher::Error>,
    ) -> Option<SyncState> {
        match event {
            // Every try to list begins with this event, before the request.
            Ok(watcher::Event::Init) => None,
            Ok(_) => {
                self.0 = 0;
                None
            }
            Err(error) => {
                self.0 = self.0.saturating_add(1);
                let (state, limit) = if is_forbidden(error) {
                    (SyncState::Forbidden, FORBIDDEN_CONFIRM)
                } else {
                    (SyncState::Failing, FAILING_CONFIRM)
                };
                (self.0 >= limit).then_some(state)
            }
        }
    }
}

/// Counts a watch that the API server forbids.
pub(super) fn count_forbidden<K>(event: &Result<watcher::Event<K>, watcher::Error>, metrics: &Metrics) {
    if event.as_ref().is_err_and(is_forbidden) {
        metrics.error("forbidden");
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::core::Status;

    type Event = Result<watcher::Event<Service>, watcher::Error>;

    fn failed(code: u16) -> Event {
        let status = Status { code, ..Status::failure("", "") };
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
    }

    fn state_after(events: &[Event]) -> Option<SyncState> {
        let mut failures = FailuresInARow::default();
        events.iter().map(|event| failures.count(event)).last().flatten()
    }

    #[test]
    fn a_kind_is_forbidden_after_three_rejections_in_a_row() {
        let init = || Ok(watcher::Event::Init);
        assert_eq!(state_after(&[init(), failed(403), init(), failed(403)]), None);
        let rejected = [init(), failed(403), init(), failed(403), init(), failed(403)];
        assert_eq!(state_after(&rejected), Some(SyncState::Forbidden));
        let recovered = [failed(403), failed(403), Ok(watcher::Event::InitDone), failed(403)];
        assert_eq!(state_after(&recovered), None);
    }

    #[test]
    fn nothing_waits_for_a_list_that_fails_again_and_again() {
        let failures: Vec<Event> = (0..FAILING_CONFIRM).map(|_| failed(500)).collect();
        assert_eq!(state_after(&failures), Some(SyncState::Failing));
        assert_eq!(state_after(&failures[1..]), None);
    }
}
