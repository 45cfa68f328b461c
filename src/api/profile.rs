//! `AutoscalingProfile`: the platform team's settings, shared by many models; the one kind that is ours.
//!
//! Its definition under `crds/` is generated from here: the doc comments are what `kubectl explain` says, and the bounds, patterns and
//! rules are what the API server refuses by. Built-in defaults are this type's defaults, so that there is one place that knows them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings that many ModelServings share. The profile named `default` is for all that name no other.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autoscaling.kthena.io",
    version = "v1alpha1",
    kind = "AutoscalingProfile",
    plural = "autoscalingprofiles",
    shortname = "asp",
    status = "AutoscalingProfileStatus",
    doc = "The platform team's settings of autoscaling, shared by many ModelServings. The profile named default is for all that name no other.",
    printcolumn = r#"{"name": "Min", "type": "integer", "jsonPath": ".spec.replicas.min"}"#,
    printcolumn = r#"{"name": "Max", "type": "integer", "jsonPath": ".spec.replicas.max"}"#,
    printcolumn = r#"{"name": "Models", "type": "integer", "jsonPath": ".status.modelServings"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Prometheus", "type": "string", "priority": 1, "jsonPath": ".spec.prometheus.url"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingProfileSpec {
    /// The Prometheus that KEDA asks. Without it the operator's own --prometheus-url counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSpec>,
    /// How many ServingGroups there may be.
    pub replicas: ReplicasSpec,
    /// What is measured; with several signals the one that asks for the most ServingGroups counts.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub signals: Vec<SignalSpec>,
    /// How often KEDA asks, such as 15s.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('1h')", "message": "must be from 1s to 1h"}]))]
    pub polling_interval: String,
    /// How fast ServingGroups are added. Quick by default, since a model takes minutes to load.
    pub scale_up: ScaleUpSpec,
    /// How fast ServingGroups are removed. Slow by default, since what is removed takes minutes to come back.
    pub scale_down: ScaleDownSpec,
    /// When the last ServingGroup goes, where replicas.min is 0.
    pub scale_to_zero: ScaleToZeroSpec,
    /// The monitors that feed Prometheus. Those of the profile named default are the router's, too.
    pub monitors: MonitorsSpec,
}

impl Default for AutoscalingProfileSpec {
    fn default() -> Self {
        Self {
            prometheus: None,
            replicas: ReplicasSpec::default(),
            signals: vec![SignalSpec { name: "active-requests".to_owned(), target: "10".to_owned() }],
            polling_interval: "15s".to_owned(),
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
            scale_to_zero: ScaleToZeroSpec::default(),
            monitors: MonitorsSpec::default(),
        }
    }
}

/// The Prometheus that KEDA asks, and how.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "!(has(self.authModes) && 'bearer' in self.authModes && 'basic' in self.authModes)", "message": "authModes: bearer and basic exclude each other"}, {"rule": "!has(self.authModes) || has(self.authenticationRef)", "message": "authModes need an authenticationRef that brings the credentials"}]))]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSpec {
    /// Its base address as KEDA reaches it: http or https, no trailing slash; it may carry a path.
    #[schemars(regex(pattern = r"^https?://[^\s/?#@:]+(:[0-9]{1,5})?(/[^\s?#]*[^\s/?#])?$"), length(max = 512))]
    pub url: String,
    /// KEDA's credentials for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
    /// How KEDA uses them; may be left out where the TriggerAuthentication itself says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub auth_modes: Vec<AuthMode>,
    /// Headers of KEDA's requests, such as X-Scope-OrgID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self.all(key, !key.contains(',') && !key.contains('=') && !self[key].contains(',') && !self[key].contains('='))", "message": "KEDA cannot carry headers with ',' or '='"}]))]
    pub headers: BTreeMap<String, HeaderValue>,
    /// Whether KEDA accepts any certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsafe_ssl: bool,
}

/// A header's value.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderValue(#[schemars(length(max = 512))] pub String);

/// Credentials that KEDA looks up.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationRef {
    /// A TriggerAuthentication is looked up in each ModelServing's namespace.
    #[serde(default)]
    pub kind: AuthenticationKind,
    /// Its name.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,
}

/// Where KEDA looks credentials up.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthenticationKind {
    /// In the cluster.
    #[default]
    ClusterTriggerAuthentication,
    /// In the ModelServing's namespace.
    TriggerAuthentication,
}

/// How KEDA uses credentials.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthMode {
    /// A bearer token.
    Bearer,
    /// User and password.
    Basic,
    /// A client certificate.
    Tls,
    /// A header of its own.
    Custom,
}

/// How many ServingGroups there may be.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self.min <= self.max", "message": "min must not be greater than max"}]))]
#[serde(default)]
pub struct ReplicasSpec {
    /// The fewest; 0 lets idle models go to zero.
    #[schemars(range(min = 0))]
    pub min: i32,
    /// The most.
    #[schemars(range(min = 1))]
    pub max: i32,
}

impl Default for ReplicasSpec {
    fn default() -> Self {
        Self { min: 1, max: 10 }
    }
}

/// A signal and how much of it one ServingGroup carries.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSpec {
    /// One of active-requests, queued-requests, request-rate, output-tokens.
    #[schemars(extend("enum" = ["active-requests", "queued-requests", "request-rate", "output-tokens"]))]
    pub name: String,
    /// What one ServingGroup is expected to carry, as a quoted number from 0.001 on.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,3})?$"), length(max = 13))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "double(self) >= 0.001", "message": "must be at least 0.001"}]))]
    pub target: String,
}

/// How fast ServingGroups are added.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleUpSpec {
    /// How long recommendations are looked back on, up to 1h; the lowest of them counts.
    #[schemars(regex(pattern = "^[0-9]{1,4}[smh]$"), length(max = 5))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('1h')", "message": "must be at most 1h"}]))]
    pub stabilization_window: String,
    /// Limits of speed.
    #[schemars(length(min = 1, max = 4))]
    pub policies: Vec<PolicySpec>,
    /// Which of the limits counts.
    pub select: SelectSpec,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        let policy = |kind, value| PolicySpec { kind, value, period: "60s".to_owned() };
        Self {
            stabilization_window: "0s".to_owned(),
            policies: vec![policy(PolicyType::Pods, 2), policy(PolicyType::Percent, 100)],
            select: SelectSpec::Max,
        }
    }
}

/// How fast ServingGroups are removed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDownSpec {
    /// How long recommendations are looked back on, up to 1h; the highest of them counts.
    #[schemars(regex(pattern = "^[0-9]{1,4}[smh]$"), length(max = 5))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('1h')", "message": "must be at most 1h"}]))]
    pub stabilization_window: String,
    /// Limits of speed.
    #[schemars(length(min = 1, max = 4))]
    pub policies: Vec<PolicySpec>,
    /// Which of the limits counts.
    pub select: SelectSpec,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        let policies = vec![PolicySpec { kind: PolicyType::Pods, value: 1, period: "2m".to_owned() }];
        Self { stabilization_window: "10m".to_owned(), policies, select: SelectSpec::Max }
    }
}

/// Which of several limits of speed counts.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectSpec {
    /// The one that allows the most.
    Max,
    /// The one that allows the least.
    Min,
    /// None: no change in this direction at all.
    Disabled,
}

/// How much may change within a period.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The unit of the value: the HPA's Pods are ServingGroups here.
    #[serde(rename = "type")]
    pub kind: PolicyType,
    /// How many.
    #[schemars(range(min = 1))]
    pub value: i32,
    /// In what time, from 1s to 30m.
    #[schemars(regex(pattern = "^[0-9]{1,4}[sm]$"), length(max = 5))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('30m')", "message": "must be from 1s to 30m"}]))]
    pub period: String,
}

/// The unit of a policy's value.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyType {
    /// ServingGroups.
    Pods,
    /// Percent of what is there.
    Percent,
}

/// When the last ServingGroup goes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleToZeroSpec {
    /// The time without demand, up to 24h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('24h')", "message": "must be at most 24h"}]))]
    pub cooldown: String,
    /// The same for a model that is new, up to 24h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) <= duration('24h')", "message": "must be at most 24h"}]))]
    pub initial_cooldown: String,
}

impl Default for ScaleToZeroSpec {
    fn default() -> Self {
        Self { cooldown: "30m".to_owned(), initial_cooldown: "15m".to_owned() }
    }
}

/// The monitors that feed Prometheus.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorsSpec {
    /// Labels by which your Prometheus selects its monitors, such as release: kube-prometheus-stack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How often Prometheus scrapes, from 1s to 30s.
    #[schemars(regex(pattern = "^[0-9]{1,2}s$"), length(max = 3))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "duration(self) >= duration('1s') && duration(self) <= duration('30s')", "message": "must be from 1s to 30s"}]))]
    pub interval: String,
}

impl Default for MonitorsSpec {
    fn default() -> Self {
        Self { labels: BTreeMap::new(), interval: "15s".to_owned() }
    }
}

/// What the operator says of a profile.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingProfileStatus {
    /// The generation that the rest speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many opted-in ModelServings use it.
    pub model_servings: i32,
    /// Ready: whether it can be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
