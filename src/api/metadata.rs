//! Metadata of watched objects, cut down to what reconciling needs.
//!
//! Managed fields and `last-applied-configuration` are most of an object's size; neither is ever kept.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

use crate::intent;

/// The label that marks what this operator generates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], and the field manager of everything we write.
pub const OPERATOR: &str = "kthena-keda";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanMetadata {
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
}

/// Decodes the metadata of a ModelServing: of labels and annotations only ours stay.
pub fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut read = LeanMetadata::deserialize(deserializer)?;
    read.labels.retain(|key, _| key == MANAGED_BY);
    read.annotations.retain(|key, _| key == intent::MODEL_NAME || key.starts_with(intent::PREFIX));
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        generation: read.generation,
        deletion_timestamp: read.deletion_timestamp,
        owner_references: Some(read.owner_references).filter(|owners| !owners.is_empty()),
        labels: Some(read.labels).filter(|labels| !labels.is_empty()),
        annotations: Some(read.annotations).filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    })
}
