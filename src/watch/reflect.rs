//! Keeps digests of an optional kind while the cluster serves it.
//!
//! In: a kind and its gate. Out: a digest of each object, and a call for each digest that changed. Failures
//! of one kind do not slow down any other.

use std::{collections::BTreeSet, fmt::Debug, ops::ControlFlow, pin::pin, time::Duration};

use futures::{
    StreamExt as _,
    future::{self, join_all},
};
use kube::{Api, Resource, api::ListParams, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::gated::Gate;
use crate::{
    cache::{Change, Digest, DigestStore, Scope, ScopedStore, SyncState},
    runtime::{
        delays::DELETION_CONFIRM,
        resilient_watch::{log_and_skip_errors, resilient_watch, watch_config},
    },
    telemetry::metrics::Metrics,
};

/// Rejections in a row before a kind counts as forbidden, over at least a second: an API server that has just
/// started forbids everything before it knows the roles.
const FORBIDDEN_CONFIRM: u32 = 3;
/// Failures of the initial list in a row, over at least ten seconds, before nothing waits for it any longer.
const FAILING_CONFIRM: u32 = 6;

/// Time after a check in which deletions belong to the burst that was checked.
const BURST: Duration = Duration::from_secs(1);

/// Fate of the digests when the API of the kind disappears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// They are forgotten.
    Forget,
    /// They are kept, as a kind that cannot be read.
    Keep,
}

/// Reflects the kind into `digests` while `gate` is open, until the process ends, and calls `changed` for
/// each change. `api` gives the API of each scope; a store without scopes is left alone.
pub async fn reflect<K, D, S>(
    api: impl Fn(&Scope) -> Api<K>,
    mut gate: Gate<S>,
    digests: &DigestStore<D>,
    withdrawal: Withdrawal,
    metrics: &Metrics,
    changed: impl Fn(Change),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    if digests.is_disabled() {
        return future::pending().await;
    }
    while gate.opened().await {
        let mut closing = gate.clone();
        let scopes = digests.scoped();
        tokio::select! {
            _ = join_all(scopes.map(|(scope, store)| reflect_scope(api(scope), store, withdrawal, metrics, &changed))) => {}
            () = closing.closed() => {}
        }
        tracing::info!(kind = %K::kind(&()), "the cluster no longer serves the kind; stopped the watch");
        digests.scoped().for_each(|(_, store)| match withdrawal {
            Withdrawal::Forget => store.clear(),
            Withdrawal::Keep => store.withdraw(),
        });
        changed(Change::Resync);
    }
}

async fn reflect_scope<K, D>(
    api: Api<K>,
    store: &ScopedStore<D>,
    withdrawal: Withdrawal,
    metrics: &Metrics,
    changed: &impl Fn(Change),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    while reflect_until_withdrawn(&api, store, withdrawal, metrics, changed).await == ControlFlow::Break(()) {
        tracing::warn!(kind = %K::kind(&()), "the API of the kind was removed together with its objects");
        store.withdraw();
        changed(Change::Resync);
    }
}

/// Ends with [`ControlFlow::Break`] when an object was deleted because its API was.
async fn reflect_until_withdrawn<K, D>(
    api: &Api<K>,
    store: &ScopedStore<D>,
    withdrawal: Withdrawal,
    metrics: &Metrics,
    changed: &impl Fn(Change),
) -> ControlFlow<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    let mut failures = FailuresInARow::default();
    let events = resilient_watch(api.clone(), watch_config()).inspect(|event| {
        count_forbidden(event, metrics);
        if failures.count(event).is_some_and(|state| advance(store, state)) {
            changed(Change::Resync);
        }
    });
    let mut events = pin!(log_and_skip_errors(events));
    let mut listed = BTreeSet::new();
    let mut confirmed_at = None;
    while let Some(event) = events.next().await {
        if needs_confirmation(&event, withdrawal, confirmed_at) {
            if is_unserved(api).await {
                return ControlFlow::Break(());
            }
            confirmed_at = Some(Instant::now());
        }
        store.apply_event(&event, &mut listed).into_iter().for_each(changed);
    }
    ControlFlow::Continue(())
}

/// Sets the progress that failures show; returns `true` if that changes it. A list that was complete before
/// stays valid while the API server fails.
fn advance<D>(store: &ScopedStore<D>, state: SyncState) -> bool {
    let is_news = state == SyncState::Forbidden || !store.has_synced();
    is_news && store.set_sync(state)
}

/// Failures of one watch in a row.
#[derive(Default)]
struct FailuresInARow(u32);

impl FailuresInARow {
    /// Counts an event; returns the progress of the watch where failures show it.
    fn count<K>(&mut self, event: &Result<watcher::Event<K>, watcher::Error>) -> Option<SyncState> {
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

/// `true` for a deletion that may be due to the removal of the API. Deletions come in bursts, and one check is
/// enough for all that arrived before it.
fn needs_confirmation<K>(
    event: &watcher::Event<K>,
    withdrawal: Withdrawal,
    confirmed_at: Option<Instant>,
) -> bool {
    matches!(event, watcher::Event::Delete(_))
        && withdrawal == Withdrawal::Keep
        && confirmed_at.is_none_or(|confirmed_at| confirmed_at.elapsed() > BURST)
}

/// `true` if the API of the kind is gone some time after an object was deleted.
async fn is_unserved<K>(api: &Api<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    sleep(DELETION_CONFIRM).await;
    let found = api.list_metadata(&ListParams::default().limit(1)).await;
    matches!(found, Err(kube::Error::Api(status)) if status.code == 404)
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
