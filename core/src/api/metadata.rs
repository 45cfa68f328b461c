//! Metadata of watched objects, reduced to the parts that a reconcile needs.
//!
//! Managed fields and `last-applied-configuration` are most of an object's size. Of managed fields, only
//! those that a kind selects are decoded; of annotations, only the operator's and KEDA's pauses are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;

use super::{BestEffort, Lenient, annotations, fields};

/// Label on the objects that the operator generates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the field manager of all writes.
pub const OPERATOR: &str = "kthena-keda";

/// Prefix of KEDA's annotations that pause a ScaledObject.
pub(crate) const KEDA_PAUSED: &str = "autoscaling.keda.sh/paused";

/// Size of an annotation that is kept although all of them are too large together, in bytes.
const SHORT_ANNOTATION: usize = 320;
/// Maximum number of annotations that are kept beside the operator's own; of those too if they are too large together.
const ANNOTATIONS_MAX: usize = 64;

/// A map with few entries and a long life: the smallest node of a [`BTreeMap`] has room for eleven.
pub type SmallMap = Box<[(String, String)]>;

/// Metadata as the API server sends it; `F` holds the selected fields of a field manager.
///
/// The API server validates metadata. If it is malformed all the same, the object keeps the fields that
/// decode; the watch skips an object without a name.
#[derive(Default)]
pub(crate) struct LeanMetadata<F> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
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
    "creationTimestamp" => creation_timestamp,
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

/// Labels, annotations and the spec among the fields of a field manager.
#[derive(Default)]
pub(crate) struct ManagedMetadata {
    metadata: ManagedKeys,
    spec: BestEffort<Value>,
}

fields!(ManagedMetadata { "f:metadata" => metadata, "f:spec" => spec });

#[derive(Default)]
struct ManagedKeys {
    labels: Keys,
    annotations: Keys,
}

fields!(ManagedKeys { "f:labels" => labels, "f:annotations" => annotations });

/// The keys of an object.
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

/// Labels and annotations that the operator owns: it wrote them, and no other field manager has changed them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnMetadata {
    /// Labels by key.
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotations by key.
    pub(crate) annotations: BTreeMap<String, String>,
    /// `true` if the operator owns any field of the object.
    pub(crate) touched: bool,
}

impl LeanMetadata<ManagedMetadata> {
    /// Fields of the spec, one set for each field manager that holds any.
    pub(crate) fn held_spec_fields(&self) -> impl Iterator<Item = &Value> {
        self.managed_fields.iter().filter_map(|entry| entry.fields.spec.0.as_ref())
    }

    /// The part that the operator owns.
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

/// The entries whose keys are in a set of managed fields, which spells them `f:<key>`.
fn values(all: &BTreeMap<String, String>, fields: &Keys) -> BTreeMap<String, String> {
    all.iter()
        .filter(|(key, _)| fields.0.contains(&format!("f:{key}")))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl<F> LeanMetadata<F> {
    /// Moves out the annotations that are kept, sorted by key: the operator's own, and a few short ones that are
    /// probably mistakes. If its own are too large together, `true`, and only short ones of them are kept.
    pub(crate) fn take_annotations(&mut self) -> (SmallMap, bool) {
        let mut kept = mem::take(&mut self.annotations);
        kept.retain(|key, _| is_kept(key));
        let are_too_large = annotations::are_too_large(&kept);
        if are_too_large {
            kept.entry(annotations::MODEL_NAME.to_owned()).and_modify(String::clear);
        }
        let mut room = ANNOTATIONS_MAX;
        kept.retain(|key, value| {
            // The opt-in stays: an opt-out would remove the ScaledObject.
            if key == annotations::MODEL_NAME || (annotations::is_own(key) && !are_too_large) {
                return true;
            }
            let fits = room > 0 && is_short(key, value);
            room -= usize::from(fits);
            fits
        });
        (kept.into_iter().collect(), are_too_large)
    }

    /// Name, subresource and fields of each field manager.
    pub(crate) fn writers(&self) -> impl Iterator<Item = (&str, Option<&str>, &F)> {
        self.managed_fields
            .iter()
            .map(|entry| (entry.manager.as_str(), entry.subresource.as_deref(), &entry.fields))
    }

    /// Fields of one field manager: one entry for each operation and subresource of its writes.
    pub(crate) fn fields_of(&self, manager: &str) -> impl Iterator<Item = &F> {
        self.managed_fields.iter().filter(move |entry| entry.manager == manager).map(|entry| &entry.fields)
    }
}

fn is_short(key: &str, value: &str) -> bool {
    key.len() + value.len() <= SHORT_ANNOTATION
}

fn is_kept(annotation: &str) -> bool {
    annotations::is_own(annotation)
        || annotation.starts_with(KEDA_PAUSED)
        || annotations::resembles_model_name(annotation)
}

impl<F> From<LeanMetadata<F>> for ObjectMeta {
    fn from(mut metadata: LeanMetadata<F>) -> Self {
        metadata.labels.retain(|key, _| key == MANAGED_BY);
        metadata.annotations.retain(|key, _| is_kept(key));
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            owner_references: Some(metadata.owner_references).filter(|owners| !owners.is_empty()),
            labels: Some(metadata.labels).filter(|labels| !labels.is_empty()),
            annotations: Some(metadata.annotations).filter(|annotations| !annotations.is_empty()),
            ..Self::default()
        }
    }
}
