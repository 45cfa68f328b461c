//! ModelRoutes and ModelServers as the API server sends them, and their digests.

use std::{cmp::Ordering, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    api::{
        BestEffort, LenientDe, fields,
        kthena::{
            LABELS_MAX, ModelRoute, ModelRouteSpec, ModelServer, ModelServerSpec, ModelServing, Role,
            RouteRule, TargetModel, UriMatch,
        },
        metadata::LeanMetadata,
    },
    domain::{Key, MODEL_NAME_MAX},
    signals::Engine,
};

/// A ModelRoute as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ModelRoute, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<ModelRouteSpec>>>")]
pub struct LiveModelRoute {
    /// Name and identity.
    pub metadata: ObjectMeta,
    spec: ModelRouteSpec,
}

/// A ModelServer as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ModelServer, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<ModelServerSpec>>>")]
pub struct LiveModelServer {
    /// Name and identity.
    pub metadata: ObjectMeta,
    spec: ModelServerSpec,
}

#[derive(Default)]
struct Wire<S> {
    metadata: LeanMetadata<IgnoredAny>,
    spec: S,
}

fields!(Wire<S> where S { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<Wire<BestEffort<ModelRouteSpec>>>> for LiveModelRoute {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<ModelRouteSpec>>>) -> Self {
        Self { metadata: wire.metadata.into(), spec: wire.spec.0.unwrap_or_default() }
    }
}

impl From<LenientDe<Wire<BestEffort<ModelServerSpec>>>> for LiveModelServer {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<ModelServerSpec>>>) -> Self {
        Self { metadata: wire.metadata.into(), spec: wire.spec.0.unwrap_or_default() }
    }
}

/// Digest of a ModelRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDigest {
    /// Model name that clients send.
    pub(super) model: Option<String>,
    /// LoRA adapters, whose names clients send too.
    pub(super) adapters: Vec<String>,
    /// Rules that can match a request that ModelServers serve, in order.
    pub(super) rules: Vec<RuleDigest>,
    /// Gateways (Gateway API) that it is attached to. Without one it applies to the router's own port, and
    /// with one to requests at these Gateways only.
    pub(super) gateways: Vec<Key>,
    /// Age, by which the router orders routes of one name.
    pub(super) age: Age,
}

/// Age of a ModelRoute; the older one is less.
///
/// A route without a creation time, such as one from a file that was never applied, is younger than any with
/// one. Source: Kthena `pkg/kthena-router/datastore/store.go`, `sortModelRoutesInPlace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Age {
    created: Option<Time>,
    resource_version: String,
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = match (&self.created, &other.created) {
            (Some(one), Some(two)) => one.0.cmp(&two.0),
            (one, two) => one.is_none().cmp(&two.is_none()),
        };
        by_time.then_with(|| self.resource_version.cmp(&other.resource_version))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Digest of a rule of a ModelRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleDigest {
    /// Model name that the rule is limited to.
    model: Option<String>,
    /// `true` if headers or the path of a request decide whether the rule matches.
    depends_on_request: bool,
    /// Destinations.
    pub(super) targets: Vec<TargetDigest>,
}

/// Digest of a destination of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetDigest {
    /// ModelServer in the route's namespace; `None` for a provider outside the cluster.
    pub(super) server: Option<String>,
    /// `false` if its weight is 0.
    pub(super) receives: bool,
}

/// Requests for a name that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matches {
    All,
    Some,
    None,
}

impl RuleDigest {
    /// `None` for a rule that matches no request that the router sends to ModelServers.
    fn of(rule: &RouteRule) -> Option<Self> {
        let condition = rule.model_match.clone().unwrap_or_default();
        let uri = condition.uri.map_or(UriMatch::All, |uri| uri.of_served_paths());
        if uri == UriMatch::None {
            return None;
        }
        let has_header = condition.headers.iter().flatten().any(|(_, value)| !value.matches_everything());
        Some(Self {
            model: condition.body.and_then(|body| body.model),
            depends_on_request: has_header || uri == UriMatch::Some,
            targets: rule.target_models.iter().map(TargetDigest::from).collect(),
        })
    }

    pub(super) fn matches(&self, name: &str) -> Matches {
        match &self.model {
            Some(model) if model != name => Matches::None,
            _ if self.depends_on_request => Matches::Some,
            _ => Matches::All,
        }
    }

    /// `true` if the router finds a destination: one with a weight above 0.
    pub(super) fn has_destination(&self) -> bool {
        self.targets.iter().any(|target| target.receives)
    }
}

impl From<&TargetModel> for TargetDigest {
    fn from(target: &TargetModel) -> Self {
        Self { server: target.model_server_name.clone(), receives: target.weight != Some(0) }
    }
}

/// Digest of a ModelServer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDigest {
    /// Labels by which it selects pods; empty if there are more than are kept of a pod template, since it then
    /// selects none.
    pub(super) labels: BTreeMap<String, String>,
    /// Inference engine; `None` if it is unknown.
    pub(super) engine: Option<Engine>,
    /// Port of the engine.
    pub(super) port: Option<u16>,
    /// Name to which the router changes the model name of a request.
    pub(super) model: Option<String>,
    /// `true` if different pods do prefill and decode.
    pub(super) disaggregated: bool,
    /// `true` if the router speaks TLS to the pods.
    pub(super) is_tls: bool,
}

/// LoRA adapters of a route that are kept; Kthena's CRD allows 10.
const ADAPTERS_MAX: usize = 64;
/// Rules of a route that are kept; Kthena's CRD allows 16.
const RULES_MAX: usize = 64;
/// Destinations of a route that are kept: as many as Kthena's CRD allows.
const TARGETS_MAX: usize = 256;
/// Gateways of a route that are kept.
const GATEWAYS_MAX: usize = 16;

/// Longer names are of no ModelServing; Kthena's CRD does not limit them.
fn may_be_sent(name: &str) -> bool {
    (1..=MODEL_NAME_MAX).contains(&name.len())
}

impl From<&LiveModelRoute> for RouteDigest {
    fn from(live: &LiveModelRoute) -> Self {
        let namespace = live.namespace().unwrap_or_default();
        let mut room = TARGETS_MAX;
        let mut rules: Vec<RuleDigest> =
            live.spec.rules.iter().flatten().filter_map(RuleDigest::of).take(RULES_MAX).collect();
        for rule in &mut rules {
            rule.targets.truncate(room);
            room -= rule.targets.len();
        }
        let adapters = live.spec.lora_adapters.iter().flatten().filter(|name| may_be_sent(name));
        let gateways = live.spec.parent_refs.iter().flatten().map(|parent| {
            let of = parent.namespace.clone().unwrap_or_else(|| namespace.clone());
            (of, parent.name.clone().unwrap_or_default())
        });
        Self {
            model: live.spec.model_name.clone().filter(|name| may_be_sent(name)),
            adapters: adapters.take(ADAPTERS_MAX).cloned().collect(),
            rules,
            gateways: gateways.take(GATEWAYS_MAX).collect(),
            age: Age {
                created: live.metadata.creation_timestamp.clone(),
                resource_version: live.metadata.resource_version.clone().unwrap_or_default(),
            },
        }
    }
}

impl From<&LiveModelServer> for ServerDigest {
    fn from(live: &LiveModelServer) -> Self {
        let mut selector = live.spec.workload_selector.clone().unwrap_or_default();
        let port = live.spec.workload_port.as_ref();
        if selector.match_labels.len() > LABELS_MAX {
            selector.match_labels.clear();
        }
        Self {
            labels: selector.match_labels,
            engine: live.spec.inference_engine.as_deref().and_then(Engine::from_name),
            port: port.map(|port| port.port),
            model: live.spec.model.clone().filter(|name| may_be_sent(name)),
            is_tls: port.and_then(|port| port.protocol.as_deref()) == Some("https"),
            disaggregated: selector.pd_group,
        }
    }
}

impl RouteDigest {
    /// Names that clients may send for it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.model.iter().chain(&self.adapters).map(String::as_str)
    }

    /// ModelServers of its namespace that it routes to, with any weight; with repetitions.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.targets().filter_map(|target| target.server.as_deref())
    }

    /// Targets of all rules.
    pub(super) fn targets(&self) -> impl Iterator<Item = &TargetDigest> {
        self.rules.iter().flat_map(|rule| &rule.targets)
    }

    pub(super) fn carries(&self, name: &str) -> bool {
        self.names().any(|carried| carried == name)
    }
}

impl ServerDigest {
    /// Labels by which it selects pods.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// `true` if it selects pods of a ModelServing in its namespace. Decided by the pod templates, since
    /// there may be no pods.
    pub fn selects(&self, model_serving: &ModelServing) -> bool {
        let has_all = |role: &Role| {
            self.labels.iter().all(|(key, value)| model_serving.labels_entry_pods(role, key, value))
        };
        !self.labels.is_empty() && model_serving.spec.template.roles.iter().any(has_all)
    }
}
