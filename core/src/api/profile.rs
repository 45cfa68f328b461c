//! `AutoscalingProfile`: settings that many ModelServings share; the only kind that this project defines.
//!
//! The CRD under `crds/` is generated from these types: `kubectl explain` prints the doc comments, and the
//! API server enforces the bounds, patterns and rules. The built-in settings are the defaults of these types.

mod schema;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

pub(crate) use self::schema::tls_rules;
use self::schema::{
    are_matchers, at_most, between, create_schema, has_demand, is_headroom, is_not_reserved, is_of_two_roles,
    is_ratio, is_target, is_target_of_signal, kibibytes, names_differ, rule, service_time_rule, signal_names,
    size_up_to,
};
use super::{
    keda::{FallbackBehavior, MetricType},
    monitoring::{Scheme, TlsConfig},
};
use crate::domain::{
    Activation, Demand, MAX_BODIES, MAX_BODY, ReplicaBounds, ScrapeInterval, SeriesMatchers, Signal,
    prometheus_url_pattern,
};

/// Autoscaling settings that many ModelServings share.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    crates(kube_core = "::kube_core"),
    group = "autoscaling.kthena.io",
    version = "v1alpha1",
    kind = "AutoscalingProfile",
    plural = "autoscalingprofiles",
    shortname = "asp",
    status = "AutoscalingProfileStatus",
    doc = "Autoscaling settings that many ModelServings share. A ModelServing uses the profile that its \
           annotation autoscaling.kthena.io/profile names, or else the profile named default.",
    printcolumn = r#"{"name": "Min", "type": "integer", "jsonPath": ".spec.replicas.min"}"#,
    printcolumn = r#"{"name": "Max", "type": "integer", "jsonPath": ".spec.replicas.max"}"#,
    printcolumn = r#"{"name": "Models", "type": "integer", "jsonPath": ".status.modelServings"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Prometheus", "type": "string", "priority": 1, "jsonPath": ".spec.prometheus.url"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "size(self.signals) > 0 || (has(self.customSignals) && size(self.customSignals) > 0)",
    "fieldPath": ".signals",
    "message": "must have at least one signal if customSignals is empty",
}, has_demand(), names_differ(), is_of_two_roles()]))]
pub struct AutoscalingProfileSpec {
    /// Namespaces whose ModelServings may use the profile, such as team-a or team-b-*. By default all may.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub allowed_namespaces: Option<Vec<NamespacePatternSpec>>,
    /// Prometheus that KEDA queries. Default: the operator's --prometheus-url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSpec>,
    /// Location of kthena-router. Default: the operator's --router-namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterSpec>,
    /// Bounds of the number of ServingGroups.
    pub replicas: ReplicasSpec,
    /// Built-in signals to scale on. With several signals, the one that requires the most ServingGroups
    /// decides.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub signals: Vec<SignalSpec>,
    /// Signals with your own queries, in addition to the built-in ones. A ModelServing that lists its signals
    /// in an annotation uses only those that it lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub custom_signals: Vec<CustomSignalSpec>,
    /// Roles of each ServingGroup to scale, each by its own signals, instead of the number of ServingGroups. Requires
    /// roles.enabled of the chart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub roles: Vec<RoleSpec>,
    /// Bounds of the number of the first of two roles per instance of the second, such as prefill per decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_ratio: Option<RoleRatioSpec>,
    /// Bound on the waiting requests that active-requests counts. While ServingGroups load, waiting requests pile up,
    /// and without a bound they ask for more groups than are needed once those have loaded.
    pub backlog: BacklogSpec,
    /// Interval between KEDA's queries, from 1s to 1h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "1h")))]
    pub polling_interval: String,
    /// Speed of adding ServingGroups. Fast by default, because a model takes minutes to load.
    pub scale_up: ScaleUpSpec,
    /// Speed of removing ServingGroups. Slow by default, because a removed ServingGroup takes minutes to come
    /// back.
    pub scale_down: ScaleDownSpec,
    /// Removal of the last ServingGroup. Applies if replicas.min is 0.
    pub scale_to_zero: ScaleToZeroSpec,
    /// Number of ServingGroups while Prometheus returns no data. By default it stays as it is. The
    /// operator omits the fallback if replicas.min is 0, because KEDA would scale up every idle model, while all
    /// scaling is paused, and if KEDA is older than 2.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackSpec>,
    /// ServiceMonitor and PodMonitors that the operator creates. Only the profile named default configures the
    /// router's ServiceMonitor.
    pub monitors: MonitorsSpec,
}

impl Default for AutoscalingProfileSpec {
    fn default() -> Self {
        Self {
            allowed_namespaces: None,
            prometheus: None,
            router: None,
            replicas: ReplicasSpec::default(),
            signals: vec![SignalSpec::from(Demand::ActiveRequests)],
            custom_signals: Vec::new(),
            roles: Vec::new(),
            role_ratio: None,
            backlog: BacklogSpec::default(),
            polling_interval: "15s".to_owned(),
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
            scale_to_zero: ScaleToZeroSpec::default(),
            fallback: None,
            monitors: MonitorsSpec::default(),
        }
    }
}

/// Address of a Prometheus, and KEDA's access to it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "!(has(self.authModes) && 'bearer' in self.authModes && 'basic' in self.authModes)",
        "authModes must not contain both bearer and basic",
    ),
    rule(
        "!has(self.authModes) || has(self.authenticationRef)",
        "authModes requires authenticationRef, which names the credentials",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSpec {
    /// Base URL that KEDA uses: http or https, with an optional path, without a trailing slash.
    #[schemars(
        regex(pattern = prometheus_url_pattern()),
        length(max = 512)
    )]
    pub url: String,
    /// Reference to KEDA's credentials for Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
    /// Modes in which KEDA uses the credentials; without a mode KEDA ignores them. Omit the field only if the
    /// TriggerAuthentication contains the modes or a pod identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub auth_modes: Vec<AuthMode>,
    /// Headers of KEDA's requests, such as X-Scope-OrgID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        r"self.all(key, key.matches('^[!#$%&*+.^_`|~0-9A-Za-z-]{1,128}$') && self[key].matches('^[ -+--<>-~]*$'))",
        "names must be HTTP header names, and values ASCII text without ',' and '=', which KEDA cannot carry",
    )]))]
    pub headers: BTreeMap<String, HeaderValue>,
    /// Labels that every series of this cluster has in Prometheus, such as cluster: eu-1. Set them if the
    /// store behind the URL holds the series of several clusters. The operator adds them to all of its
    /// queries; use {{matchers}} in customSignals, and write them into router.presenceQuery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = SeriesMatchers::MAX))]
    #[schemars(extend("x-kubernetes-validations" = are_matchers()))]
    pub matchers: BTreeMap<String, MatcherValue>,
    /// Set to true to have KEDA accept any certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsafe_ssl: bool,
    /// Parameters in the URL of each query, such as dedup: "true" of Thanos.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.all(key, !key.contains(',') && !key.contains('=') && !(key in ['', 'query', 'time']))",
            "names must not be query or time, and must not contain ',' or '=', which KEDA cannot carry",
        ),
        rule(
            "self.all(key, !self[key].contains(',') && !self[key].contains('='))",
            "values must not contain ',' or '=', which KEDA cannot carry",
        ),
    ]))]
    pub query_parameters: BTreeMap<String, HeaderValue>,
    /// Limit of each query, from 1s to 1m; KEDA 2.17 or later. Default: KEDA's own setting
    /// `KEDA_HTTP_DEFAULT_TIMEOUT` (3s), and 8s for the operator's own queries, which warn when a small one takes
    /// longer than KEDA waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "1m")))]
    pub timeout: Option<String>,
    /// AWS region of an Amazon Managed Service for Prometheus, for which KEDA signs its queries with the credentials
    /// of authenticationRef. The operator cannot sign queries, so it does not check the signals of such models.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}$"), length(max = 32))]
    pub aws_region: Option<String>,
}

/// Name of a namespace in which each * stands for any characters.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespacePatternSpec(
    #[schemars(regex(pattern = "^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$"), length(min = 1, max = 63))] pub String,
);

/// Value of a header.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderValue(#[schemars(length(max = 512))] pub String);

/// Value of a label.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MatcherValue(
    #[schemars(regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"), length(min = 1, max = SeriesMatchers::VALUE_MAX))]
    pub String,
);

/// Reference to KEDA's credentials.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuthenticationRef {
    /// Kind of the credentials. KEDA looks up a TriggerAuthentication in the namespace of each ModelServing.
    #[serde(default)]
    pub kind: AuthenticationKind,
    /// Name of the credentials.
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,
}

/// Kind of an object with credentials.
#[derive(
    JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr,
)]
pub enum AuthenticationKind {
    /// For all namespaces; its Secrets are in KEDA's namespace.
    #[default]
    ClusterTriggerAuthentication,
    /// For one namespace; its Secrets are there, too.
    TriggerAuthentication,
}

/// Mode in which KEDA uses the credentials.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "camelCase")]
pub enum AuthMode {
    /// A bearer token.
    Bearer,
    /// User and password.
    Basic,
    /// A client certificate.
    Tls,
    /// A custom header.
    Custom,
}

/// Location of kthena-router.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.tlsConfig) || (has(self.scheme) && self.scheme == 'https')",
    "tlsConfig requires scheme https",
)]))]
#[serde(rename_all = "camelCase", default)]
pub struct RouterSpec {
    /// Namespace of kthena-router, which the queries select. If it differs from the operator's
    /// --router-namespace, create a monitor for the router yourself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Query that returns one value while Prometheus scrapes the router, and none otherwise; it separates no
    /// load from no data. Default: derived from the Service or PodMonitor of the router.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub presence_query: Option<String>,
    /// Protocol by which Prometheus scrapes the router: https where Kthena's chart turns TLS of the router on.
    /// Only the profile named default configures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// TLS settings of the router's ServiceMonitor, as in its endpoint; requires scheme https. Only the profile
    /// named default configures them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<TlsConfig>,
}

/// Bounds of the number of ServingGroups.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.min <= self.max", "min must be less than or equal to max")
]))]
#[serde(default)]
pub struct ReplicasSpec {
    /// Minimum number of ServingGroups. With 0, KEDA scales an idle model to zero.
    #[schemars(range(min = 0))]
    pub min: i32,
    /// Maximum number of ServingGroups.
    #[schemars(range(min = 1))]
    pub max: i32,
}

impl Default for ReplicasSpec {
    fn default() -> Self {
        let bounds = ReplicaBounds::default();
        Self { min: bounds.min(), max: bounds.max() }
    }
}

/// A built-in signal and its target.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = is_target_of_signal()))]
pub struct SignalSpec {
    /// Name of a built-in signal.
    #[schemars(extend("enum" = signal_names()))]
    pub name: String,
    /// Amount of the signal that one ServingGroup carries, as a quoted number >= 0.001. For ttft-p90 and itl-p90, the
    /// latency that nine of ten requests are not to exceed, such as 2s or 50ms.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,3}|ms|s|m)?$"), length(max = 14))]
    pub target: String,
}

impl From<Demand> for SignalSpec {
    /// The signal with its default target.
    fn from(demand: Demand) -> Self {
        Self { name: Signal::Demand(demand).name().to_owned(), target: demand.default_target().to_string() }
    }
}

/// A role of each ServingGroup, and the signals that scale it.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [rule("self.min <= self.max", "min must not be above max")]))]
pub struct RoleSpec {
    /// Name of the role in spec.template.roles of the ModelServing.
    #[schemars(regex(pattern = "^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"), length(min = 1, max = 12))]
    #[schemars(extend("x-kubernetes-validations" = [rule("self != 'ratio'", "must not be ratio")]))]
    pub name: String,
    /// Minimum number of instances in each ServingGroup.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub min: i32,
    /// Maximum number of instances in each ServingGroup.
    #[schemars(range(min = 1))]
    pub max: i32,
    /// Built-in signals, each with the amount that one instance of the role carries.
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub signals: Vec<SignalSpec>,
}

const fn one() -> i32 {
    1
}

/// Bounds of a ratio, as quoted numbers from 0.001 to 1000.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.min) || has(self.max)", "must have min or max"),
    rule("!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)", "min must not be above max"),
]))]
pub struct RoleRatioSpec {
    /// Least ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,4}(\.[0-9]{1,3})?$"), length(max = 8))]
    #[schemars(extend("x-kubernetes-validations" = is_ratio()))]
    pub min: Option<String>,
    /// Greatest ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,4}(\.[0-9]{1,3})?$"), length(max = 8))]
    #[schemars(extend("x-kubernetes-validations" = is_ratio()))]
    pub max: Option<String>,
}

/// A signal with your own query. It runs with KEDA's credentials, over the series of all namespaces.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomSignalSpec {
    /// Name of the signal, for annotations. Names of built-in signals are reserved.
    #[schemars(regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"), length(min = 1, max = 63))]
    #[schemars(extend("x-kubernetes-validations" = [is_not_reserved()]))]
    pub name: String,
    /// PromQL query that returns one value. {{model}}, {{namespace}} and {{name}} become quoted strings, and
    /// {{matchers}} between the braces of a selector becomes prometheus.matchers.
    /// {{model}} is the only model name after = or !=, and all names including adapters after =~ or !~.
    #[schemars(length(min = 1, max = 2048))]
    pub query: String,
    /// Amount of the signal that one ServingGroup carries, as a quoted number >= 0.001.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?$"), length(max = 14))]
    #[schemars(extend("x-kubernetes-validations" = is_target()))]
    pub target: String,
    /// AverageValue for a total over the model. Value for a level such as a latency: the HPA multiplies the
    /// number of ready ServingGroups, and scales to the minimum while none is ready.
    #[serde(default)]
    pub metric_type: MetricType,
}

/// Bound on the waiting requests that active-requests counts.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BacklogSpec {
    /// Time that a ServingGroup takes for one request that does not wait, from 100ms to 1h. With auto the
    /// operator measures it. With "off", which needs quotes because YAML reads the bare word as false, every
    /// request in flight counts.
    #[schemars(regex(pattern = "^(off|auto|[0-9]{1,5}(ms|s|m|h))$"), length(max = 7))]
    #[schemars(extend("x-kubernetes-validations" = service_time_rule()))]
    pub service_time: String,
    /// Capacity to provide for each arriving request, as a quoted factor from 1 to 3.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?$"), length(max = 14))]
    #[schemars(extend("x-kubernetes-validations" = is_headroom()))]
    pub headroom: String,
    /// Time within which waiting requests are to be worked off, from 1m to 1h; at least twice the time that a
    /// ServingGroup takes to load.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1m", "1h")))]
    pub drain_time: String,
}

impl Default for BacklogSpec {
    fn default() -> Self {
        Self { service_time: "off".to_owned(), headroom: "1.2".to_owned(), drain_time: "10m".to_owned() }
    }
}

/// Speed of adding ServingGroups.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleUpSpec {
    /// Time over which the HPA uses the lowest recommendation, up to 1h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = at_most("1h")))]
    pub stabilization_window: String,
    /// Limits of the change per period.
    #[schemars(length(min = 1, max = 4))]
    pub policies: Vec<PolicySpec>,
    /// Limit that applies, if there are several.
    pub select: Select,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        let period = "60s".to_owned();
        Self {
            stabilization_window: "0s".to_owned(),
            policies: vec![
                PolicySpec { kind: PolicyKind::Pods, value: 2, period: period.clone() },
                PolicySpec { kind: PolicyKind::Percent, value: 100, period },
            ],
            select: Select::Max,
        }
    }
}

/// Speed of removing ServingGroups.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDownSpec {
    /// Time over which the HPA uses the highest recommendation, up to 1h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = at_most("1h")))]
    pub stabilization_window: String,
    /// Limits of the change per period.
    #[schemars(length(min = 1, max = 4))]
    pub policies: Vec<PolicySpec>,
    /// Limit that applies, if there are several.
    pub select: Select,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        let policies = vec![PolicySpec { kind: PolicyKind::Pods, value: 1, period: "2m".to_owned() }];
        Self { stabilization_window: "10m".to_owned(), policies, select: Select::Max }
    }
}

/// Limit that applies, if there are several.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
pub enum Select {
    /// The limit that allows the largest change.
    Max,
    /// The limit that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

/// A limit of the change within a period.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// Unit of the value. Pods are ServingGroups.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    /// Number of ServingGroups, or percent, per period.
    #[schemars(range(min = 1))]
    pub value: i32,
    /// Length of the period, from 1s to 30m.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "30m")))]
    pub period: String,
}

/// Unit of a policy's value.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
pub enum PolicyKind {
    /// ServingGroups; the name is the HPA's.
    Pods,
    /// Percent of the current ServingGroups.
    Percent,
}

/// Removal of the last ServingGroup.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleToZeroSpec {
    /// Time without demand before KEDA removes the last ServingGroup, up to 24h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = at_most("24h")))]
    pub cooldown: String,
    /// The same for a new model that has not had demand yet, up to 24h.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = at_most("24h")))]
    pub initial_cooldown: String,
    /// Demand that scales a model up from zero: more requests and tokens than this within two minutes, as a
    /// quoted number.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?$"), length(max = 14))]
    #[schemars(extend("x-kubernetes-validations" = [rule("double(self) < 1000000000.0", "must be less than 1000000000")]))]
    pub activation: String,
    /// Holds requests while no ServingGroup is ready, and hands them over to the engines afterwards. Set it to {} for
    /// the defaults; without it, requests fail until the model is loaded. The operator makes a small stand-in pod for
    /// each sleeping model, which requires the chart value standIns.enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSpec>,
}

impl Default for ScaleToZeroSpec {
    fn default() -> Self {
        Self {
            cooldown: "30m".to_owned(),
            initial_cooldown: "15m".to_owned(),
            activation: Activation::default().to_string(),
            hold: None,
        }
    }
}

/// Limits of the requests that a stand-in pod holds.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    &format!("{} <= {}", kibibytes("maxBody"), kibibytes("maxBodies")),
    "maxBody must be less than or equal to maxBodies",
)]))]
#[serde(rename_all = "camelCase", default)]
pub struct HoldSpec {
    /// Time for which a request is held, from 10s to 1h; longer than the model takes to load. After it, the request
    /// is answered with 503.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("10s", "1h")))]
    pub timeout: String,
    /// Number of requests that are held at a time, from 1 to 10000. Further ones are answered with 503.
    #[schemars(range(min = 1, max = 10000))]
    pub max_requests: i32,
    /// Size of a request's body, such as 512Ki or 1Mi, up to 64Mi. A larger one is answered with 503.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,3}(Ki|Mi)$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = size_up_to(MAX_BODY)))]
    pub max_body: String,
    /// Size of the bodies of all requests that are held at a time, up to 1024Mi. It counts towards the memory limit of
    /// the stand-in pod.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,3}(Ki|Mi)$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = size_up_to(MAX_BODIES)))]
    pub max_bodies: String,
    /// Time after which a held request that asks for a stream gets the first keep-alive comment, from 1s to 1h. The
    /// comment commits the status 200, so a later failure is an error event in the stream.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "1h")))]
    pub keep_alive_after: String,
}

impl Default for HoldSpec {
    fn default() -> Self {
        Self {
            timeout: "10m".to_owned(),
            max_requests: 100,
            max_body: "1Mi".to_owned(),
            max_bodies: "64Mi".to_owned(),
            keep_alive_after: "15s".to_owned(),
        }
    }
}

/// Number of ServingGroups while Prometheus returns no data.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSpec {
    /// Meaning of replicas. By default the fallback can only add ServingGroups.
    pub behavior: FallbackBehavior,
    /// Number of consecutive failures before the fallback applies. With KEDA 2.21 or later only the HPA's
    /// queries count, one every 15 seconds: 10 take about 165 seconds. With older releases KEDA's own polls
    /// count, too: 10 take about two minutes.
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: i32,
    /// Number of ServingGroups.
    #[schemars(range(min = 1))]
    pub replicas: i32,
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self { behavior: FallbackBehavior::CurrentReplicasIfHigher, failure_threshold: 10, replicas: 1 }
    }
}

/// Monitors that the operator creates.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorsSpec {
    /// Creation of monitors: true, unless Prometheus shows that a monitor of another owner scrapes the router
    /// well; always, even then; or false. Default: the operator's --create-monitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "create_schema")]
    pub create: Option<CreateSpec>,
    /// Labels by which your Prometheus selects its monitors, such as release: kube-prometheus-stack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        r"self.all(key, key.indexOf('/') <= 253 && key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
        "keys must be label keys",
    )]))]
    pub labels: BTreeMap<String, LabelValue>,
    /// Interval between scrapes, from 1s to 30s.
    #[schemars(regex(pattern = "^[0-9]{1,5}[smh]$"), length(max = 6))]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "30s")))]
    pub interval: String,
}

impl Default for MonitorsSpec {
    fn default() -> Self {
        Self { create: None, labels: BTreeMap::new(), interval: ScrapeInterval::default().to_string() }
    }
}

/// Value of a label.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelValue(
    #[schemars(regex(pattern = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"), length(max = 63))] pub String,
);

/// Creation of monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CreateSpec {
    /// `true`, unless a monitor of another owner scrapes the router; or `false`.
    Switch(bool),
    /// A value other than true or false.
    Word(CreateWord),
}

/// Values of [`CreateSpec`] other than true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateWord {
    /// Even if a monitor of another owner scrapes the router.
    Always,
}

/// Status of a profile, as the operator reports it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingProfileStatus {
    /// Generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of opted-in ModelServings that use the profile.
    pub model_servings: i32,
    /// Ready is True if the profile is valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
