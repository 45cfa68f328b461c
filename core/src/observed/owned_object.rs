//! The digest of an object that we generate: who owns it, and a fingerprint of what we would write.
//!
//! Other controllers rewrite the rest of it all the time; a digest changes only when something that matters here did.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;

use crate::api::metadata::{MANAGED_BY, OPERATOR, OwnMetadata};

/// Whose the object is that stands under a name which we would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// There is none.
    Absent,
    /// We made it, or may adopt it.
    Owned,
    /// Owned, and being deleted.
    Terminating,
    /// Somebody else's.
    Foreign,
}

/// What matters of an object under a name of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedObject {
    /// Its identity.
    pub uid: String,
    /// The fields that we would write.
    pub fingerprint: Fingerprint,
    /// Who controls it.
    controller: Option<String>,
    /// Whether it says that we manage it, or we wrote some of it.
    marked: bool,
    leaving: bool,
}

/// Stands for the fields that we write; equal where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl OwnedObject {
    /// The digest of a live object, whoever wrote it.
    pub(super) fn new<S: Serialize>(metadata: &ObjectMeta, own: &OwnMetadata, spec: Option<&S>) -> Self {
        let controller = controller(metadata);
        let managed = is_managed(metadata);
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            fingerprint: Fingerprint::of(&own.labels, &own.annotations, controller, spec),
            controller: controller.map(|owner| owner.uid.clone()),
            marked: managed || (own.touched && controller.is_some()),
            leaving: metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether the owner with this identity controls it.
    pub fn is_controlled_by(&self, owner_uid: Option<&str>) -> bool {
        self.controller.is_some() && self.controller.as_deref() == owner_uid
    }

    /// Whose the object is, seen from the owner with this identity.
    ///
    /// Ours is what the owner controls and we marked or wrote; and what we marked and nobody controls, such as the output of
    /// `render` that came through GitOps.
    pub fn ownership(&self, owner_uid: Option<&str>) -> Ownership {
        let ours = match &self.controller {
            Some(controller) => Some(controller.as_str()) == owner_uid && self.marked,
            None => self.marked,
        };
        match (ours, self.leaving) {
            (false, _) => Ownership::Foreign,
            (true, true) => Ownership::Terminating,
            (true, false) => Ownership::Owned,
        }
    }
}

impl Fingerprint {
    /// The fingerprint that a live object has when it looks like the one that is wanted.
    pub fn of_desired<S: Serialize>(metadata: &ObjectMeta, spec: &S) -> Self {
        let none = BTreeMap::new();
        Self::of(
            metadata.labels.as_ref().unwrap_or(&none),
            metadata.annotations.as_ref().unwrap_or(&none),
            controller(metadata),
            Some(spec),
        )
    }

    fn of<S: Serialize>(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        controller: Option<&OwnerReference>,
        spec: Option<&S>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        // These types have no maps with other than text keys, so that writing them as JSON cannot fail.
        serde_json::to_string(&(labels, annotations, controller, spec)).unwrap_or_default().hash(&mut hasher);
        Self(hasher.finish())
    }
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn is_managed(metadata: &ObjectMeta) -> bool {
    metadata.labels.iter().flatten().any(|(key, value)| key == MANAGED_BY && value == OPERATOR)
}
