//! Roles that are scaled: ModelServingRoles, their ScaledObjects and HPAs, and the instances that exist.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube_derive::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::{
    HpaDigest, OwnedObject, ScaledObjectDigest,
    spec::{LiveObject, LiveSpec},
};
use crate::api::{
    BestEffort, LenientDe, fields,
    metadata::{LeanMetadata, ManagedMetadata, OwnMetadata},
    model_serving_role::{ModelServingRole, ModelServingRoleStatus},
};

/// Most instances of a model whose roles are scaled, in all ServingGroups together. Their pods are listed every few seconds, so a
/// larger number would let one tenant fill the operator's memory.
pub const INSTANCES_MAX: u32 = 1_000;

/// A ModelServingRole as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ModelServingRole, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveRole {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    spec: LiveSpec,
    own: OwnMetadata,
    status: ModelServingRoleStatus,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<ManagedMetadata>,
    spec: BestEffort<Value>,
    status: BestEffort<ModelServingRoleStatus>,
}

fields!(Wire { "metadata" => metadata, "spec" => spec, "status" => status });

impl From<LenientDe<Wire>> for LiveRole {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        Self {
            spec: LiveSpec::new(wire.spec.0.unwrap_or_default(), &wire.metadata),
            own: wire.metadata.own(),
            metadata: wire.metadata.into(),
            status: wire.status.0.unwrap_or_default(),
        }
    }
}

impl LiveObject for LiveRole {
    fn spec(&self) -> &LiveSpec {
        &self.spec
    }

    fn owned_object(&self) -> OwnedObject {
        OwnedObject::new(&self.metadata, &self.own, &self.spec)
    }
}

/// Digest of a ModelServingRole.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleDigest {
    /// Owner, and fingerprint of the fields that the operator writes.
    pub owned: OwnedObject,
    /// Name of the ModelServing.
    pub model_serving: String,
    /// Name of the role.
    pub role: String,
    /// Number of instances that the HPA asks for; `None` if it is no number.
    pub replicas: Option<i32>,
    /// Status as last written.
    pub status: ModelServingRoleStatus,
}

impl RoleDigest {
    /// A condition of the status.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

impl From<&LiveRole> for RoleDigest {
    fn from(live: &LiveRole) -> Self {
        let text = |field: &str| {
            let value = live.spec.value().get(field).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let replicas = live.spec.value().get("replicas").and_then(Value::as_i64);
        Self {
            owned: live.owned_object(),
            model_serving: text("modelServing"),
            role: text("role"),
            replicas: replicas.and_then(|replicas| i32::try_from(replicas).ok()),
            status: live.status.clone(),
        }
    }
}

/// A role that is scaled, or was.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedRole {
    /// Name of the role.
    pub name: String,
    /// Name of its ModelServingRole and of its ScaledObject.
    pub object_name: String,
    /// Object with the name of its ModelServingRole, of any owner.
    pub object: Option<RoleDigest>,
    /// Object with the name of its ScaledObject, of any owner.
    pub scaled_object: Option<ScaledObjectDigest>,
    /// HPA that KEDA creates for that ScaledObject.
    pub hpa: Option<HpaDigest>,
    /// `true` if KEDA has reported nothing on its ScaledObject although it has existed for minutes.
    pub keda_is_silent: bool,
}

/// Result of counting the instances of a model's roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InstanceCount {
    /// Its roles are not scaled, it has more than [`INSTANCES_MAX`] instances, or its pods are not among what was read.
    #[default]
    NotCounted,
    /// The API server forbids listing its pods.
    Forbidden,
    /// The instances that exist.
    Counted(RoleInstances),
}

/// Number of instances of each role in the ServingGroup that has the fewest; a role without any is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleInstances(BTreeMap<String, i32>);

/// Label of the ServingGroup of a pod.
const GROUP: &str = "modelserving.volcano.sh/group-name";
/// Label of the role of a pod.
const ROLE: &str = "modelserving.volcano.sh/role";

impl RoleInstances {
    /// Counts the entry pods that a ModelServing controls, one for each instance. Those that are being deleted are gone.
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a ObjectMeta>, owner_uid: Option<&str>) -> Self {
        let mut groups: BTreeMap<&str, BTreeMap<&str, i32>> = BTreeMap::new();
        for pod in pods.into_iter().filter(|pod| is_of(pod, owner_uid)) {
            let label = |key: &str| pod.labels.as_ref()?.get(key).map(String::as_str);
            if let (Some(group), Some(role)) = (label(GROUP), label(ROLE)) {
                *groups.entry(group).or_default().entry(role).or_default() += 1;
            }
        }
        let mut least: Option<BTreeMap<String, i32>> = None;
        for roles in groups.into_values() {
            least = Some(match least {
                None => roles.into_iter().map(|(role, count)| (role.to_owned(), count)).collect(),
                Some(mut least) => {
                    for (role, count) in &mut least {
                        *count = roles.get(role.as_str()).copied().unwrap_or_default().min(*count);
                    }
                    least
                }
            });
        }
        Self(least.unwrap_or_default())
    }

    /// The fields of a pod that decide whether it counts.
    #[must_use]
    pub fn fields_read(pod: ObjectMeta) -> ObjectMeta {
        let labels = pod.labels.unwrap_or_default().into_iter();
        let labels = labels.filter(|(key, _)| [GROUP, ROLE].contains(&key.as_str()));
        ObjectMeta {
            labels: Some(labels.collect()),
            owner_references: pod.owner_references,
            deletion_timestamp: pod.deletion_timestamp,
            ..ObjectMeta::default()
        }
    }

    /// Number of instances of a role.
    pub fn get(&self, role: &str) -> i32 {
        self.0.get(role).copied().unwrap_or_default()
    }
}

fn is_of(pod: &ObjectMeta, owner_uid: Option<&str>) -> bool {
    let mut owners = pod.owner_references.iter().flatten();
    pod.deletion_timestamp.is_none()
        && owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == owner_uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(group: &str, role: &str, extra: &Value) -> ObjectMeta {
        let owner = json!({"apiVersion": "v1", "kind": "ModelServing", "name": "chat", "uid": "u", "controller": true});
        let mut pod = json!({"labels": {GROUP: group, ROLE: role}, "ownerReferences": [owner]});
        pod.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn counts_the_instances_of_the_smallest_group() {
        let alive = json!({});
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let foreign = json!({"ownerReferences": []});
        let pods = [
            pod("chat-0", "prefill", &alive),
            pod("chat-0", "decode", &alive),
            pod("chat-0", "decode", &alive),
            pod("chat-1", "decode", &alive),
            pod("chat-1", "prefill", &alive),
            pod("chat-1", "decode", &deleted),
            pod("chat-1", "decode", &foreign),
        ];
        let pods = pods.map(RoleInstances::fields_read);
        let instances = RoleInstances::of(&pods, Some("u"));
        assert_eq!((instances.get("prefill"), instances.get("decode"), instances.get("other")), (1, 1, 0));
        // A ServingGroup without any instance of the role has the fewest.
        let lacking = [pods[0].clone(), pods[1].clone(), pods[3].clone()];
        assert_eq!(RoleInstances::of(&lacking, Some("u")).get("prefill"), 0);
        assert_eq!(RoleInstances::of(&[], Some("u")), RoleInstances::default());
    }
}
