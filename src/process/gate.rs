//! Kinds that may not be served yet, or no longer.
//!
//! A watch of a kind that is not served fails for ever, and a controller that merges it into its own streams is slowed down by it:
//! so an optional kind is watched only while it is served, and its failures stay in here.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;

/// How long the API server lets a watch stand, in seconds: a connection that fell silent is replaced soon after.
pub(super) const WATCH_SECONDS: u32 = 60;

/// Open while a kind is served.
pub struct Gate<S> {
    served: channel::Receiver<S>,
    is_open: Arc<dyn Fn(&S) -> bool + Send + Sync>,
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { served: self.served.clone(), is_open: self.is_open.clone() }
    }
}

impl<S> Gate<S> {
    /// A gate that opens and closes with what is served.
    pub fn new(served: channel::Receiver<S>, is_open: impl Fn(&S) -> bool + Send + Sync + 'static) -> Self {
        Self { served, is_open: Arc::new(is_open) }
    }

    /// Waits until the kind is served; `false` when nobody finds out any more.
    pub(super) async fn opened(&mut self) -> bool {
        self.served.wait_for(|served| (self.is_open)(served)).await.is_ok()
    }

    /// Waits until the kind is no longer served.
    pub(super) async fn closed(&mut self) {
        let closed = self.served.wait_for(|served| !(self.is_open)(served)).await.is_ok();
        if !closed {
            future::pending::<()>().await;
        }
    }
}

/// Watches a kind whenever it is served; never fails.
pub fn watch<K, S>(api: Api<K>, gate: Gate<S>) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Send + Sync + 'static,
{
    let openings = stream::unfold((gate, api), |(mut gate, api)| async move {
        gate.opened().await.then(|| (one_watch(api.clone(), gate.clone()), (gate, api)))
    });
    openings.flatten().map(Ok)
}

fn one_watch<K, S>(api: Api<K>, mut gate: Gate<S>) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    S: Send + Sync + 'static,
{
    let events = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff();
    told_once(events).take_until(Box::pin(async move { gate.closed().await }))
}

/// Drops errors, which the watch itself recovers from; tells the first of several in a row.
pub(super) fn told_once<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
) -> impl Stream<Item = watcher::Event<K>> {
    let mut failing = false;
    events.filter_map(move |event| {
        let event = event
            .inspect_err(|error| {
                if !failing {
                    tracing::warn!(kind = %K::kind(&()), error = error as &dyn std::error::Error, "the watch failed; trying on");
                }
            })
            .ok();
        failing = event.is_none();
        future::ready(event)
    })
}
