//! Identity and version of an object.

use kube_core::{Resource, ResourceExt as _};

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
pub type Key = (String, String);

/// Key of an object.
pub fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Resource version as a number, which grows within one kind (Kubernetes API concepts, "resource versions").
/// A version that is not a number counts as the newest.
pub fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}
