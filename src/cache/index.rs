//! Index from index keys to the objects whose digests have them, so that a lookup does not scan all digests.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::Arc,
};

use kthena_keda_core::domain::Key;

/// A property by which digests are found, such as the name of a model.
///
/// A model has about ten of them, so an index key is one number: the kind of the property in the lowest byte,
/// and a hash of its words above. Two properties may share a number; callers check what a lookup returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexKey(u64);

impl IndexKey {
    /// The index key of this kind and these words.
    pub fn of(kind: u8, words: &[&str]) -> Self {
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        Self(hasher.finish() << 8 | u64::from(kind))
    }

    /// `true` for an index key of this kind.
    pub fn is_of(self, kind: u8) -> bool {
        self.0 & 0xff == u64::from(kind)
    }
}

/// The part of an object that is kept. Objects with equal digests count as unchanged.
pub trait Digest: Clone + PartialEq {
    /// Index keys by which the digest of the object with this key is found; none by default.
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        Vec::new()
    }
}

/// Keys of objects by index key.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeSet<(IndexKey, Arc<Key>)>);

impl Index {
    pub(super) fn insert(&mut self, key: &Arc<Key>, index_keys: &[IndexKey]) {
        self.0.extend(index_keys.iter().map(|index_key| (*index_key, key.clone())));
    }

    pub(super) fn remove(&mut self, key: &Arc<Key>, index_keys: &[IndexKey]) {
        for index_key in index_keys {
            self.0.remove(&(*index_key, key.clone()));
        }
    }

    /// Keys of the objects with this index key, in order.
    pub(super) fn matching(&self, index_key: IndexKey) -> impl Iterator<Item = &Arc<Key>> {
        self.matching_from(index_key, "")
    }

    /// Keys of the objects of one namespace with this index key, in order; those of other namespaces are not looked at.
    pub(super) fn matching_in(
        &self,
        index_key: IndexKey,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<Key>> {
        self.matching_from(index_key, namespace).take_while(move |key| key.0 == namespace)
    }

    fn matching_from(
        &self,
        index_key: IndexKey,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<Key>> + use<'_> {
        let first = (index_key, Arc::new((namespace.to_owned(), String::new())));
        self.0.range(first..).take_while(move |(found, _)| *found == index_key).map(|(_, key)| key)
    }
}
