//! The digest of a ScaledObject: who owns it, and a fingerprint of what we would write.
//!
//! KEDA rewrites the status at every poll; a digest changes only when something that matters here did.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::Existing;
use crate::api::{
    keda::{ScaledObject, ScaledObjectSpec},
    metadata::{LeanMetadata, MANAGED_BY, OPERATOR},
};

/// A ScaledObject as the API server sends it, whoever wrote it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct LiveScaledObject {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    /// The fields that we would write, as they stand.
    spec: Option<ScaledObjectSpec>,
    /// Annotations that we wrote and nobody changed since.
    our_annotations: BTreeMap<String, String>,
    /// Whether this operator wrote any of it.
    touched: bool,
}

#[derive(Deserialize)]
struct Wire {
    metadata: LeanMetadata<ManagedMetadata>,
    #[serde(default, deserialize_with = "crate::api::lenient")]
    spec: Option<ScaledObjectSpec>,
}

/// Of a manager's fields, the annotations.
#[derive(Deserialize)]
struct ManagedMetadata {
    #[serde(default, rename = "f:metadata")]
    metadata: ManagedAnnotations,
}

#[derive(Default, Deserialize)]
struct ManagedAnnotations {
    #[serde(default, rename = "f:annotations")]
    annotations: BTreeMap<String, serde_json::Value>,
}

impl From<Wire> for LiveScaledObject {
    fn from(wire: Wire) -> Self {
        let touched = wire.metadata.fields_of(OPERATOR).next().is_some();
        let ours: Vec<String> = wire
            .metadata
            .fields_of(OPERATOR)
            .flat_map(|fields| fields.metadata.annotations.keys())
            .filter_map(|field| field.strip_prefix("f:").map(ToOwned::to_owned))
            .collect();
        let metadata: ObjectMeta = wire.metadata.into();
        let mut our_annotations = metadata.annotations.clone().unwrap_or_default();
        our_annotations.retain(|key, _| ours.contains(key));
        Self { metadata, spec: wire.spec, our_annotations, touched }
    }
}

impl Resource for LiveScaledObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ScaledObject::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ScaledObject::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ScaledObject::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ScaledObject::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What matters of a ScaledObject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaledObjectDigest {
    /// Its identity.
    pub uid: String,
    /// The fields that we would write.
    pub fingerprint: u64,
    /// Who controls it.
    controller: Option<String>,
    /// Whether it says that we manage it, or we wrote some of it.
    marked: bool,
    leaving: bool,
}

/// The fields that we write, in the same shape whether wanted or found.
#[derive(Serialize)]
struct OwnFields<'a> {
    managed: bool,
    controller: Option<&'a OwnerReference>,
    annotations: &'a BTreeMap<String, String>,
    spec: Option<&'a ScaledObjectSpec>,
}

impl ScaledObjectDigest {
    /// Whose the object is, seen from the ModelServing with this identity.
    ///
    /// Ours is what the ModelServing controls and we marked or wrote; and what we marked and nobody controls, such as the output of
    /// `render` that came through GitOps.
    pub fn existing(&self, model_serving_uid: Option<&str>) -> Existing {
        let ours = match &self.controller {
            Some(controller) => Some(controller.as_str()) == model_serving_uid && self.marked,
            None => self.marked,
        };
        match (ours, self.leaving) {
            (false, _) => Existing::Foreign,
            (true, true) => Existing::Leaving,
            (true, false) => Existing::Ours,
        }
    }
}

impl From<&LiveScaledObject> for ScaledObjectDigest {
    fn from(live: &LiveScaledObject) -> Self {
        let controller = controller(&live.metadata);
        let managed = is_managed(&live.metadata);
        Self {
            uid: live.metadata.uid.clone().unwrap_or_default(),
            fingerprint: fingerprint(&OwnFields { managed, controller, annotations: &live.our_annotations, spec: live.spec.as_ref() }),
            controller: controller.map(|owner| owner.uid.clone()),
            marked: managed || (live.touched && controller.is_some()),
            leaving: live.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl ScaledObject {
    /// The fingerprint that the live object has when it looks like this one.
    pub fn fingerprint(&self) -> u64 {
        let none = BTreeMap::new();
        fingerprint(&OwnFields {
            managed: is_managed(&self.metadata),
            controller: controller(&self.metadata),
            annotations: self.metadata.annotations.as_ref().unwrap_or(&none),
            spec: Some(&self.spec),
        })
    }
}

fn fingerprint(fields: &OwnFields<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    // These types have no maps with other than text keys, so that writing them as JSON cannot fail.
    serde_json::to_string(fields).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn is_managed(metadata: &ObjectMeta) -> bool {
    metadata.labels.iter().flatten().any(|(key, value)| key == MANAGED_BY && value == OPERATOR)
}
