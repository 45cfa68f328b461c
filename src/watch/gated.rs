//! Watches of kinds that the cluster may not serve yet, or no longer.
//!
//! A watch of a kind that is not served fails forever, and slows down a controller that merges it into its
//! own streams. So an optional kind is watched only while it is served, and its failures do not leave this
//! module.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{reflector::Store, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;

use super::{multi_namespace::MultiNamespace, reflect::count_forbidden};
use crate::{
    runtime::resilient_watch::{log_and_skip_errors, resilient_watch, watch_config},
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
        log_and_skip_errors(events.inspect(move |event| count_forbidden(event, &metrics))).boxed()
    };
    let events = match apis {
        [api] => watch_api(api),
        apis => {
            let mut merged = MultiNamespace::of(apis.len());
            let watches = apis.iter().enumerate().map(|(i, api)| watch_api(api).map(move |event| (i, event)));
            stream::select_all(watches)
                .flat_map(move |(i, event)| stream::iter(merged.take(i, event, &store)))
                .boxed()
        }
    };
    events.take_until(Box::pin(async move { gate.closed().await }))
}
