//! The digests of one watch, by key and by index key.

use std::{collections::BTreeMap, sync::Arc};

use super::index::{Digest, Index, IndexKey};
use kthena_keda_core::domain::Key;

/// A digest and its key, shared with the store: a lookup of thousands copies none of them.
pub type Shared<D> = (Arc<Key>, Arc<D>);

/// A digest and the resource version of its object.
#[derive(Clone, Debug)]
pub(super) struct Entry<D> {
    /// The resource version as a number, which grows within one kind.
    pub(super) version: u64,
    pub(super) digest: Arc<D>,
}

/// All entries, and their index.
#[derive(Debug)]
pub(super) struct Entries<D> {
    by_key: BTreeMap<Arc<Key>, Entry<D>>,
    index: Index,
}

impl<D> Default for Entries<D> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), index: Index::default() }
    }
}

impl<D> Entries<D> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<Key>, &Arc<D>)> {
        self.by_key.iter().map(|(key, entry)| (key, &entry.digest))
    }

    pub(super) fn get(&self, key: &Key) -> Option<(&Arc<Key>, &Arc<D>)> {
        self.by_key.get_key_value(key).map(|(key, entry)| (key, &entry.digest))
    }

    /// The resource version of one object.
    pub(super) fn version(&self, key: &Key) -> Option<u64> {
        self.by_key.get(key).map(|entry| entry.version)
    }

    /// The newest resource version of all objects; 0 without any.
    pub(super) fn newest_version(&self) -> u64 {
        self.by_key.values().map(|entry| entry.version).max().unwrap_or_default()
    }

    /// Digests of one namespace with this index key, in the order of their names.
    pub(super) fn matching_in(
        &self,
        index_key: IndexKey,
        namespace: &str,
    ) -> impl Iterator<Item = (&Arc<Key>, &Arc<D>)> {
        self.index.matching_in(index_key, namespace).filter_map(|key| self.get(key))
    }

    /// Digests with this index key, in the order of their keys.
    pub(super) fn matching(&self, index_key: IndexKey) -> impl Iterator<Item = (&Arc<Key>, &Arc<D>)> {
        self.index.matching(index_key).filter_map(|key| self.get(key))
    }
}

impl<D: Digest> Entries<D> {
    /// Inserts or replaces an entry. If that changes the digest, returns the index keys of the old and the
    /// new one.
    pub(super) fn insert(&mut self, key: Key, new: Entry<D>) -> Option<Vec<IndexKey>> {
        if let Some(entry) = self.by_key.get_mut(&key)
            && entry.digest == new.digest
        {
            // Equal digests may differ in what is no change, such as the version of a status that was
            // written.
            *entry = new;
            return None;
        }
        let mut touched = self.remove(&key).unwrap_or_default();
        let index_keys = new.digest.index_keys(&key);
        let key = Arc::new(key);
        self.index.insert(&key, &index_keys);
        self.by_key.insert(key, new);
        touched.extend(index_keys);
        touched.sort_unstable();
        touched.dedup();
        Some(touched)
    }

    /// Removes an entry; returns its index keys if there was one.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Vec<IndexKey>> {
        let (key, entry) = self.by_key.remove_entry(key)?;
        let index_keys = entry.digest.index_keys(&key);
        self.index.remove(&key, &index_keys);
        Some(index_keys)
    }

    /// Removes the entries whose key and version `stays` rejects; returns the key and the index keys of each.
    pub(super) fn retain(&mut self, stays: impl Fn(&Key, u64) -> bool) -> Vec<(Key, Vec<IndexKey>)> {
        let dropped = self.by_key.iter().filter(|(key, entry)| !stays(key, entry.version));
        let dropped: Vec<Key> = dropped.map(|(key, _)| (**key).clone()).collect();
        let removed = |key| self.remove(&key).map(|index_keys| (key, index_keys));
        dropped.into_iter().filter_map(removed).collect()
    }
}
