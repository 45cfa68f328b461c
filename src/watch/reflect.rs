//! Follows one optional kind for life: silent while the cluster does not serve it, alive again when it does.
//!
//! In: a kind and whether it is served. Out: a digest of each object, and a call for each digest that changed. Its failures slow nothing else down.

use std::{collections::BTreeSet, fmt::Debug, pin::pin};

use futures::{
    StreamExt as _, TryStreamExt as _,
    future::{self, join_all},
};
use kube::{Api, Resource, runtime::watcher};
use serde::de::DeserializeOwned;

use super::gated::Gate;
use crate::cache::{Change, Digest, DigestStore, Scope, ScopedStore, SyncState};
use crate::runtime::resilient_watch::{log_and_skip_errors, resilient_watch, watch_config};

/// Follows the kind while `gate` says that it is served, until the process ends. `api` is where each scope is watched; without any scope there is nothing
/// to do.
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
            _ = join_all(digests.parts().map(|(scope, part)| watch_kind(api(scope), part, &changed))) => {}
            () = closing.closed() => {}
        }
        tracing::info!(kind = %K::kind(&()), "no longer served");
        digests.parts().for_each(|(_, part)| part.clear());
        changed(Change::Resync);
    }
}

async fn watch_kind<K, D>(api: Api<K>, digests: &ScopedStore<D>, changed: &impl Fn(Change))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Digest + for<'a> From<&'a K>,
{
    let events = resilient_watch(api, watch_config());
    let events = events.inspect_err(|error| {
        if is_denied(error) && !digests.has_synced() && digests.set_sync(SyncState::Forbidden) {
            changed(Change::Resync);
        }
    });
    let mut events = pin!(log_and_skip_errors(events));
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        digests.apply_event(&event, &mut listed).into_iter().for_each(changed);
    }
}

fn is_denied(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}
