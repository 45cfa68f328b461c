//! `ModelServing`: the workload that serves a model; `spec.replicas` counts its ServingGroups.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::api::{lenient::lenient, metadata};

/// The part of a ModelServing that autoscaling depends on.
///
/// Source: Kthena `pkg/apis/workload/v1alpha1/model_serving_types.go`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ModelServing {
    /// Name, identity, owners, and our annotations.
    #[serde(deserialize_with = "metadata::lean")]
    pub metadata: ObjectMeta,
    /// What its users want.
    #[serde(default)]
    pub spec: ModelServingSpec,
    /// What Kthena reports.
    #[serde(default)]
    pub status: ModelServingStatus,
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
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Role {
    /// Unique within the ServingGroup.
    #[serde(default)]
    pub name: String,
}

/// What Kthena reports.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelServingStatus {
    /// ServingGroups, those that are coming and going included.
    #[serde(default, deserialize_with = "lenient")]
    pub replicas: Option<i32>,
    /// Selects one pod per ServingGroup; the HPA does nothing without it.
    #[serde(default, deserialize_with = "lenient")]
    pub label_selector: Option<String>,
    /// Our own condition, if it is there; all others stay with their owners.
    #[serde(default, rename = "conditions", deserialize_with = "our_condition")]
    pub autoscaling_ready: Option<Condition>,
}

/// The type of our condition on a ModelServing.
pub const AUTOSCALING_READY: &str = "AutoscalingReady";

fn our_condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Condition>, D::Error> {
    let conditions: Option<Vec<serde_json::Value>> = lenient(deserializer)?;
    Ok(conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").is_some_and(|t| t == AUTOSCALING_READY))
        .and_then(|condition| serde_json::from_value(condition).ok()))
}

impl ModelServing {
    /// The API group.
    pub const GROUP: &'static str = "workload.serving.volcano.sh";
    /// The API version within the group.
    pub const VERSION: &'static str = "v1alpha1";
    /// The kind.
    pub const KIND: &'static str = "ModelServing";
    /// Group and version as `apiVersion` writes them.
    pub const API_VERSION: &'static str = "workload.serving.volcano.sh/v1alpha1";

    /// The number of ServingGroups that are wanted now.
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// The label selector that reached the scale subresource, if any.
    pub fn label_selector(&self) -> Option<&str> {
        self.status.label_selector.as_deref().filter(|selector| !selector.is_empty())
    }
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
        "modelservings".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
