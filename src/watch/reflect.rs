//! Keeps digests of an optional kind while the cluster serves it.
//!
//! In: a kind and its gate. Out: a digest of each object, and a call for each digest that changed. Failures
//! of one kind do not slow down any other.

use std::{collections::BTreeSet, fmt::Debug, pin::pin};

use futures::{
    StreamExt as _, TryStreamExt as _,
    future::{self, join_all},
};
use kube::{Api, Resource, runtime::watcher};
use serde::de::DeserializeOwned;

use super::gated::Gate;
use crate::{
    cache::{Change, Digest, DigestStore, Scope, ScopedStore, SyncState},
    runtime::resilient_watch::{log_and_skip_errors, resilient_watch, watch_config},
};

/// Reflects the kind into `digests` while `gate` is open, until the process ends, and calls `changed` for
/// each change. `api` gives the API of each scope; a store without scopes is left alone.
pub async fn reflect<K, D, S>(
    api: impl Fn(&Scope) -> Api<K>,
    mut gate: Gate<S>,
    digests: &DigestStore<D>,
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
        tokio::select! {
            _ = join_all(digests.scoped().map(|(scope, store)| reflect_scope(api(scope), store, &changed))) => {}
            () = closing.closed() => {}
        }
        tracing::info!(kind = %K::kind(&()), "the cluster no longer serves the kind; stopped the watch");
        digests.scoped().for_each(|(_, store)| store.clear());
        changed(Change::Resync);
    }
}

async fn reflect_scope<K, D>(api: Api<K>, store: &ScopedStore<D>, changed: &impl Fn(Change))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    let events = resilient_watch(api, watch_config());
    let events = events.inspect_err(|error| {
        if is_list_forbidden(error) && !store.has_synced() && store.set_sync(SyncState::Forbidden) {
            changed(Change::Resync);
        }
    });
    let mut events = pin!(log_and_skip_errors(events));
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        store.apply_event(&event, &mut listed).into_iter().for_each(changed);
    }
}

fn is_list_forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}
