//! `ModelServingRole`: the scale subresource of one role of a ModelServing.
//!
//! `/scale` of a ModelServing knows one number, that of its ServingGroups. KEDA and the HPA scale an object of this
//! kind instead, and the operator carries its number over to the role. The CRD under `crds/` is generated from these
//! types.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Type of the condition of a ModelServingRole: the ModelServing has the number of the role.
pub const APPLIED: &str = "Applied";

/// One role of a ModelServing, as a scale target.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "autoscaling.kthena.io",
    version = "v1alpha1",
    kind = "ModelServingRole",
    plural = "modelservingroles",
    shortname = "msr",
    namespaced,
    status = "ModelServingRoleStatus",
    scale = r#"{"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}"#,
    doc = "One role of a ModelServing, such as prefill or decode, as the target of a ScaledObject. kthena-keda creates it \
           for each role of the annotation autoscaling.kthena.io/roles, and carries its number over to the ModelServing.",
    printcolumn = r#"{"name": "ModelServing", "type": "string", "jsonPath": ".spec.modelServing"}"#,
    printcolumn = r#"{"name": "Role", "type": "string", "jsonPath": ".spec.role"}"#,
    printcolumn = r#"{"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}"#,
    printcolumn = r#"{"name": "Current", "type": "integer", "jsonPath": ".status.replicas"}"#,
    printcolumn = r#"{"name": "Applied", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Applied')].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.modelServing == oldSelf.modelServing && self.role == oldSelf.role",
    "message": "modelServing and role are immutable; delete the object, and its owner creates another one",
})]))]
pub struct ModelServingRoleSpec {
    /// Name of the ModelServing, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub model_serving: String,
    /// Name of the role in spec.template.roles of the ModelServing.
    #[schemars(regex(pattern = "^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"), length(min = 1, max = 12))]
    pub role: String,
    /// Number of instances of the role in each ServingGroup, as the HPA sets it.
    #[schemars(range(min = 1))]
    pub replicas: i32,
}

/// Observed state of a role.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelServingRoleStatus {
    /// Number of instances of the role that exist in the ServingGroup that has the fewest.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Label selector of the entry pods of the role.
    pub selector: String,
    /// Conditions: Applied is True while the ModelServing has the number of the role, within its bounds and ratio.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl ModelServingRole {
    /// Group and version, as in `apiVersion`.
    pub const API_VERSION: &'static str = "autoscaling.kthena.io/v1alpha1";
    /// Kind.
    pub const KIND: &'static str = "ModelServingRole";
    /// API group.
    pub const GROUP: &'static str = "autoscaling.kthena.io";
    /// Name of the resource in API paths and RBAC rules.
    pub const PLURAL: &'static str = "modelservingroles";
}
