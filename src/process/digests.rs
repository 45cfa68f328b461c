//! What is kept of the objects of one kind: a digest of each, and whether all have been seen.
//!
//! In: what watches tell, and what the API server answered to our own writes. Out: the digests, and which of them changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::{Resource, ResourceExt as _, runtime::watcher};
use tokio::sync::watch;

/// Namespace and name.
pub type Key = (String, String);

/// What one watch covers: a namespace, or everything where none is named.
pub type Scope = Option<String>;

/// The digests of all objects of one kind, of one watch or of several.
#[derive(Debug)]
pub struct Digests<D>(BTreeMap<Scope, Part<D>>);

impl<D> Default for Digests<D> {
    fn default() -> Self {
        Self::of([None])
    }
}

impl<D> Digests<D> {
    /// Nothing seen yet of these scopes.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().map(|scope| (scope, Part::default())).collect())
    }

    /// Whether no watch fills them.
    pub fn is_of_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// What each watch fills.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Scope, &Part<D>)> {
        self.0.iter()
    }

    /// What the watch of this namespace fills; none where it is not watched.
    fn part(&self, namespace: &str) -> Option<&Part<D>> {
        self.0.get(&Some(namespace.to_owned())).or_else(|| self.0.get(&None))
    }

    /// Whether every object of the kind has been seen that ever will be.
    pub fn is_complete(&self) -> bool {
        self.0.values().all(Part::is_complete)
    }
}

impl<D: Clone + PartialEq> Digests<D> {
    /// What is known under this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<D> {
        self.part(namespace)?.get(namespace, name)
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<(Key, D)> {
        self.view(|all| all.iter().map(|(key, digest)| ((*key).clone(), (*digest).clone())).collect())
    }

    /// Looks at everything that is known, without copying it.
    pub fn view<R>(&self, look: impl FnOnce(&[(&Key, &D)]) -> R) -> R {
        let known: Vec<_> = self.0.values().map(Part::read).collect();
        let all: Vec<(&Key, &D)> = known.iter().flat_map(|known| known.iter()).map(|(key, versioned)| (key, &versioned.digest)).collect();
        look(&all)
    }

    /// Takes what the API server answered to a write, so that the next pass reads it although the watch may be behind.
    pub fn wrote<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        if let Some(part) = self.part(&object.namespace().unwrap_or_default()) {
            part.wrote(object);
        }
    }
}

/// What one watch tells.
#[derive(Debug)]
pub struct Part<D> {
    known: RwLock<BTreeMap<Key, Versioned<D>>>,
    /// The newest version of any object that the watch told of: what is not newer than that, it has told of already.
    watched: AtomicU64,
    sight: watch::Sender<Sight>,
}

/// How much of a kind is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
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
    digest: D,
}

impl<D> Default for Part<D> {
    fn default() -> Self {
        Self { known: RwLock::default(), watched: AtomicU64::new(0), sight: watch::Sender::new(Sight::Partial) }
    }
}

impl<D> Part<D> {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Versioned<D>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every object has been seen that ever will be.
    pub(super) fn is_complete(&self) -> bool {
        *self.sight.borrow() != Sight::Partial
    }
}

impl<D: Clone + PartialEq> Part<D> {
    fn get(&self, namespace: &str, name: &str) -> Option<D> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).map(|versioned| versioned.digest.clone())
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Versioned<D>>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether that is news.
    pub(super) fn sees(&self, sight: Sight) -> bool {
        self.sight.send_replace(sight) != sight
    }

    /// Not where the watch is ahead: it may have told already that the object is gone again.
    fn wrote<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        let mut known = self.write();
        if version(object) > self.watched.load(Ordering::Relaxed) {
            known.insert(key(object), Versioned { version: version(object), digest: D::from(object) });
        }
    }

    /// Takes an event of a watch; answers what changed. `listed` is what the list under way holds so far.
    pub fn take<K: Resource>(&self, event: &watcher::Event<K>, listed: &mut BTreeSet<Key>) -> Vec<Change>
    where
        D: for<'a> From<&'a K>,
    {
        let one = |object: &K, is_news: bool| is_news.then(|| Change::One(key(object))).into_iter().collect();
        match event {
            watcher::Event::Init => {
                listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                listed.insert(key(object));
                one(object, self.told(object) && self.is_complete())
            }
            watcher::Event::InitDone => {
                let gone = self.retain(listed).into_iter().map(Change::One);
                gone.chain(self.sees(Sight::Complete).then_some(Change::All)).collect()
            }
            watcher::Event::Apply(object) => one(object, self.told(object)),
            watcher::Event::Delete(object) => one(object, self.gone(object)),
        }
    }

    /// Takes what the watch tells; answers whether the digest changed.
    fn told<K: Resource>(&self, object: &K) -> bool
    where
        D: for<'a> From<&'a K>,
    {
        let (key, version, digest) = (key(object), version(object), D::from(object));
        let mut known = self.write();
        self.watched.fetch_max(version, Ordering::Relaxed);
        if known.get(&key).is_some_and(|before| before.version > version) {
            return false;
        }
        let before = known.insert(key, Versioned { version, digest: digest.clone() });
        before.is_none_or(|before| before.digest != digest)
    }

    /// Forgets what the watch tells to be gone; answers whether it was known.
    fn gone<K: Resource>(&self, object: &K) -> bool {
        let mut known = self.write();
        self.watched.fetch_max(version(object), Ordering::Relaxed);
        known.remove(&key(object)).is_some()
    }

    /// Drops whatever is not in a list, unless it was written after the list was made; answers what changed.
    fn retain(&self, listed: &BTreeSet<Key>) -> Vec<Key> {
        let mut known = self.write();
        let watched = self.watched.load(Ordering::Relaxed);
        let stays = |key: &Key, found: &Versioned<D>| listed.contains(key) || found.version > watched;
        let gone = known.iter().filter(|(key, found)| !stays(key, found)).map(|(key, _)| key.clone()).collect();
        known.retain(|key, found| stays(key, found));
        gone
    }

    /// Forgets everything: the kind is no longer served.
    pub(super) fn clear(&self) {
        self.write().clear();
        self.watched.store(0, Ordering::Relaxed);
        self.sees(Sight::Partial);
    }
}

/// Under which an object is known.
pub fn key<K: Resource>(object: &K) -> Key {
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    #[derive(Clone, Debug, PartialEq)]
    struct Label(Option<String>);

    impl From<&Service> for Label {
        fn from(service: &Service) -> Self {
            Self(service.labels().get("l").cloned())
        }
    }

    fn service(version: u64, label: &str) -> Service {
        let metadata = serde_json::json!({"name": "s", "namespace": "n", "resourceVersion": version.to_string(), "labels": {"l": label}});
        serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap()
    }

    fn known(digests: &Part<Label>) -> Option<String> {
        digests.get("n", "s").and_then(|Label(label)| label)
    }

    #[test]
    fn only_a_change_of_the_digest_is_news() {
        let digests = Part::<Label>::default();
        assert!(digests.told(&service(1, "a")));
        assert!(!digests.told(&service(2, "a")));
        assert!(digests.told(&service(3, "b")));
        assert!(digests.gone(&service(4, "b")));
        assert!(!digests.gone(&service(4, "b")));
    }

    #[test]
    fn a_write_is_read_before_the_watch_tells_of_it() {
        let digests = Part::<Label>::default();
        digests.told(&service(1, "a"));
        digests.wrote(&service(5, "ours"));
        // What the watch has yet to tell from before the write is not news.
        assert!(!digests.told(&service(3, "b")));
        assert_eq!(known(&digests).as_deref(), Some("ours"));
        // Nor is the write itself.
        assert!(!digests.told(&service(5, "ours")));
    }

    #[test]
    fn a_late_answer_does_not_revive_what_is_gone() {
        let digests = Part::<Label>::default();
        digests.told(&service(10, "ours"));
        digests.gone(&service(11, "ours"));
        digests.wrote(&service(10, "ours"));
        assert_eq!(known(&digests), None);
    }

    #[test]
    fn a_list_drops_what_is_not_in_it_but_what_was_written_since() {
        let digests = Part::<Label>::default();
        digests.told(&service(3, "old"));
        assert_eq!(digests.retain(&BTreeSet::new()).len(), 1);
        digests.wrote(&service(9, "new"));
        assert!(digests.retain(&BTreeSet::new()).is_empty());
        assert_eq!(known(&digests).as_deref(), Some("new"));
    }
}
