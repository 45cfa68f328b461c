//! `AutoscalingProfile`: the platform team's settings, shared by many models; the one kind that is ours.
//!
//! Its definition under `crds/` is generated from here: the doc comments are what `kubectl explain` says, and the bounds, patterns and
//! rules are what the API server refuses by. Built-in defaults are this type's defaults, so that there is one place that knows them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::keda::{FallbackBehavior, MetricType};

/// Settings that many ModelServings share. The profile named `default` is for all that name no other.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
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
#[schemars(extend("x-kubernetes-validations" = [{"rule": "size(self.signals) > 0 || (has(self.customSignals) && size(self.customSignals) > 0)", "fieldPath": ".signals", "message": "nothing is measured: give at least one signal, or one of customSignals"}]))]
pub struct AutoscalingProfileSpec {
    /// The Prometheus that KEDA asks. Without it the operator's own --prometheus-url counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSpec>,
    /// Where kthena-router runs, if not where the operator was told by --router-namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterSpec>,
    /// How many ServingGroups there may be.
    pub replicas: ReplicasSpec,
    /// What is measured; with several signals the one that asks for the most ServingGroups counts.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub signals: Vec<SignalSpec>,
    /// Queries of your own, measured beside the signals, unless a ModelServing's own list of signals leaves them out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub custom_signals: Vec<CustomSignalSpec>,
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
    /// What KEDA assumes while Prometheus gives no answer; without it the count stays as it is. Left out where replicas.min is 0, since
    /// KEDA would wake every sleeping model then, and where KEDA is older than 2.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
    /// The monitors that feed Prometheus. Those of the profile named default are the router's, too.
    pub monitors: MonitorsSpec,
}

impl Default for AutoscalingProfileSpec {
    fn default() -> Self {
        Self {
            prometheus: None,
            router: None,
            replicas: ReplicasSpec::default(),
            signals: vec![SignalSpec { name: "active-requests".to_owned(), target: "10".to_owned() }],
            custom_signals: Vec::new(),
            polling_interval: "15s".to_owned(),
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
            scale_to_zero: ScaleToZeroSpec::default(),
            fallback: None,
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
    #[schemars(
        regex(pattern = r"^https?://[^\s/?#@:]+(:[0-9]{1,5})?(/[^\s?#]*[^\s/?#])?$"),
        length(max = 512)
    )]
    pub url: String,
    /// KEDA's credentials for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
    /// How KEDA uses them; KEDA ignores the credentials without it. May be left out only where the TriggerAuthentication itself brings
    /// the modes, or a pod identity.
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
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthenticationRef {
    /// A TriggerAuthentication is looked up in each ModelServing's namespace.
    #[serde(default)]
    pub kind: AuthenticationKind,
    /// Its name.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,
}

/// Where KEDA looks credentials up.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthenticationKind {
    /// In the cluster.
    #[default]
    ClusterTriggerAuthentication,
    /// In the ModelServing's namespace.
    TriggerAuthentication,
}

/// How KEDA uses credentials.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Where kthena-router runs.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouterSpec {
    /// Its namespace. Queries look there; a router that is not in the operator's own --router-namespace needs a monitor of yours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// A query that answers one value while the router is scraped, and nothing while it is not: tells no load from no data. By default
    /// derived from the Service or PodMonitor that is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub presence_query: Option<String>,
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
    /// One of active-requests, queued-requests, request-rate, output-tokens, engine-queue, engine-running, kv-cache.
    #[schemars(extend("enum" = ["active-requests", "queued-requests", "request-rate", "output-tokens", "engine-queue", "engine-running", "kv-cache"]))]
    pub name: String,
    /// What one ServingGroup is expected to carry, as a quoted number from 0.001 on.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,3})?$"), length(max = 13))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "double(self) >= 0.001", "message": "must be at least 0.001"}]))]
    pub target: String,
}

/// A query of the platform team's own. It runs with KEDA's credentials, over everybody's series.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomSignalSpec {
    /// The name by which ModelServings may ask for it; none of the built-in signals'.
    #[schemars(regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"), length(min = 1, max = 63))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "!(self in ['active-requests', 'queued-requests', 'request-rate', 'output-tokens', 'engine-queue', 'engine-running', 'kv-cache', 'activation'])", "message": "is the name of a built-in signal"}]))]
    pub name: String,
    /// PromQL that ends in one value. {{model}}, {{namespace}} and {{name}} become quoted strings; {{model}} stands after = or != for
    /// the one model name, after =~ or !~ for all names, adapters included.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
    /// What one ServingGroup is expected to carry, as a quoted number from 0.001 on.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,3})?$"), length(max = 13))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "double(self) >= 0.001", "message": "must be at least 0.001"}]))]
    pub target: String,
    /// AverageValue for a total over the model. Value for a level such as a latency: the HPA multiplies the number of ready ServingGroups
    /// then, and scales to the minimum while none is ready.
    #[serde(default)]
    pub metric_type: MetricType,
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
    /// How much demand wakes a model that sleeps: more than this many requests and tokens within two minutes, as a quoted number.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,3})?$"), length(max = 13))]
    pub activation: String,
}

impl Default for ScaleToZeroSpec {
    fn default() -> Self {
        Self { cooldown: "30m".to_owned(), initial_cooldown: "15m".to_owned(), activation: "0".to_owned() }
    }
}

/// What KEDA assumes while Prometheus gives no answer.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSpec {
    /// How replicas is read; by default it can only add ServingGroups.
    pub behavior: FallbackBehavior,
    /// After how many failures in a row. KEDA's polls and the HPA's count together: 10 are about two minutes.
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: i32,
    /// How many ServingGroups.
    #[schemars(range(min = 1))]
    pub replicas: i32,
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self { behavior: FallbackBehavior::CurrentReplicasIfHigher, failure_threshold: 10, replicas: 1 }
    }
}

/// The monitors that feed Prometheus.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorsSpec {
    /// Whether to make them: true, unless somebody else's monitor scrapes the router already; always, even then; or false. By default
    /// what the operator was told by --create-monitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "create_schema")]
    pub create: Option<CreateSpec>,
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
        Self { create: None, labels: BTreeMap::new(), interval: "15s".to_owned() }
    }
}

/// Whether to make monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CreateSpec {
    /// Yes or no.
    Switch(bool),
    /// A word.
    Word(CreateWord),
}

/// A word for whether to make monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateWord {
    /// Even beside somebody else's.
    Always,
}

/// A structural schema has one type or none; an enumeration says the rest.
fn create_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Whether to make them: true, unless somebody else's monitor scrapes the router already; always, even then; or false. By default what the operator was told by --create-monitors.",
        "enum": [true, false, "always"],
        "x-kubernetes-preserve-unknown-fields": true,
    })
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
