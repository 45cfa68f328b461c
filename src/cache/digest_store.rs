//! The digests of one kind, and whether all of its objects have been received.
//!
//! In: events of watches, and the API server's responses to the operator's own writes. Out: digests, and
//! which of them changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::{Resource, ResourceExt as _, runtime::watcher};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    entries::{Entries, Entry, Shared},
    index::{Digest, IndexKey},
};
use kthena_keda_core::{
    domain::{Key, key, version},
    observed::Readable,
};

/// Scope of one watch: a namespace, or all of them if there is none.
pub type Scope = Option<String>;

/// The digests of one kind, from one watch or one for each of several namespaces.
#[derive(Debug)]
pub struct DigestStore<D>(BTreeMap<Scope, ScopedStore<D>>);

impl<D> DigestStore<D> {
    /// An empty store for watches of these scopes.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().map(|scope| (scope, ScopedStore::default())).collect())
    }

    /// `true` if no watch fills the store.
    pub fn is_disabled(&self) -> bool {
        self.0.is_empty()
    }

    /// The store of each watch.
    pub fn scoped(&self) -> impl Iterator<Item = (&Scope, &ScopedStore<D>)> {
        self.0.iter()
    }

    /// The store of the watch that covers a namespace; `None` where it is not watched.
    fn covering(&self, namespace: &str) -> Option<&ScopedStore<D>> {
        self.0.get(&Some(namespace.to_owned())).or_else(|| self.0.get(&None))
    }

    /// `true` once no watch is incomplete; see [`ScopedStore::has_synced`].
    pub fn has_synced(&self) -> bool {
        self.0.values().all(ScopedStore::has_synced)
    }

    /// Readability of the objects of one namespace; those of a namespace that is not watched concern no
    /// model of this instance.
    pub fn readable_in(&self, namespace: &str) -> Readable {
        self.covering(namespace).map_or(Readable::Yes, ScopedStore::readable)
    }

    /// Readability of the objects of all watches.
    pub fn readable(&self) -> Readable {
        let unread = self.0.values().map(ScopedStore::readable).find(|readable| *readable != Readable::Yes);
        unread.unwrap_or_default()
    }

    /// `true` if the API of the kind disappeared while objects of it were known.
    pub fn is_withdrawn(&self) -> bool {
        self.0.values().any(|scoped| *scoped.sync.borrow() == SyncState::Withdrawn)
    }

    /// Sets the progress of every watch.
    pub fn set_sync(&self, state: SyncState) {
        for scoped in self.0.values() {
            scoped.set_sync(state);
        }
    }
}

impl<D: Digest> DigestStore<D> {
    /// The digest of one object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<D> {
        self.covering(namespace)?.get(namespace, name)
    }

    /// All digests.
    pub fn all(&self) -> Vec<(Key, D)> {
        self.0.values().flat_map(ScopedStore::all).collect()
    }

    /// The digests that `filter` accepts.
    pub fn filtered(&self, filter: impl Fn(&D) -> bool) -> Vec<Shared<D>> {
        let entries: Vec<_> = self.0.values().map(|scoped| scoped.entries.read()).collect();
        let accepted = entries.iter().flat_map(|entries| entries.iter()).filter(|(_, digest)| filter(digest));
        accepted.map(|(key, digest)| (key.clone(), digest.clone())).collect()
    }

    /// The digests with any of these index keys or keys, in the order of their keys.
    pub fn matching(&self, index_keys: &[IndexKey], keys: &[Key]) -> Vec<Shared<D>> {
        let entries: Vec<_> = self.0.values().map(|scoped| scoped.entries.read()).collect();
        let indexed =
            entries.iter().flat_map(|entries| index_keys.iter().flat_map(|key| entries.matching(*key)));
        let keyed = entries.iter().flat_map(|entries| keys.iter().filter_map(|key| entries.get(key)));
        sorted(indexed.chain(keyed))
    }

    /// The digests of one namespace with any of these index keys, in the order of their names; those of other namespaces cost
    /// nothing.
    pub fn matching_in(&self, namespace: &str, index_keys: &[IndexKey]) -> Vec<Shared<D>> {
        let Some(scoped) = self.covering(namespace) else { return Vec::new() };
        let entries = scoped.entries.read();
        let indexed = index_keys.iter().flat_map(|key| entries.matching_in(*key, namespace));
        sorted(indexed)
    }

    /// Keys of the digests with this index key, at most `limit`; in order within each watch.
    pub fn keys(&self, index_key: IndexKey, limit: usize) -> Vec<Key> {
        self.0.values().flat_map(|scoped| scoped.keys(index_key, limit, |_, _| true)).take(limit).collect()
    }

    /// Number of digests with this index key whose keys `filter` accepts.
    pub fn count(&self, index_key: IndexKey, filter: impl Fn(&Key) -> bool) -> usize {
        self.0.values().map(|scoped| scoped.count(index_key, &filter)).sum()
    }

    /// Records the API server's response to a write, so that the next reconcile reads it although the watch
    /// may lag.
    pub fn record_write<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        if let Some(scoped) = self.covering(&object.namespace().unwrap_or_default()) {
            scoped.record_write(object);
        }
    }
}

/// The digests without repetitions, in the order of their keys. Each index key gives its digests in order, and few of them more than
/// once, so little is left to sort.
fn sorted<'a, D: 'a>(found: impl Iterator<Item = (&'a Arc<Key>, &'a Arc<D>)>) -> Vec<Shared<D>> {
    let mut found: Vec<Shared<D>> = found.map(|(key, digest)| (key.clone(), digest.clone())).collect();
    found.sort_by(|(key, _), (other, _)| key.cmp(other));
    found.dedup_by(|(key, _), (other, _)| key == other);
    found
}

/// The digests of one watch.
#[derive(Debug)]
pub struct ScopedStore<D> {
    entries: RwLock<Entries<D>>,
    /// Newest resource version in any event of the watch; events up to it have been applied.
    watched: AtomicU64,
    /// Newest resource version when the last list began; an entry that is newer and not in the list was
    /// written since.
    list_began_at: AtomicU64,
    sync: watch::Sender<SyncState>,
}

/// Progress of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The initial list is incomplete.
    Partial,
    /// The initial list is complete.
    Complete,
    /// Listing is forbidden; the digests are those of the last list. Nothing waits for the kind, since that
    /// would block everything else.
    Forbidden,
    /// The initial list fails again and again for another reason. Nothing waits for the kind.
    Failing,
    /// The API of the kind disappeared; the digests are those of before.
    Withdrawn,
}

impl<D> Default for ScopedStore<D> {
    fn default() -> Self {
        Self {
            entries: RwLock::default(),
            watched: AtomicU64::new(0),
            list_began_at: AtomicU64::new(0),
            sync: watch::Sender::new(SyncState::Partial),
        }
    }
}

impl<D> ScopedStore<D> {
    /// `true` once the initial list is complete, or is known not to become complete soon.
    pub fn has_synced(&self) -> bool {
        *self.sync.borrow() != SyncState::Partial
    }

    /// Readability of the objects.
    pub fn readable(&self) -> Readable {
        match *self.sync.borrow() {
            SyncState::Complete => Readable::Yes,
            SyncState::Forbidden => Readable::Forbidden,
            SyncState::Partial | SyncState::Failing | SyncState::Withdrawn => Readable::NotYet,
        }
    }

    /// Waits until [`has_synced`](Self::has_synced).
    pub async fn wait_synced(&self) {
        // Fails only without a sender, and `self` holds one.
        let _ = self.sync.subscribe().wait_for(|state| *state != SyncState::Partial).await;
    }

    /// Sets the progress; returns `true` if that changes it.
    pub fn set_sync(&self, state: SyncState) -> bool {
        self.sync.send_replace(state) != state
    }
}

impl<D: Digest> ScopedStore<D> {
    fn get(&self, namespace: &str, name: &str) -> Option<D> {
        let key = (namespace.to_owned(), name.to_owned());
        self.entries.read().get(&key).map(|(_, digest)| D::clone(digest))
    }

    fn all(&self) -> Vec<(Key, D)> {
        self.entries.read().iter().map(|(key, digest)| (Key::clone(key), D::clone(digest))).collect()
    }

    /// The digests with this index key, in the order of their keys.
    pub fn matching(&self, index_key: IndexKey) -> Vec<Shared<D>> {
        let entries = self.entries.read();
        entries.matching(index_key).map(|(key, digest)| (key.clone(), digest.clone())).collect()
    }

    /// Keys of the first `limit` digests with this index key that `filter` accepts, in order.
    pub fn keys(&self, index_key: IndexKey, limit: usize, filter: impl Fn(&Key, &D) -> bool) -> Vec<Key> {
        let entries = self.entries.read();
        let accepted = entries.matching(index_key).filter(|(key, digest)| filter(key, digest));
        accepted.take(limit).map(|(key, _)| Key::clone(key)).collect()
    }

    /// Number of digests with this index key whose keys `filter` accepts.
    pub fn count(&self, index_key: IndexKey, filter: impl Fn(&Key) -> bool) -> usize {
        self.entries.read().matching(index_key).filter(|(key, _)| filter(key)).count()
    }

    /// Records a write unless the watch is ahead of it: the object may have been deleted since.
    fn record_write<K: Resource>(&self, object: &K)
    where
        D: for<'a> From<&'a K>,
    {
        let mut entries = self.entries.write();
        if version(object) > self.watched.load(Ordering::Relaxed) {
            entries
                .insert(key(object), Entry { version: version(object), digest: Arc::new(D::from(object)) });
        }
    }

    /// Applies an event of the watch; returns which digests changed. `listed` collects the keys of the
    /// current list.
    pub fn apply_event<K: Resource>(
        &self,
        event: &watcher::Event<K>,
        listed: &mut BTreeSet<Key>,
    ) -> Vec<Change>
    where
        D: for<'a> From<&'a K>,
    {
        match event {
            watcher::Event::Init => {
                listed.clear();
                self.list_began_at.store(self.entries.read().newest_version(), Ordering::Relaxed);
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                listed.insert(key(object));
                let touched = self.upsert(object).filter(|_| self.has_synced());
                Change::of_object(object, touched)
            }
            watcher::Event::InitDone => {
                let dropped = self.retain_listed(listed);
                let dropped = dropped.into_iter().map(|(key, touched)| Change::Object(key, touched));
                dropped.chain(self.set_sync(SyncState::Complete).then_some(Change::Resync)).collect()
            }
            watcher::Event::Apply(object) => Change::of_object(object, self.upsert(object)),
            watcher::Event::Delete(object) => Change::of_object(object, self.remove(object)),
        }
    }

    /// Inserts an object from the watch unless a newer version is known; returns the touched index keys if
    /// its digest changed.
    fn upsert<K: Resource>(&self, object: &K) -> Option<Vec<IndexKey>>
    where
        D: for<'a> From<&'a K>,
    {
        let (key, version, digest) = (key(object), version(object), Arc::new(D::from(object)));
        let mut entries = self.entries.write();
        self.watched.fetch_max(version, Ordering::Relaxed);
        if entries.version(&key).is_some_and(|known| known > version) {
            return None;
        }
        entries.insert(key, Entry { version, digest })
    }

    /// Removes an object that was deleted; returns its index keys if it was known.
    fn remove<K: Resource>(&self, object: &K) -> Option<Vec<IndexKey>> {
        let mut entries = self.entries.write();
        self.watched.fetch_max(version(object), Ordering::Relaxed);
        entries.remove(&key(object))
    }

    /// Removes the objects that are not in the list, unless they were written after it began; returns the
    /// index keys of each.
    fn retain_listed(&self, listed: &BTreeSet<Key>) -> Vec<(Key, Vec<IndexKey>)> {
        let mut entries = self.entries.write();
        let began_at = self.list_began_at.load(Ordering::Relaxed);
        entries.retain(|key, version| listed.contains(key) || version > began_at)
    }

    /// Keeps what is known although the API of the kind has disappeared; forgets nothing, unless nothing is
    /// known.
    pub fn withdraw(&self) {
        if self.entries.read().iter().next().is_none() {
            return self.clear();
        }
        self.set_sync(SyncState::Withdrawn);
    }

    /// Forgets everything, because the kind is no longer served.
    pub fn clear(&self) {
        *self.entries.write() = Entries::default();
        self.watched.store(0, Ordering::Relaxed);
        self.list_began_at.store(0, Ordering::Relaxed);
        self.set_sync(SyncState::Partial);
    }
}

/// A change of the digests.
#[derive(Clone, Debug)]
pub enum Change {
    /// The digest of one object was added, replaced or removed: its key, and its index keys before and after.
    Object(Key, Vec<IndexKey>),
    /// The initial list is complete, or the kind is no longer readable.
    Resync,
}

impl Change {
    fn of_object<K: Resource>(object: &K, touched: Option<Vec<IndexKey>>) -> Vec<Self> {
        touched.map(|index_keys| Self::Object(key(object), index_keys)).into_iter().collect()
    }
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
            self.0.iter().map(|label| index_key(label)).collect()
        }
    }

    fn index_key(label: &str) -> IndexKey {
        IndexKey::of(0, &[label])
    }

    impl From<&Service> for Label {
        fn from(service: &Service) -> Self {
            Self(service.labels().get("l").cloned())
        }
    }

    fn service(version: u64, label: &str) -> Service {
        let version = version.to_string();
        let labels = serde_json::json!({"l": label});
        let metadata =
            serde_json::json!({"name": "s", "namespace": "n", "resourceVersion": version, "labels": labels});
        serde_json::from_value(serde_json::json!({"metadata": metadata})).unwrap()
    }

    fn label(store: &ScopedStore<Label>) -> Option<String> {
        store.get("n", "s").and_then(|Label(label)| label)
    }

    fn count(store: &ScopedStore<Label>, label: &str) -> usize {
        store.keys(index_key(label), 9, |_, _| true).len()
    }

    fn begin_list(store: &ScopedStore<Label>) {
        store.apply_event::<Service>(&watcher::Event::Init, &mut BTreeSet::new());
    }

    fn end_list(store: &ScopedStore<Label>) {
        store.apply_event::<Service>(&watcher::Event::InitDone, &mut BTreeSet::new());
    }

    #[test]
    fn reports_only_changes_of_the_digest() {
        let store = ScopedStore::<Label>::default();
        assert_eq!(store.upsert(&service(1, "a")), Some(vec![index_key("a")]));
        assert_eq!(store.upsert(&service(2, "a")), None);
        assert!(store.upsert(&service(3, "b")).is_some());
        assert!(store.remove(&service(4, "b")).is_some());
        assert_eq!(store.remove(&service(4, "b")), None);
    }

    #[test]
    fn wakes_all_waiters_when_the_list_is_complete() {
        let store = ScopedStore::<Label>::default();
        let mut waiting: FuturesUnordered<_> = (0..3).map(|_| store.wait_synced()).collect();
        assert_eq!(waiting.next().now_or_never(), None);
        end_list(&store);
        assert_eq!(waiting.count().now_or_never(), Some(3));
    }

    #[test]
    fn the_index_follows_the_digests() {
        let store = ScopedStore::<Label>::default();
        store.upsert(&service(1, "a"));
        assert_eq!((count(&store, "a"), count(&store, "b")), (1, 0));
        let touched = store.upsert(&service(2, "b")).unwrap();
        assert!(touched.contains(&index_key("a")) && touched.contains(&index_key("b")), "old and new");
        assert_eq!((count(&store, "a"), count(&store, "b")), (0, 1));
        begin_list(&store);
        let dropped = store.retain_listed(&BTreeSet::new());
        assert_eq!(dropped, [(("n".to_owned(), "s".to_owned()), vec![index_key("b")])]);
        assert_eq!((count(&store, "a"), count(&store, "b")), (0, 0));
    }

    #[test]
    fn a_write_is_read_before_its_event_arrives() {
        let store = ScopedStore::<Label>::default();
        store.upsert(&service(1, "a"));
        store.record_write(&service(5, "ours"));
        // An event from before the write is no change.
        assert_eq!(store.upsert(&service(3, "b")), None);
        assert_eq!(label(&store).as_deref(), Some("ours"));
        // Nor is the event of the write itself.
        assert_eq!(store.upsert(&service(5, "ours")), None);
    }

    #[test]
    fn a_late_response_does_not_revive_a_deleted_object() {
        let store = ScopedStore::<Label>::default();
        store.upsert(&service(10, "ours"));
        store.remove(&service(11, "ours"));
        store.record_write(&service(10, "ours"));
        assert_eq!(label(&store), None);
    }

    #[test]
    fn a_list_drops_absent_objects_except_those_written_since_it_began() {
        let store = ScopedStore::<Label>::default();
        store.upsert(&service(3, "old"));
        begin_list(&store);
        store.record_write(&service(9, "new"));
        end_list(&store);
        assert_eq!(label(&store).as_deref(), Some("new"));
        // Deleted by another client before the next list, without an event.
        begin_list(&store);
        end_list(&store);
        assert_eq!(label(&store), None);
    }
}
