//! `AutoscalingProfile`: the platform team's settings, shared by many models; the one kind that is ours.
//!
//! Every field may be left out; what is left out keeps its built-in default. Unknown fields are refused, so that no typo passes silently.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A profile as it stands in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingProfile {
    /// Group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The settings.
    pub spec: AutoscalingProfileSpec,
}

impl AutoscalingProfile {
    /// Group and version as `apiVersion` writes them.
    pub const API_VERSION: &'static str = "autoscaling.kthena.io/v1alpha1";
    /// The kind.
    pub const KIND: &'static str = "AutoscalingProfile";
}

/// Settings that many models share.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AutoscalingProfileSpec {
    /// The Prometheus that KEDA asks.
    pub prometheus: Option<PrometheusSpec>,
    /// How many ServingGroups there may be.
    pub replicas: ReplicasSpec,
    /// What is measured.
    pub signals: Option<Vec<SignalSpec>>,
    /// How often KEDA asks, such as `15s`.
    pub polling_interval: Option<String>,
    /// How fast ServingGroups are added.
    pub scale_up: DirectionSpec,
    /// How fast ServingGroups are removed.
    pub scale_down: DirectionSpec,
    /// When the last ServingGroup goes, where `replicas.min` is 0.
    pub scale_to_zero: ScaleToZeroSpec,
    /// The monitors that feed Prometheus.
    pub monitors: MonitorsSpec,
}

/// The Prometheus that KEDA asks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusSpec {
    /// Its base address, without a trailing slash.
    pub url: String,
}

/// How many ServingGroups there may be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplicasSpec {
    /// The fewest.
    pub min: Option<i32>,
    /// The most.
    pub max: Option<i32>,
}

/// A signal and how much of it one ServingGroup carries.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignalSpec {
    /// The name of a built-in signal.
    pub name: String,
    /// What one ServingGroup is expected to carry.
    pub target: String,
}

/// One direction of scaling.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectionSpec {
    /// How long recommendations are looked back on, such as `10m`.
    pub stabilization_window: Option<String>,
    /// Limits of speed.
    pub policies: Option<Vec<PolicySpec>>,
}

/// How much may change within a period.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// The unit of the value: ServingGroups are the HPA's `Pods`.
    #[serde(rename = "type")]
    pub kind: PolicyType,
    /// How many.
    pub value: i32,
    /// In what time, such as `60s`.
    pub period: String,
}

/// The unit of a policy's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PolicyType {
    /// ServingGroups.
    Pods,
    /// Percent of what is there.
    Percent,
}

/// When the last ServingGroup goes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScaleToZeroSpec {
    /// The time without demand, such as `30m`.
    pub cooldown: Option<String>,
    /// The same for a model that is new.
    pub initial_cooldown: Option<String>,
}

/// The monitors that feed Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MonitorsSpec {
    /// Labels by which the Prometheus selects its monitors.
    pub labels: Option<BTreeMap<String, String>>,
    /// How often Prometheus scrapes, such as `15s`.
    pub interval: Option<String>,
}
