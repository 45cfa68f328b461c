//! `ScaledObject`: tells KEDA what to measure and what to scale.
//!
//! Only fields that we set are here. None of them may hold a value that KEDA's own types leave out as empty:
//! KEDA writes the whole object back once, and what it drops there would change owner.
//!
//! Source: KEDA `apis/keda/v1alpha1/scaledobject_types.go`.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What we set of a ScaledObject's spec.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledObject",
    plural = "scaledobjects",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectSpec {
    /// What is scaled, through its scale subresource.
    pub scale_target_ref: ScaleTargetRef,
    /// How often KEDA asks, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polling_interval: Option<i32>,
    /// Time without activity before scaling to zero, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_period: Option<i32>,
    /// The same before the first activity, in seconds; KEDA 2.14 or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cooldown_period: Option<i32>,
    /// The fewest replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replica_count: Option<i32>,
    /// The most replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replica_count: Option<i32>,
    /// What is assumed while the triggers give no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Settings that KEDA hands to the HPA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// What is measured; an atomic list.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
}

/// What is scaled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// Group and version.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name, in the ScaledObject's namespace.
    #[serde(default)]
    pub name: String,
}

/// What is assumed while the triggers give no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// After how many failures in a row.
    #[serde(default)]
    pub failure_threshold: i32,
    /// How many replicas.
    #[serde(default)]
    pub replicas: i32,
    /// How `replicas` is read; KEDA 2.17 or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<FallbackBehavior>,
}

/// How the number of replicas of a fallback is read.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FallbackBehavior {
    /// That many.
    Static,
    /// As many as there are.
    CurrentReplicas,
    /// As many as there are, and at least that many.
    CurrentReplicasIfHigher,
    /// As many as there are, and at most that many.
    CurrentReplicasIfLower,
}

/// Settings that KEDA hands to the HPA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// The HPA that KEDA generates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizontal_pod_autoscaler_config: Option<HpaConfig>,
}

/// The HPA that KEDA generates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HpaConfig {
    /// Its speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
}

/// The HPA's speed in both directions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Adding replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<Rules>,
    /// Removing replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<Rules>,
}

/// The HPA's speed in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// How long recommendations are looked back on, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabilization_window_seconds: Option<i32>,
    /// `Max`, `Min` or `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<String>,
    /// Limits of speed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ScalingPolicy>,
}

/// One limit of speed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// `Pods` (which are ServingGroups here) or `Percent`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// How many.
    #[serde(default)]
    pub value: i32,
    /// In how many seconds.
    #[serde(default)]
    pub period_seconds: i32,
}

/// One thing that is measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// KEDA's name of the scaler.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Unique within the ScaledObject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the value becomes a number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<MetricType>,
    /// The scaler's own settings.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Credentials for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationReference>,
    /// What somebody else added; never written, but seen, since the list belongs to one owner as a whole.
    #[serde(flatten)]
    pub foreign: BTreeMap<String, serde_json::Value>,
}

/// Credentials that KEDA looks up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthenticationReference {
    /// `TriggerAuthentication` or `ClusterTriggerAuthentication`.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// How a metric's value becomes a number of replicas.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricType {
    /// The value is a total: divided by the target.
    #[default]
    AverageValue,
    /// The value is a level: its ratio to the target multiplies the replicas.
    Value,
}
