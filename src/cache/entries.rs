//! The digests of one watch, and how they are found: by key, and by what they speak of.

use std::{collections::BTreeMap, sync::Arc};

use super::index::{Digest, Index, IndexKey};
use kthena_keda_core::domain::Key;

/// A digest and how new it is.
#[derive(Clone, Debug)]
pub(super) struct Entry<D> {
    /// The resource version as a number; they are ordered within one kind.
    pub(super) version: u64,
    pub(super) digest: D,
}

/// What is known, and how it is found.
#[derive(Debug)]
pub(super) struct Entries<D> {
    /// Boxed, since half of the room in a map's nodes is spare.
    digests: BTreeMap<Arc<Key>, Box<Entry<D>>>,
    index: Index,
}

impl<D> Default for Entries<D> {
    fn default() -> Self {
        Self { digests: BTreeMap::new(), index: Index::default() }
    }
}

impl<D> Entries<D> {
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &D)> {
        self.digests.iter().map(|(key, versioned)| (&**key, &versioned.digest))
    }

    pub(super) fn get(&self, key: &Key) -> Option<(&Key, &D)> {
        self.digests.get_key_value(key).map(|(key, versioned)| (&**key, &versioned.digest))
    }

    pub(super) fn version(&self, key: &Key) -> Option<u64> {
        self.digests.get(key).map(|found| found.version)
    }

    /// The newest version of all.
    pub(super) fn newest(&self) -> u64 {
        self.digests.values().map(|found| found.version).max().unwrap_or_default()
    }

    pub(super) fn about(&self, topic: IndexKey) -> impl Iterator<Item = (&Key, &D)> {
        self.index.about(topic).filter_map(|key| self.get(key))
    }
}

impl<D: Digest> Entries<D> {
    /// Puts a digest in the place of what is known; answers what both speak of, if they differ.
    pub(super) fn insert(&mut self, key: Key, new: Entry<D>) -> Option<Vec<IndexKey>> {
        if let Some(before) = self.digests.get_mut(&key)
            && before.digest == new.digest
        {
            // Equal is what is no news; it may hold more, such as the version of a status that was written.
            **before = new;
            return None;
        }
        let mut topics = self.remove(&key).unwrap_or_default();
        let spoken_of = new.digest.index_keys(&key);
        let key = Arc::new(key);
        self.index.add(&key, &spoken_of);
        self.digests.insert(key, Box::new(new));
        topics.extend(spoken_of);
        topics.sort_unstable();
        topics.dedup();
        Some(topics)
    }

    /// Answers what it spoke of, if it was known.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Vec<IndexKey>> {
        let (key, before) = self.digests.remove_entry(key)?;
        let topics = before.digest.index_keys(&key);
        self.index.remove(&key, &topics);
        Some(topics)
    }

    /// Drops what does not stay, as its key and its version tell; answers what each of it spoke of.
    pub(super) fn retain(&mut self, stays: impl Fn(&Key, u64) -> bool) -> Vec<(Key, Vec<IndexKey>)> {
        let goes = self.digests.iter().filter(|(key, found)| !stays(key, found.version));
        let gone: Vec<Key> = goes.map(|(key, _)| (**key).clone()).collect();
        gone.into_iter().filter_map(|key| self.remove(&key).map(|topics| (key, topics))).collect()
    }
}
