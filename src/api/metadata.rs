//! Metadata of watched objects, cut down to what reconciling needs.
//!
//! Managed fields and `last-applied-configuration` are most of an object's size: of the first only what a kind asks for is decoded,
//! of annotations only ours and KEDA's switches stay.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use crate::intent;

/// The label that marks what this operator generates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], and the field manager of everything we write.
pub const OPERATOR: &str = "kthena-keda";

/// What annotations that we keep start with; the last is KEDA's.
const KEPT_ANNOTATIONS: [&str; 3] = [intent::MODEL_NAME, intent::PREFIX, "autoscaling.keda.sh/"];

/// Metadata as the API server sends it; `F` is what matters of a manager's fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "F: Deserialize<'de>")]
pub(crate) struct LeanMetadata<F> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    owner_references: Vec<OwnerReference>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default = "Vec::new")]
    managed_fields: Vec<Managed<F>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "F: Deserialize<'de>")]
struct Managed<F> {
    #[serde(default)]
    manager: String,
    subresource: Option<String>,
    #[serde(rename = "fieldsV1", default = "Option::default")]
    fields: Option<F>,
}

/// Of a manager's fields, labels and annotations.
#[derive(Deserialize)]
pub(crate) struct ManagedMetadata {
    #[serde(default, rename = "f:metadata")]
    metadata: ManagedKeys,
}

#[derive(Default, Deserialize)]
struct ManagedKeys {
    #[serde(default, rename = "f:labels")]
    labels: BTreeMap<String, serde_json::Value>,
    #[serde(default, rename = "f:annotations")]
    annotations: BTreeMap<String, serde_json::Value>,
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
fn values(all: &BTreeMap<String, String>, fields: &BTreeMap<String, serde_json::Value>) -> BTreeMap<String, String> {
    all.iter().filter(|(key, _)| fields.contains_key(&format!("f:{key}"))).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl<F> LeanMetadata<F> {
    /// Who wrote what, and by which subresource.
    pub(crate) fn writers(&self) -> impl Iterator<Item = (&str, Option<&str>, &F)> {
        self.managed_fields.iter().filter_map(|entry| Some((entry.manager.as_str(), entry.subresource.as_deref(), entry.fields.as_ref()?)))
    }

    /// What one manager owns, an entry for each way in which it writes.
    pub(crate) fn fields_of(&self, manager: &str) -> impl Iterator<Item = &F> {
        self.managed_fields.iter().filter(move |entry| entry.manager == manager).filter_map(|entry| entry.fields.as_ref())
    }
}

impl<F> From<LeanMetadata<F>> for ObjectMeta {
    fn from(mut read: LeanMetadata<F>) -> Self {
        read.labels.retain(|key, _| key == MANAGED_BY);
        read.annotations.retain(|key, _| KEPT_ANNOTATIONS.iter().any(|kept| key.starts_with(kept)));
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
