//! Digests of watched objects: kept by key, found by key or by index key. Knows no kind.

mod digest_store;
mod entries;
mod index;

pub use digest_store::{Change, DigestStore, Scope, ScopedStore, SyncState};
pub use entries::Shared;
pub use index::{Digest, IndexKey};
