//! `ScaledObject`: the metrics that KEDA queries and the object that it scales.
//!
//! The types contain only the fields that the operator sets. No field may hold a value that KEDA's own types
//! omit as empty: KEDA writes the whole object back once, and a field that it omits would change its field
//! manager.
//!
//! Source: KEDA `apis/keda/v1alpha1/scaledobject_types.go`.

use std::collections::BTreeMap;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Pause;

/// The fields of a ScaledObject's spec that the operator sets.
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
    /// Scaled object, through its scale subresource.
    pub scale_target_ref: ScaleTargetRef,
    /// Interval between KEDA's queries, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polling_interval: Option<i32>,
    /// Time without activity before scaling to zero, in seconds; unused with a minimum above zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_period: Option<i32>,
    /// The same before the first activity, in seconds; KEDA 2.14 or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_cooldown_period: Option<i32>,
    /// Minimum number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replica_count: Option<i32>,
    /// Maximum number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replica_count: Option<i32>,
    /// Number of replicas while the triggers return no data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Settings that KEDA copies to the HPA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// Metrics; an atomic list.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
}

/// Reference to the scaled object.
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

/// Number of replicas while the triggers return no data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Number of consecutive failures before the fallback applies.
    #[serde(default)]
    pub failure_threshold: i32,
    /// Number of replicas.
    #[serde(default)]
    pub replicas: i32,
    /// Meaning of `replicas`; KEDA 2.17 or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<FallbackBehavior>,
}

/// Meaning of the number of replicas of a fallback.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FallbackBehavior {
    /// The number of replicas.
    Static,
    /// The current number of replicas.
    CurrentReplicas,
    /// The current number of replicas, or the fallback's if it is higher.
    CurrentReplicasIfHigher,
    /// The current number of replicas, or the fallback's if it is lower.
    CurrentReplicasIfLower,
}

/// Settings that KEDA copies to the HPA.
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
    /// Scaling speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
}

/// Scaling speed of the HPA in both directions.
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

/// Scaling speed of the HPA in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Time over which the HPA considers recommendations, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabilization_window_seconds: Option<i32>,
    /// `Max`, `Min` or `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<String>,
    /// Limits of the speed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<ScalingPolicy>,
}

/// One limit of the change within a period.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// `Pods` (which are ServingGroups here) or `Percent`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Number of pods, or percent.
    #[serde(default)]
    pub value: i32,
    /// Length of the period, in seconds.
    #[serde(default)]
    pub period_seconds: i32,
}

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Name of KEDA's scaler.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Unique within the ScaledObject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Conversion of the value to a number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<MetricType>,
    /// Settings of the scaler.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Credentials of the scaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationReference>,
}

/// Reference to KEDA's credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuthenticationReference {
    /// `TriggerAuthentication` or `ClusterTriggerAuthentication`.
    #[serde(default)]
    pub kind: String,
    /// Name of the credentials.
    #[serde(default)]
    pub name: String,
}

/// Conversion of a metric's value to a number of replicas.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricType {
    /// The value is a total, which the HPA divides by the target.
    #[default]
    AverageValue,
    /// The value is a level; the HPA multiplies the number of replicas by its ratio to the target.
    Value,
}

/// Annotation of a ScaledObject by which KEDA pauses; `paused-scale-in` and `paused-scale-out` since 2.18.
pub const fn pause_annotation(pause: Pause) -> &'static str {
    match pause {
        Pause::All => "autoscaling.keda.sh/paused",
        Pause::ScaleIn => "autoscaling.keda.sh/paused-scale-in",
        Pause::ScaleOut => "autoscaling.keda.sh/paused-scale-out",
    }
}
