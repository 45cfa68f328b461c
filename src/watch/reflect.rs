//! Keeps digests of an optional kind while the cluster serves it.
//!
//! In: a kind and its gate. Out: a digest of each object, and a call for each digest that changed. Failures
//! of one kind do not slow down any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::ControlFlow,
    pin::pin,
    time::Duration,
};

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::{self, Fuse, FusedFuture as _, join_all},
};
use kthena_keda_core::domain::{Key, key};
use kube::{Api, Resource, api::ListParams, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::{
    failures::{FailuresInARow, count_forbidden},
    gated::Gate,
};
use crate::{
    cache::{Change, Digest, DigestStore, Scope, ScopedStore, SyncState},
    runtime::{
        delays::DELETION_CONFIRM,
        resilient_watch::{log_and_skip_errors, resilient_watch, watch_config},
    },
    telemetry::metrics::Metrics,
};

/// Least time between two checks whether an API is gone: deletions come in bursts.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Fate of the digests when the API of the kind disappears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// They are forgotten.
    Forget,
    /// They are kept, as a kind that cannot be read.
    Keep,
}

/// Reflects the kind into `digests` while `gate` is open, until the process ends, and calls `changed` for
/// each change. `api` gives the API of each scope; a store without scopes is left alone. With a `label`, only objects
/// that have it are watched.
pub async fn reflect<K, D, S>(
    api: impl Fn(&Scope) -> Api<K>,
    label: Option<&str>,
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
            _ = join_all(scopes.map(|(scope, store)| reflect_scope(api(scope), label, store, withdrawal, metrics, &changed))) => {}
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
    label: Option<&str>,
    store: &ScopedStore<D>,
    withdrawal: Withdrawal,
    metrics: &Metrics,
    changed: &impl Fn(Change),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    while reflect_until_withdrawn(&api, label, store, withdrawal, metrics, changed).await
        == ControlFlow::Break(())
    {
        tracing::warn!(kind = %K::kind(&()), "the API of the kind was removed together with its objects");
        store.withdraw();
        changed(Change::Resync);
    }
}

/// Ends with [`ControlFlow::Break`] when an object was deleted because its API was.
async fn reflect_until_withdrawn<K, D>(
    api: &Api<K>,
    label: Option<&str>,
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
    let config = watcher::Config { label_selector: label.map(str::to_owned), ..watch_config() };
    let events = resilient_watch(api.clone(), config).inspect(|event| {
        count_forbidden(event, metrics);
        if failures.count(event).is_some_and(|state| advance(store, state)) {
            changed(Change::Resync);
        }
    });
    apply_events(log_and_skip_errors(events), async || is_unserved(api).await, store, withdrawal, changed)
        .await
}

/// Applies events until they end. A deletion that may be due to the removal of the API is applied once the API is
/// known to be served still, and delays no other event.
async fn apply_events<K, D>(
    events: impl Stream<Item = watcher::Event<K>>,
    is_unserved: impl AsyncFn() -> bool,
    store: &ScopedStore<D>,
    withdrawal: Withdrawal,
    changed: &impl Fn(Change),
) -> ControlFlow<()>
where
    K: Resource<DynamicType = ()>,
    D: Digest + for<'a> From<&'a K>,
{
    let check = async |due| {
        sleep_until(due).await;
        (Instant::now(), is_unserved().await)
    };
    let (mut events, mut confirmation) = (pin!(events), pin!(Fuse::terminated()));
    let (mut listed, mut deletions) = (BTreeSet::new(), Deletions::default());
    loop {
        let ready = tokio::select! {
            event = events.next() => match event {
                Some(event) => Vec::from_iter(deletions.hold(event, withdrawal)),
                None => return ControlFlow::Continue(()),
            },
            (checked_at, is_gone) = &mut confirmation => {
                if is_gone {
                    return ControlFlow::Break(());
                }
                deletions.confirm(checked_at)
            }
        };
        for event in ready {
            store.apply_event(&event, &mut listed).into_iter().for_each(changed);
        }
        if confirmation.is_terminated()
            && let Some(due) = deletions.next_check()
        {
            confirmation.set(check(due).fuse());
        }
    }
}

/// Deletions of which it is not known whether the API of the kind was removed.
struct Deletions<K> {
    /// The event and the time from which on a check confirms it, by key.
    pending: BTreeMap<Key, (Instant, watcher::Event<K>)>,
    checked_at: Option<Instant>,
}

impl<K> Default for Deletions<K> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), checked_at: None }
    }
}

impl<K: Resource<DynamicType = ()>> Deletions<K> {
    /// Keeps a deletion that needs confirmation, and returns any other event. An object that exists again ends the
    /// deletion of its predecessor.
    fn hold(&mut self, event: watcher::Event<K>, withdrawal: Withdrawal) -> Option<watcher::Event<K>> {
        match &event {
            watcher::Event::Delete(object) if withdrawal == Withdrawal::Keep => {
                self.pending.insert(key(object), (Instant::now() + DELETION_CONFIRM, event));
                return None;
            }
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.pending.remove(&key(object));
            }
            watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone => {}
        }
        Some(event)
    }

    /// Time of the next check; `None` while no deletion is pending.
    fn next_check(&self) -> Option<Instant> {
        let due = self.pending.values().map(|(due, _)| *due).min()?;
        Some(self.checked_at.map_or(due, |checked_at| due.max(checked_at + CHECK_INTERVAL)))
    }

    /// The deletions that were due at a check that found the API served.
    fn confirm(&mut self, checked_at: Instant) -> Vec<watcher::Event<K>> {
        self.checked_at = Some(checked_at);
        let due = self.pending.extract_if(.., |_, (due, _)| *due <= checked_at);
        due.map(|(_, (_, event))| event).collect()
    }
}

/// Sets the progress that failures show; returns `true` if that changes it. A list that was complete before
/// stays valid while the API server fails.
fn advance<D>(store: &ScopedStore<D>, state: SyncState) -> bool {
    let is_news = state == SyncState::Forbidden || !store.has_synced();
    is_news && store.set_sync(state)
}

/// `true` if the API of the kind is gone.
async fn is_unserved<K>(api: &Api<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = api.list_metadata(&ListParams::default().limit(1)).await;
    matches!(found, Err(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use futures::channel::mpsc;
    use kthena_keda_core::observed::{LiveModelRoute, RouteDigest};
    use tokio::time::sleep;

    fn route(name: &str, model: &str, version: u32) -> LiveModelRoute {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()},
            "spec": {"modelName": model},
        }))
        .unwrap()
    }

    /// Applies events, each after a pause; returns the number of checks, and the outcome if it ended.
    async fn applied(
        digests: &DigestStore<RouteDigest>,
        events: Vec<(Duration, watcher::Event<LiveModelRoute>)>,
        rest: Duration,
        is_gone: bool,
    ) -> (u32, Option<ControlFlow<()>>) {
        let (_, store) = digests.scoped().next().unwrap();
        let (sender, receiver) = mpsc::unbounded();
        let checks = Cell::new(0);
        let is_unserved = async || {
            checks.set(checks.get() + 1);
            is_gone
        };
        let send = async {
            for (pause, event) in events {
                sleep(pause).await;
                sender.unbounded_send(event).unwrap();
            }
            sleep(rest).await;
        };
        let apply = apply_events(receiver, is_unserved, store, Withdrawal::Keep, &|_| {});
        let outcome = tokio::select! {
            outcome = apply => Some(outcome),
            () = send => None,
        };
        (checks.get(), outcome)
    }

    fn models(store: &DigestStore<RouteDigest>) -> Vec<String> {
        let all = store.all();
        all.iter().flat_map(|(_, route)| route.names()).map(str::to_owned).collect()
    }

    const NOW: Duration = Duration::ZERO;
    const MOMENT: Duration = Duration::from_millis(1);

    /// A tenant who creates and deletes routes delays no other tenant's.
    #[tokio::test(start_paused = true)]
    async fn an_event_behind_a_deletion_is_applied_at_once() {
        use watcher::Event::{Apply, Delete};
        let store = DigestStore::of([None]);
        let events = vec![
            (NOW, Apply(route("a", "old", 1))),
            (NOW, Delete(route("a", "old", 2))),
            (NOW, Apply(route("b", "new", 3))),
        ];
        assert_eq!(applied(&store, events, MOMENT, false).await, (0, None));
        assert_eq!(models(&store), ["old", "new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_check_confirms_the_deletions_that_are_due() {
        use watcher::Event::{Apply, Delete};
        let store = DigestStore::of([None]);
        let mut events: Vec<_> = (0..5).map(|i| (NOW, Apply(route(&format!("r-{i}"), "m", i)))).collect();
        events.extend((0..4).map(|i| (NOW, Delete(route(&format!("r-{i}"), "m", 10 + i)))));
        events.push((MOMENT, Apply(route("r-3", "again", 20))));
        let outcome = applied(&store, events, DELETION_CONFIRM + CHECK_INTERVAL, false).await;
        assert_eq!(outcome, (1, None));
        assert_eq!(models(&store), ["again", "m"]);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_digests_of_an_api_that_was_removed() {
        use watcher::Event::{Apply, Delete};
        let store = DigestStore::of([None]);
        let events = vec![(NOW, Apply(route("a", "m", 1))), (NOW, Delete(route("a", "m", 2)))];
        let outcome = applied(&store, events, DELETION_CONFIRM * 2, true).await;
        assert_eq!(outcome, (1, Some(ControlFlow::Break(()))));
        assert_eq!(models(&store), ["m"]);
    }
}
