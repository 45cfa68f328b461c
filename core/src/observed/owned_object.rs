//! Digest of an object with a generated name: its owner, and a fingerprint of its spec and of the metadata that
//! the operator writes.
//!
//! Other controllers rewrite the status and the rest of the metadata all the time; the digest does not change
//! with them.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

use super::spec::{LiveSpec, desired_spec};
use crate::api::{
    kthena::ModelServing,
    metadata::{MANAGED_BY, OPERATOR, OwnMetadata},
};

/// Owner of an object with a generated name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// There is no object of that name.
    Absent,
    /// The operator created it, or may adopt it.
    Owned,
    /// Owned, and being deleted.
    Terminating,
    /// A ModelServing of the same name that was deleted controls it, and the garbage collector deletes it.
    Orphaned,
    /// Another owner has it; the operator never changes it.
    Foreign,
}

/// Digest of an object with a generated name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedObject {
    /// UID, the precondition of a delete.
    pub uid: String,
    /// Fingerprint of the spec and of the metadata that the operator writes.
    pub fingerprint: Fingerprint,
    /// Paths of fields of the spec without a field manager, which are left out of the fingerprint.
    pub defaulted_fields: Box<[String]>,
    /// Controlling owner.
    controller: Option<Controller>,
    /// `true` if its label names this operator as manager, or the operator wrote fields of it.
    marked: bool,
    is_terminating: bool,
}

/// Controlling owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    uid: String,
    /// Name, if it is a ModelServing.
    model_serving: Option<String>,
}

impl From<&OwnerReference> for Controller {
    fn from(owner: &OwnerReference) -> Self {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let is_model_serving = group == ModelServing::GROUP && owner.kind == ModelServing::KIND;
        Self { uid: owner.uid.clone(), model_serving: is_model_serving.then(|| owner.name.clone()) }
    }
}

/// Hash of the whole spec without empty values, and of the labels and annotations that the operator owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl OwnedObject {
    /// Digest of a live object of any owner.
    pub(super) fn new(metadata: &ObjectMeta, own: &OwnMetadata, spec: &LiveSpec) -> Self {
        let controller = controller(metadata);
        let managed = is_managed(metadata);
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            fingerprint: Fingerprint::of(&own.labels, &own.annotations, controller, spec.value()),
            defaulted_fields: spec.defaulted().into(),
            controller: controller.map(Controller::from),
            marked: managed || (own.touched && controller.is_some()),
            is_terminating: metadata.deletion_timestamp.is_some(),
        }
    }

    /// Name of the ModelServing that controls it.
    pub fn model_serving(&self) -> Option<&str> {
        self.controller.as_ref()?.model_serving.as_deref()
    }

    /// `true` if the owner with this UID controls it.
    pub fn is_controlled_by(&self, owner_uid: Option<&str>) -> bool {
        self.controller.as_ref().is_some_and(|controller| Some(controller.uid.as_str()) == owner_uid)
    }

    /// Ownership from the point of view of a ModelServing.
    ///
    /// An object of an earlier ModelServing of the same name is orphaned: its owner cannot exist any more, since
    /// names are unique.
    pub fn ownership_of(&self, model_serving: &ModelServing) -> Ownership {
        let uid = model_serving.metadata.uid.as_deref();
        let is_of_namesake = self.controller.as_ref().is_some_and(|controller| {
            controller.model_serving.as_deref() == Some(model_serving.name())
                && Some(controller.uid.as_str()) != uid
        });
        if is_of_namesake && uid.is_some() { Ownership::Orphaned } else { self.ownership(uid) }
    }

    /// Ownership from the point of view of the owner with this UID.
    ///
    /// Owned is an object that this owner controls and the operator marked or wrote; and a marked object
    /// without a controller, such as the output of `render` that came through GitOps.
    pub fn ownership(&self, owner_uid: Option<&str>) -> Ownership {
        let is_owned = match &self.controller {
            Some(controller) => Some(controller.uid.as_str()) == owner_uid && self.marked,
            None => self.marked,
        };
        match (is_owned, self.is_terminating) {
            (false, _) => Ownership::Foreign,
            (true, true) => Ownership::Terminating,
            (true, false) => Ownership::Owned,
        }
    }
}

impl Fingerprint {
    /// Fingerprint of a live object with the desired content.
    pub fn of_desired<S: Serialize>(metadata: &ObjectMeta, spec: &S) -> Self {
        let none = BTreeMap::new();
        Self::of(
            metadata.labels.as_ref().unwrap_or(&none),
            metadata.annotations.as_ref().unwrap_or(&none),
            controller(metadata),
            &desired_spec(spec),
        )
    }

    fn of(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        controller: Option<&OwnerReference>,
        spec: &Value,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        // These types have no maps with keys other than strings, so serialization to JSON cannot fail.
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
