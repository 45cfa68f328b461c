//! Follows one optional kind for life: silent while the cluster does not serve it, alive again when it does.
//!
//! In: a kind and whether it is served. Out: a digest of each object, and a call for each digest that changed. Its failures slow nothing else down.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    pin::pin,
    sync::{PoisonError, RwLock},
};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::gate::{Gate, WATCH_SECONDS, told_once};

/// Namespace and name.
pub type Key = (String, String);

/// The digests of all objects of one kind.
#[derive(Debug)]
pub struct Digests<D> {
    known: RwLock<BTreeMap<Key, Versioned<D>>>,
    sight: watch::Sender<Sight>,
}

/// How much of a kind is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Not all of it yet.
    Partial,
    /// All of it.
    Complete,
    /// Nothing: the right to list it is missing. Waiting for more would hold up everything else.
    Denied,
}

#[derive(Clone, Debug)]
struct Versioned<D> {
    /// The resource version as a number; they are ordered within one kind.
    version: u64,
    digest: Option<D>,
}

impl<D> Default for Digests<D> {
    fn default() -> Self {
        Self { known: RwLock::default(), sight: watch::Sender::new(Sight::Partial) }
    }
}

impl<D: Clone + PartialEq> Digests<D> {
    /// What is known under this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<D> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(namespace.to_owned(), name.to_owned())).and_then(|versioned| versioned.digest.clone())
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<(Key, D)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(|(key, versioned)| Some((key.clone(), versioned.digest.clone()?))).collect()
    }

    /// Whether every object of the kind has been seen that ever will be.
    pub fn is_complete(&self) -> bool {
        *self.sight.borrow() != Sight::Partial
    }

    /// Tells whether that is news.
    fn sees(&self, sight: Sight) -> bool {
        self.sight.send_replace(sight) != sight
    }

    /// Takes what the API server answered to a write, so that the next pass reads it although the watch may be behind.
    pub fn wrote<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        self.set(key(object), version(object), Some(D::from(object)));
    }

    /// Keeps the newer of the two; tells whether the digest changed.
    fn set(&self, key: Key, version: u64, digest: Option<D>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(&key);
        if before.is_some_and(|before| before.version > version) {
            return false;
        }
        let changed = before.and_then(|before| before.digest.as_ref()) != digest.as_ref();
        if digest.is_some() {
            known.insert(key, Versioned { version, digest });
        } else {
            known.remove(&key);
        }
        changed
    }

    /// Drops whatever is not in the list; answers what changed.
    fn retain(&self, listed: &BTreeMap<Key, u64>) -> Vec<Key> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Key> = known.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
        known.retain(|key, _| listed.contains_key(key));
        gone
    }
}

fn is_denied(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403)
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Resource versions are numbers that grow (Kubernetes API concepts, "resource versions"); one that is not counts as newest.
fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}

/// What happened to the digests.
#[derive(Debug)]
pub enum Change {
    /// One of them.
    One(Key),
    /// All have been seen, or none can be any more.
    All,
}

/// Follows the kind while `gate` says that it is served, until the process ends.
pub async fn follow<K, D, S>(api: Api<K>, mut gate: Gate<S>, digests: &Digests<D>, changed: impl Fn(Change))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Clone + PartialEq + for<'a> From<&'a K>,
{
    while gate.opened().await {
        let mut closing = gate.clone();
        tokio::select! {
            () = watch_kind(api.clone(), digests, &changed) => {}
            () = closing.closed() => {}
        }
        tracing::info!(kind = %K::kind(&()), "no longer served");
        digests.retain(&BTreeMap::new());
        digests.sees(Sight::Partial);
        changed(Change::All);
    }
}

async fn watch_kind<K, D>(api: Api<K>, digests: &Digests<D>, changed: &impl Fn(Change))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    D: Clone + PartialEq + for<'a> From<&'a K>,
{
    let events = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff();
    let events = events.inspect_err(|error| {
        if is_denied(error) && !digests.is_complete() && digests.sees(Sight::Denied) {
            changed(Change::All);
        }
    });
    let mut events = pin!(told_once(events));
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.insert(key(&object), version(&object));
                if digests.set(key(&object), version(&object), Some(D::from(&object))) && digests.is_complete() {
                    changed(Change::One(key(&object)));
                }
            }
            watcher::Event::InitDone => {
                digests.retain(&listed).into_iter().for_each(|key| changed(Change::One(key)));
                if digests.sees(Sight::Complete) {
                    changed(Change::All);
                }
            }
            watcher::Event::Apply(object) => {
                if digests.set(key(&object), version(&object), Some(D::from(&object))) {
                    changed(Change::One(key(&object)));
                }
            }
            watcher::Event::Delete(object) => {
                if digests.set(key(&object), version(&object), None) {
                    changed(Change::One(key(&object)));
                }
            }
        }
    }
}
