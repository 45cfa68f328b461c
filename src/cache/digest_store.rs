//! What is kept of the objects of one kind: a digest of each, and whether all have been seen.
//!
//! In: what watches tell, and what the API server answered to our own writes. Out: the digests, and which of them changed.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use kube::{Resource, ResourceExt as _, runtime::watcher};
use tokio::sync::watch;

use super::{
    entries::{Entries, Entry},
    index::{Digest, IndexKey},
};

/// Namespace and name.
pub type Key = (String, String);

/// What one watch covers: a namespace, or everything where none is named.
pub type Scope = Option<String>;

/// The digests of all objects of one kind, of one watch or of several.
#[derive(Debug)]
pub struct DigestStore<D>(BTreeMap<Scope, ScopedStore<D>>);

impl<D> Default for DigestStore<D> {
    fn default() -> Self {
        Self::of([None])
    }
}

impl<D> DigestStore<D> {
    /// Nothing seen yet of these scopes.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().map(|scope| (scope, ScopedStore::default())).collect())
    }

    /// Whether no watch fills them.
    pub fn is_disabled(&self) -> bool {
        self.0.is_empty()
    }

    /// What each watch fills.
    pub fn parts(&self) -> impl Iterator<Item = (&Scope, &ScopedStore<D>)> {
        self.0.iter()
    }

    /// What the watch of this namespace fills; none where it is not watched.
    fn part(&self, namespace: &str) -> Option<&ScopedStore<D>> {
        self.0.get(&Some(namespace.to_owned())).or_else(|| self.0.get(&None))
    }

    /// Whether every object of the kind has been seen that ever will be.
    pub fn has_synced(&self) -> bool {
        self.0.values().all(ScopedStore::has_synced)
    }
}

impl<D: Digest> DigestStore<D> {
    /// What is known under this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<D> {
        self.part(namespace)?.get(namespace, name)
    }

    /// Everything that is known.
    pub fn all(&self) -> Vec<(Key, D)> {
        let known = self.0.values().map(ScopedStore::read);
        known
            .flat_map(|known| {
                known.all().map(|(key, digest)| (key.clone(), digest.clone())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The digests with any of these index keys or keys, in the order of their keys.
    pub fn matching(&self, index_keys: &[IndexKey], keys: &[Key]) -> Vec<(Key, D)> {
        let entries: Vec<_> = self.0.values().map(ScopedStore::read).collect();
        let indexed =
            entries.iter().flat_map(|entries| index_keys.iter().flat_map(|key| entries.about(*key)));
        let keyed = entries.iter().flat_map(|entries| keys.iter().filter_map(|key| entries.get(key)));
        let found: BTreeMap<&Key, &D> = indexed.chain(keyed).collect();
        found.into_iter().map(|(key, digest)| (key.clone(), digest.clone())).collect()
    }

    /// The keys of what speaks of a topic, no more than so many; in order within each watch.
    pub fn keys(&self, topic: IndexKey, most: usize) -> Vec<Key> {
        self.0.values().flat_map(|part| part.keys(topic, most, |_, _| true)).take(most).collect()
    }

    /// Whether anything speaks of a topic.
    pub fn any(&self, topic: IndexKey) -> bool {
        self.0.values().any(|part| part.any(topic))
    }

    /// How much speaks of a topic.
    pub fn count(&self, topic: IndexKey) -> usize {
        self.0.values().map(|part| part.read().about(topic).count()).sum()
    }

    /// Takes what the API server answered to a write, so that the next pass reads it although the watch may be behind.
    pub fn record_write<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        if let Some(part) = self.part(&object.namespace().unwrap_or_default()) {
            part.record_write(object);
        }
    }
}

/// What one watch tells.
#[derive(Debug)]
pub struct ScopedStore<D> {
    known: RwLock<Entries<D>>,
    /// The newest version of any object that the watch told of: what is not newer than that, it has told of already.
    watched: AtomicU64,
    /// The newest version that was known when the last list began: what is newer and not in it was written since.
    listing: AtomicU64,
    sight: watch::Sender<SyncState>,
}

/// How much of a kind is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Not all of it yet.
    Partial,
    /// All of it.
    Complete,
    /// Nothing: the right to list it is missing. Waiting for more would hold up everything else.
    Forbidden,
}

impl<D> Default for ScopedStore<D> {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            watched: AtomicU64::new(0),
            listing: AtomicU64::new(0),
            sight: watch::Sender::new(SyncState::Partial),
        }
    }
}

impl<D> ScopedStore<D> {
    fn read(&self) -> RwLockReadGuard<'_, Entries<D>> {
        self.known.read()
    }

    /// Whether every object has been seen that ever will be.
    pub fn has_synced(&self) -> bool {
        *self.sight.borrow() != SyncState::Partial
    }

    /// Waits until every object has been seen that ever will be.
    pub async fn wait_synced(&self) {
        // It fails without a sender, which is kept here.
        let _ = self.sight.subscribe().wait_for(|sight| *sight != SyncState::Partial).await;
    }
}

impl<D: Digest> ScopedStore<D> {
    fn get(&self, namespace: &str, name: &str) -> Option<D> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).map(|(_, digest)| digest.clone())
    }

    /// The keys of what speaks of a topic, in order, the first that `counts` lets pass, and no more than so many.
    pub fn keys(&self, topic: IndexKey, most: usize, counts: impl Fn(&Key, &D) -> bool) -> Vec<Key> {
        let known = self.read();
        known
            .about(topic)
            .filter(|(key, digest)| counts(key, digest))
            .take(most)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether anything speaks of a topic.
    pub fn any(&self, topic: IndexKey) -> bool {
        self.read().about(topic).next().is_some()
    }

    /// How much speaks of a topic.
    pub fn count(&self, topic: IndexKey) -> usize {
        self.read().about(topic).count()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries<D>> {
        self.known.write()
    }

    /// Tells whether that is news.
    pub fn set_sync(&self, sight: SyncState) -> bool {
        self.sight.send_replace(sight) != sight
    }

    /// Not where the watch is ahead: it may have told already that the object is gone again.
    fn record_write<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        let mut known = self.write();
        if version(object) > self.watched.load(Ordering::Relaxed) {
            known.insert(key(object), Entry { version: version(object), digest: D::from(object) });
        }
    }

    /// Takes an event of a watch; answers what changed. `listed` is what the list under way holds so far.
    pub fn apply_event<K: Resource>(
        &self,
        event: &watcher::Event<K>,
        listed: &mut BTreeSet<Key>,
    ) -> Vec<Change>
    where
        D: for<'a> From<&'a K>,
    {
        let one = |object: &K, news: Option<Vec<IndexKey>>| {
            news.map(|topics| Change::Object(key(object), topics)).into_iter().collect()
        };
        match event {
            watcher::Event::Init => {
                listed.clear();
                self.listing.store(self.read().newest(), Ordering::Relaxed);
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                listed.insert(key(object));
                one(object, self.told(object).filter(|_| self.has_synced()))
            }
            watcher::Event::InitDone => {
                let gone = self.retain(listed).into_iter().map(|(key, topics)| Change::Object(key, topics));
                gone.chain(self.set_sync(SyncState::Complete).then_some(Change::Resync)).collect()
            }
            watcher::Event::Apply(object) => one(object, self.told(object)),
            watcher::Event::Delete(object) => one(object, self.gone(object)),
        }
    }

    /// Takes what the watch tells; answers what it is about if the digest changed.
    fn told<K: Resource>(&self, object: &K) -> Option<Vec<IndexKey>>
    where
        D: for<'a> From<&'a K>,
    {
        let (key, version, digest) = (key(object), version(object), D::from(object));
        let mut known = self.write();
        self.watched.fetch_max(version, Ordering::Relaxed);
        if known.version(&key).is_some_and(|before| before > version) {
            return None;
        }
        known.insert(key, Entry { version, digest })
    }

    /// Forgets what the watch tells to be gone; answers what it was about if it was known.
    fn gone<K: Resource>(&self, object: &K) -> Option<Vec<IndexKey>> {
        let mut known = self.write();
        self.watched.fetch_max(version(object), Ordering::Relaxed);
        known.remove(&key(object))
    }

    /// Drops whatever is not in a list, unless it was written after the list began; answers what changed.
    fn retain(&self, listed: &BTreeSet<Key>) -> Vec<(Key, Vec<IndexKey>)> {
        let mut known = self.write();
        let before = self.listing.load(Ordering::Relaxed);
        known.retain(|key, version| listed.contains(key) || version > before)
    }

    /// Forgets everything: the kind is no longer served.
    pub fn clear(&self) {
        *self.write() = Entries::default();
        self.watched.store(0, Ordering::Relaxed);
        self.listing.store(0, Ordering::Relaxed);
        self.set_sync(SyncState::Partial);
    }
}

/// Under which an object is known.
pub fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Resource versions are numbers that grow (Kubernetes API concepts, "resource versions"); one that is not counts as newest.
pub fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}

/// What happened to the digests.
#[derive(Debug)]
pub enum Change {
    /// One of them, and what it speaks of or spoke of.
    Object(Key, Vec<IndexKey>),
    /// All have been seen, or none can be any more.
    Resync,
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
    use k8s_openapi::api::core::v1::Service;

    #[derive(Clone, Debug, PartialEq)]
    struct Label(Option<String>);

    impl Digest for Label {
        fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
            self.0.iter().map(|label| topic(label)).collect()
        }
    }

    fn topic(label: &str) -> IndexKey {
        IndexKey::of(0, &[label])
    }

    impl From<&Service> for Label {
        fn from(service: &Service) -> Self {
            Self(service.labels().get("l").cloned())
        }
    }

    fn service(version: u64, label: &str) -> Service {
        let metadata = serde_json::json!({"name": "s", "namespace": "n", "resourceVersion": version.to_string(), "labels": {"l": label}});
        serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap()
    }

    fn known(digests: &ScopedStore<Label>) -> Option<String> {
        digests.get("n", "s").and_then(|Label(label)| label)
    }

    #[test]
    fn only_a_change_of_the_digest_is_news() {
        let digests = ScopedStore::<Label>::default();
        assert_eq!(digests.told(&service(1, "a")), Some(vec![topic("a")]));
        assert_eq!(digests.told(&service(2, "a")), None);
        assert!(digests.told(&service(3, "b")).is_some());
        assert!(digests.gone(&service(4, "b")).is_some());
        assert_eq!(digests.gone(&service(4, "b")), None);
    }

    #[test]
    fn all_who_wait_are_woken_when_everything_is_seen() {
        let digests = ScopedStore::<Label>::default();
        let mut waiting: FuturesUnordered<_> = (0..3).map(|_| digests.wait_synced()).collect();
        assert_eq!(waiting.next().now_or_never(), None);
        digests.apply_event::<Service>(&watcher::Event::InitDone, &mut BTreeSet::new());
        assert_eq!(waiting.count().now_or_never(), Some(3));
    }

    #[test]
    fn what_speaks_of_a_topic_is_found_while_it_does() {
        let digests = ScopedStore::<Label>::default();
        let about = |label: &str| digests.keys(topic(label), 9, |_, _| true).len();
        digests.told(&service(1, "a"));
        assert_eq!((about("a"), about("b")), (1, 0));
        let touched = digests.told(&service(2, "b")).unwrap();
        assert!(
            touched.contains(&topic("a")) && touched.contains(&topic("b")),
            "whoever asked for either is to know"
        );
        assert_eq!((about("a"), about("b")), (0, 1));
        digests.apply_event::<Service>(&watcher::Event::Init, &mut BTreeSet::new());
        assert_eq!(digests.retain(&BTreeSet::new()), [(("n".to_owned(), "s".to_owned()), vec![topic("b")])]);
        assert_eq!((about("a"), about("b")), (0, 0));
    }

    #[test]
    fn a_write_is_read_before_the_watch_tells_of_it() {
        let digests = ScopedStore::<Label>::default();
        digests.told(&service(1, "a"));
        digests.record_write(&service(5, "ours"));
        // What the watch has yet to tell from before the write is not news.
        assert_eq!(digests.told(&service(3, "b")), None);
        assert_eq!(known(&digests).as_deref(), Some("ours"));
        // Nor is the write itself.
        assert_eq!(digests.told(&service(5, "ours")), None);
    }

    #[test]
    fn a_late_answer_does_not_revive_what_is_gone() {
        let digests = ScopedStore::<Label>::default();
        digests.told(&service(10, "ours"));
        digests.gone(&service(11, "ours"));
        digests.record_write(&service(10, "ours"));
        assert_eq!(known(&digests), None);
    }

    #[test]
    fn a_list_drops_what_is_not_in_it_but_what_was_written_since() {
        let digests = ScopedStore::<Label>::default();
        let begins = || digests.apply_event::<Service>(&watcher::Event::Init, &mut BTreeSet::new());
        let ends = || digests.apply_event::<Service>(&watcher::Event::InitDone, &mut BTreeSet::new());
        digests.told(&service(3, "old"));
        begins();
        digests.record_write(&service(9, "new"));
        ends();
        assert_eq!(known(&digests).as_deref(), Some("new"));
        // Written while nobody told of anything, and deleted by somebody else before the next list.
        begins();
        ends();
        assert_eq!(known(&digests), None);
    }
}
