//! Watches of kinds that the cluster may not serve yet, or no longer.
//!
//! A watch of a kind that is not served fails forever, and slows down a controller that merges it into its
//! own streams. So an optional kind is watched only while it is served, and its failures do not leave this
//! module.

use std::{fmt::Debug, sync::Arc};

use futures::{
    Stream, StreamExt, future,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    runtime::{reflector::Store, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;

use super::{
    failures::{FailuresInARow, count_forbidden},
    multi_namespace::MultiNamespace,
};
use crate::{
    runtime::resilient_watch::{log_and_skip_errors, log_errors, resilient_watch, watch_config},
    telemetry::metrics::Metrics,
};

/// Gate of a kind, open while the cluster serves it.
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
    /// A gate that is open while `is_open` is true of the served APIs.
    pub fn new(served: channel::Receiver<S>, is_open: impl Fn(&S) -> bool + Send + Sync + 'static) -> Self {
        Self { served, is_open: Arc::new(is_open) }
    }

    /// Waits until the gate is open; `false` if discovery has ended, and the gate never opens again.
    pub(super) async fn opened(&mut self) -> bool {
        self.served.wait_for(|served| (self.is_open)(served)).await.is_ok()
    }

    /// Waits until the gate is closed.
    pub(super) async fn closed(&mut self) {
        let is_closed = self.served.wait_for(|served| !(self.is_open)(served)).await.is_ok();
        if !is_closed {
            future::pending::<()>().await;
        }
    }
}

/// Watches a kind while `gate` is open, in each of `apis`, restricted to the label selector. The stream has
/// no errors.
///
/// `store` is the store that the caller writes the events to.
pub fn watch<K, S>(
    apis: Vec<Api<K>>,
    label_selector: Option<String>,
    gate: Gate<S>,
    store: Store<K>,
    metrics: Metrics,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let config = watcher::Config { label_selector, ..watch_config() };
    let watches = stream::unfold((gate, apis), move |(mut gate, apis)| {
        let (config, store, metrics) = (config.clone(), store.clone(), metrics.clone());
        async move {
            let is_open = gate.opened().await;
            is_open.then(|| (watch_until_closed(&apis, &config, gate.clone(), store, &metrics), (gate, apis)))
        }
    });
    watches.flatten().map(Ok)
}

/// Watches in each of `apis` until the gate closes.
fn watch_until_closed<K, S>(
    apis: &[Api<K>],
    config: &watcher::Config,
    mut gate: Gate<S>,
    store: Store<K>,
    metrics: &Metrics,
) -> impl Stream<Item = watcher::Event<K>> + Send + use<K, S>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let watch_api = |api: &Api<K>| {
        let metrics = metrics.clone();
        let events = resilient_watch(api.clone(), config.clone());
        events.inspect(move |event| count_forbidden(event, &metrics))
    };
    let events = match apis {
        [api] => log_and_skip_errors(watch_api(api)).boxed(),
        apis => merge(apis.iter().map(|api| watch_api(api).boxed()).collect(), store).boxed(),
    };
    events.take_until(Box::pin(async move { gate.closed().await }))
}

/// The events of several watches as those of one.
fn merge<K: Resource<DynamicType = ()> + Clone + Send>(
    watches: Vec<BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>>,
    store: Store<K>,
) -> impl Stream<Item = watcher::Event<K>> {
    let mut merged = MultiNamespace::of(watches.len());
    let watches = watches.into_iter().enumerate().map(|(i, events)| news(events).map(move |news| (i, news)));
    stream::select_all(watches.map(StreamExt::boxed)).flat_map(move |(i, news)| {
        stream::iter(match news {
            News::Event(event) => merged.take(i, event, &store),
            News::CannotList => merged.skip(i),
        })
    })
}

/// Event of one watch, or its failure to list.
enum News<K> {
    Event(watcher::Event<K>),
    /// It was rejected, or failed, several times in a row.
    CannotList,
}

fn news<K: Resource<DynamicType = ()>>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
) -> impl Stream<Item = News<K>> {
    let mut failures = FailuresInARow::default();
    log_errors(events).filter_map(move |event| {
        let cannot_list = failures.count(&event).is_some();
        future::ready(match event {
            Ok(event) => Some(News::Event(event)),
            Err(_) => cannot_list.then_some(News::CannotList),
        })
    })
}
