//! Which digests speak of a topic, found without looking at all of them.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::Arc,
};

use kthena_keda_core::domain::Key;

/// What a digest may speak of, of some kind. Two that differ may be taken for one, so whoever asks looks at what is found.
///
/// There are ten for each model: a number holds the kind in its lowest byte, and a hash of the words in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey(u64);

impl IndexKey {
    /// The topic of a kind that these words name.
    pub fn of(kind: u8, words: &[&str]) -> Self {
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        Self(hasher.finish() << 8 | u64::from(kind))
    }

    /// Whether it is of a kind.
    pub fn is_of(self, kind: u8) -> bool {
        self.0 & 0xff == u64::from(kind)
    }
}

/// What is kept of an object.
pub trait Digest: Clone + PartialEq {
    /// What it speaks of, where others ask for that.
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        Vec::new()
    }
}

/// The keys of what speaks of each topic.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeSet<(IndexKey, Arc<Key>)>);

impl Index {
    pub(super) fn add(&mut self, key: &Arc<Key>, topics: &[IndexKey]) {
        self.0.extend(topics.iter().map(|topic| (*topic, key.clone())));
    }

    pub(super) fn remove(&mut self, key: &Arc<Key>, topics: &[IndexKey]) {
        for topic in topics {
            self.0.remove(&(*topic, key.clone()));
        }
    }

    /// In the order of their keys.
    pub(super) fn about(&self, topic: IndexKey) -> impl Iterator<Item = &Arc<Key>> {
        let first = (topic, Arc::new(Key::default()));
        self.0.range(first..).take_while(move |(found, _)| *found == topic).map(|(_, key)| key)
    }
}
