//! Metadata of watched objects, cut down to what reconciling needs.
//!
//! Managed fields and `last-applied-configuration` are most of an object's size: of the first only what a kind asks for is decoded,
//! of annotations only ours and KEDA's switches stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::de::{IgnoredAny, MapAccess};

use super::{Lenient, annotations, fields};

/// The label that marks what this operator generates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], and the field manager of everything we write.
pub const OPERATOR: &str = "kthena-keda";

/// What annotations that we keep start with; the last is KEDA's.
const KEPT_ANNOTATIONS: [&str; 3] = [annotations::MODEL_NAME, annotations::PREFIX, "autoscaling.keda.sh/"];

/// A map of few entries that is kept for long: the smallest node of a [`BTreeMap`] has room for eleven.
pub type SmallMap = Box<[(String, String)]>;

/// Metadata as the API server sends it; `F` is what matters of a manager's fields.
///
/// The API server sees to it that metadata has its shape, whatever is written. Should it not, an object is left with what could be read: without
/// a name it is left out by whoever watches.
#[derive(Default)]
pub(crate) struct LeanMetadata<F> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    owner_references: Vec<OwnerReference>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    managed_fields: Vec<Managed<F>>,
}

fields!(LeanMetadata<F> where F {
    "name" => name,
    "namespace" => namespace,
    "uid" => uid,
    "resourceVersion" => resource_version,
    "generation" => generation,
    "deletionTimestamp" => deletion_timestamp,
    "ownerReferences" => owner_references,
    "labels" => labels,
    "annotations" => annotations,
    "managedFields" => managed_fields,
});

#[derive(Default)]
struct Managed<F> {
    manager: String,
    subresource: Option<String>,
    fields: F,
}

fields!(Managed<F> where F { "manager" => manager, "subresource" => subresource, "fieldsV1" => fields });

/// Of a manager's fields, labels and annotations.
#[derive(Default)]
pub(crate) struct ManagedMetadata {
    metadata: ManagedKeys,
}

fields!(ManagedMetadata { "f:metadata" => metadata });

#[derive(Default)]
struct ManagedKeys {
    labels: Keys,
    annotations: Keys,
}

fields!(ManagedKeys { "f:labels" => labels, "f:annotations" => annotations });

/// The names of an object's fields.
#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Lenient for Keys {
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, _)) = object.next_entry::<_, IgnoredAny>()? {
            keys.insert(key);
        }
        Ok(Self(keys))
    }
}

/// What of an object's metadata we wrote and nobody changed since.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnMetadata {
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether we wrote any of the object at all.
    pub(crate) touched: bool,
}

impl LeanMetadata<ManagedMetadata> {
    /// What of it is ours.
    pub(crate) fn own(&self) -> OwnMetadata {
        let mut own = OwnMetadata::default();
        for fields in self.fields_of(OPERATOR) {
            own.touched = true;
            own.labels.extend(values(&self.labels, &fields.metadata.labels));
            own.annotations.extend(values(&self.annotations, &fields.metadata.annotations));
        }
        own
    }
}

/// The entries that a set of managed fields (`f:<key>`) speaks of.
fn values(all: &BTreeMap<String, String>, fields: &Keys) -> BTreeMap<String, String> {
    all.iter()
        .filter(|(key, _)| fields.0.contains(&format!("f:{key}")))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl<F> LeanMetadata<F> {
    /// Takes the annotations that are kept.
    pub(crate) fn take_annotations(&mut self) -> SmallMap {
        mem::take(&mut self.annotations).into_iter().filter(|(key, _)| is_kept(key)).collect()
    }

    /// Who wrote what, and by which subresource.
    pub(crate) fn writers(&self) -> impl Iterator<Item = (&str, Option<&str>, &F)> {
        self.managed_fields
            .iter()
            .map(|entry| (entry.manager.as_str(), entry.subresource.as_deref(), &entry.fields))
    }

    /// What one manager owns, an entry for each way in which it writes.
    pub(crate) fn fields_of(&self, manager: &str) -> impl Iterator<Item = &F> {
        self.managed_fields.iter().filter(move |entry| entry.manager == manager).map(|entry| &entry.fields)
    }
}

fn is_kept(annotation: &str) -> bool {
    KEPT_ANNOTATIONS.iter().any(|kept| annotation.starts_with(kept))
}

impl<F> From<LeanMetadata<F>> for ObjectMeta {
    fn from(mut read: LeanMetadata<F>) -> Self {
        read.labels.retain(|key, _| key == MANAGED_BY);
        read.annotations.retain(|key, _| is_kept(key));
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            generation: read.generation,
            deletion_timestamp: read.deletion_timestamp,
            owner_references: Some(read.owner_references).filter(|owners| !owners.is_empty()),
            labels: Some(read.labels).filter(|labels| !labels.is_empty()),
            annotations: Some(read.annotations).filter(|annotations| !annotations.is_empty()),
            ..Self::default()
        }
    }
}
