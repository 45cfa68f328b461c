//! Kinds that may not be served yet, or no longer.
//!
//! A watch of a kind that is not served fails for ever, and a controller that merges it into its own streams is slowed down by it:
//! so an optional kind is watched only while it is served, and its failures stay in here.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{reflector::Store, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;

use super::multi_namespace::MultiNamespace;
use crate::runtime::resilient_watch::{log_and_skip_errors, resilient_watch, watch_config};

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

/// Watches a kind whenever it is served, at one place or at several, and of it what `selector` matches; never fails.
///
/// `store` is what the events are written to.
pub fn watch<K, S>(
    apis: Vec<Api<K>>,
    selector: Option<String>,
    gate: Gate<S>,
    store: Store<K>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let config = watcher::Config { label_selector: selector, ..watch_config() };
    let openings = stream::unfold((gate, apis), move |(mut gate, apis)| {
        let (config, store) = (config.clone(), store.clone());
        async move {
            gate.opened().await.then(|| (one_opening(&apis, &config, gate.clone(), store), (gate, apis)))
        }
    });
    openings.flatten().map(Ok)
}

fn one_opening<K, S>(
    apis: &[Api<K>],
    config: &watcher::Config,
    mut gate: Gate<S>,
    store: Store<K>,
) -> impl Stream<Item = watcher::Event<K>> + Send + use<K, S>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    let one = |api: &Api<K>| log_and_skip_errors(resilient_watch(api.clone(), config.clone())).boxed();
    let events = match apis {
        [api] => one(api),
        apis => {
            let mut merge = MultiNamespace::of(apis.len());
            let watches = apis.iter().enumerate().map(|(i, api)| one(api).map(move |event| (i, event)));
            let told =
                stream::select_all(watches).map(move |(i, event)| stream::iter(merge.take(i, event, &store)));
            told.flatten().boxed()
        }
    };
    events.take_until(Box::pin(async move { gate.closed().await }))
}
