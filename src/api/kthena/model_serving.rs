//! `ModelServing`: the workload that serves a model; `spec.replicas` counts its ServingGroups.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::{
    api::{
        lenient::lenient,
        metadata::{LeanMetadata, OPERATOR},
    },
    intent::{DEFAULT_PROFILE, MODEL_NAME, PROFILE},
};

/// The type of our condition on a ModelServing.
pub const AUTOSCALING_READY: &str = "AutoscalingReady";

/// The part of a ModelServing that autoscaling depends on.
///
/// Source: Kthena `pkg/apis/workload/v1alpha1/model_serving_types.go`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Wire")]
pub struct ModelServing {
    /// Name, identity, owners, and our annotations.
    pub metadata: ObjectMeta,
    /// What its users want.
    pub spec: ModelServingSpec,
    /// What Kthena reports.
    pub status: ModelServingStatus,
    /// Whether `status.labelSelector` is what this operator wrote.
    pub selector_is_ours: bool,
    /// Who set `spec.replicas` last.
    pub replicas_set_by: ReplicasWriter,
}

/// Who set the number of ServingGroups last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReplicasWriter {
    /// Nobody that is known.
    #[default]
    Unknown,
    /// An autoscaler, or a person, by the scale subresource.
    Scale,
    /// Whoever has this field manager, in the ModelServing itself.
    Manager(String),
}

/// What its users want.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ModelServingSpec {
    /// The number of ServingGroups; 1 where it is absent.
    #[serde(default, deserialize_with = "lenient")]
    pub replicas: Option<i32>,
    /// What each ServingGroup consists of.
    #[serde(default)]
    pub template: ServingGroupTemplate,
}

/// What each ServingGroup consists of.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServingGroupTemplate {
    /// The roles; Kthena's own label selector speaks of the first.
    #[serde(default)]
    pub roles: Vec<Role>,
}

/// One role of a ServingGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Unique within the ServingGroup.
    #[serde(default)]
    pub name: String,
    /// Labels of its entry pods, besides those that Kthena adds.
    #[serde(default, rename = "entryTemplate", deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Default, Deserialize)]
    struct Template {
        #[serde(default)]
        metadata: Metadata,
    }

    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    Ok(lenient::<D, Template>(deserializer)?.unwrap_or_default().metadata.labels)
}

/// What Kthena reports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelServingStatus {
    /// Selects one pod per ServingGroup; the HPA does nothing without it.
    #[serde(default, deserialize_with = "lenient")]
    pub label_selector: Option<String>,
    /// How many ServingGroups there are, those that come and go included.
    #[serde(default, deserialize_with = "lenient")]
    pub replicas: Option<i32>,
    /// How many ServingGroups can serve.
    #[serde(default, deserialize_with = "lenient")]
    pub available_replicas: Option<i32>,
    /// Our own condition, if it is there; all others stay with their owners.
    #[serde(default, rename = "conditions", deserialize_with = "our_condition")]
    pub autoscaling_ready: Option<Condition>,
}

fn our_condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Condition>, D::Error> {
    let conditions: Option<Vec<serde_json::Value>> = lenient(deserializer)?;
    Ok(conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").is_some_and(|t| t == AUTOSCALING_READY))
        .and_then(|condition| serde_json::from_value(condition).ok()))
}

/// A ModelServing as the API server sends it.
#[derive(Deserialize)]
struct Wire {
    metadata: LeanMetadata<ManagedFields>,
    #[serde(default)]
    spec: ModelServingSpec,
    #[serde(default)]
    status: ModelServingStatus,
}

/// Of a manager's fields, those that tell who wrote the selector, and who the number of ServingGroups.
#[derive(Deserialize)]
struct ManagedFields {
    #[serde(default, rename = "f:status")]
    status: Option<ManagedSelector>,
    #[serde(default, rename = "f:spec")]
    spec: Option<ManagedReplicas>,
}

#[derive(Deserialize)]
struct ManagedReplicas {
    #[serde(default, rename = "f:replicas")]
    replicas: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ManagedSelector {
    #[serde(default, rename = "f:labelSelector")]
    label_selector: Option<IgnoredAny>,
}

impl From<Wire> for ModelServing {
    fn from(wire: Wire) -> Self {
        let wrote_selector = |fields: &ManagedFields| fields.status.as_ref().is_some_and(|status| status.label_selector.is_some());
        let wrote_replicas = |fields: &ManagedFields| fields.spec.as_ref().is_some_and(|spec| spec.replicas.is_some());
        let selector_is_ours = wire.metadata.fields_of(OPERATOR).any(wrote_selector);
        let replicas_set_by = wire.metadata.writers().find(|(_, _, fields)| wrote_replicas(fields));
        let replicas_set_by = match replicas_set_by {
            None => ReplicasWriter::Unknown,
            Some((_, Some("scale"), _)) => ReplicasWriter::Scale,
            Some((manager, ..)) => ReplicasWriter::Manager(manager.to_owned()),
        };
        Self { metadata: wire.metadata.into(), spec: wire.spec, status: wire.status, selector_is_ours, replicas_set_by }
    }
}

impl ModelServing {
    /// The API group.
    pub const GROUP: &'static str = "workload.serving.volcano.sh";
    /// The API version within the group.
    pub const VERSION: &'static str = "v1alpha1";
    /// The kind.
    pub const KIND: &'static str = "ModelServing";
    /// The name of the resource in paths and roles.
    pub const PLURAL: &'static str = "modelservings";
    /// Group and version as `apiVersion` writes them.
    pub const API_VERSION: &'static str = "workload.serving.volcano.sh/v1alpha1";

    /// The number of ServingGroups that are wanted now.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// Whether it asks for autoscaling, correctly or not.
    pub fn is_opted_in(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MODEL_NAME))
    }

    /// The name of the profile that counts for it.
    pub fn profile(&self) -> &str {
        self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PROFILE)).map_or(DEFAULT_PROFILE, String::as_str)
    }

    /// The model names that it opted in with, as they were written.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        let annotation = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(MODEL_NAME));
        annotation.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim_matches(' '))
    }

    /// Whether entry pods of a role have this label.
    ///
    /// Kthena adds labels that differ between ServingGroups and revisions; for those any pod's value will do.
    /// Source: Kthena `pkg/model-serving-controller/utils/utils.go`.
    pub fn labels_entry_pods(&self, role: &Role, key: &str, value: &str) -> bool {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let is_instance_of = |of: &str| value.strip_prefix(of).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_number);
        match key.strip_prefix("modelserving.volcano.sh/") {
            Some("name") => value == name,
            Some("entry") => value == "true",
            Some("role") => value == role.name,
            Some("role-id") => is_instance_of(&role.name),
            Some("group-name") => is_instance_of(name),
            Some("revision" | "role-template-hash") => true,
            _ => role.labels.get(key).is_some_and(|found| found == value),
        }
    }

    /// The label selector that reached the scale subresource, if any.
    pub fn label_selector(&self) -> Option<&str> {
        self.status.label_selector.as_deref().filter(|selector| !selector.is_empty())
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Resource for ModelServing {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Self::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        Self::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        Self::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        Self::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_little_and_fails_at_nothing() {
        let read: ModelServing = serde_json::from_value(json!({
            "metadata": {
                "name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"team": "a"},
                "annotations": {"kthena.io/model-name": "llama", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [
                    {"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "kthena-keda", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {"f:labelSelector": {}}}},
                ],
            },
            "spec": {"replicas": "many", "template": {"roles": [{"name": "prefill", "entryTemplate": {}}]}},
            "status": {"labelSelector": "a=b", "conditions": [{"type": "Available"}, {
                "type": "AutoscalingReady", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap();
        assert_eq!(read.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["kthena.io/model-name"]);
        assert_eq!((read.metadata.labels.as_ref(), read.metadata.managed_fields.as_ref()), (None, None));
        assert_eq!(read.replicas(), 1);
        assert_eq!(read.label_selector(), Some("a=b"));
        assert!(read.selector_is_ours);
        assert_eq!(read.status.autoscaling_ready.unwrap().reason, "Pending");
    }

    #[test]
    fn a_selector_of_kthena_is_not_ours() {
        let read: ModelServing = serde_json::from_value(json!({
            "metadata": {"name": "chat", "managedFields": [
                {"manager": "kthena-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {"f:labelSelector": {}}}},
                {"manager": "kthena-keda", "operation": "Update", "fieldsV1": {"f:status": {"f:conditions": {}}}},
            ]},
        }))
        .unwrap();
        assert!(!read.selector_is_ours);
    }
}
