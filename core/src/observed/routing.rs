//! ModelRoutes and ModelServers, and the routes from a model's names to its pods.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    api::{
        BestEffort, LenientDe, fields,
        kthena::{LABELS_MAX, ModelRoute, ModelRouteSpec, ModelServer, ModelServerSpec, ModelServing, Role},
        metadata::LeanMetadata,
    },
    domain::{Key, MODEL_NAME_MAX, SUGGESTIONS_MAX, key, nearest},
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
    model: Option<String>,
    /// LoRA adapters, whose names clients send too.
    adapters: Vec<String>,
    /// ModelServers that it routes to; `None` for a provider outside the cluster.
    targets: Vec<Option<String>>,
}

/// Digest of a ModelServer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDigest {
    /// Labels by which it selects pods; empty if there are more than are kept of a pod template, since it then
    /// selects none.
    labels: BTreeMap<String, String>,
    /// Inference engine; `None` if it is unknown.
    engine: Option<Engine>,
    /// Port of the engine.
    port: Option<u16>,
    /// `true` if different pods do prefill and decode.
    disaggregated: bool,
}

/// LoRA adapters of a route that are kept; Kthena's CRD allows 10.
const ADAPTERS_MAX: usize = 64;
/// Destinations of a route that are kept: as many as Kthena's CRD allows.
const TARGETS_MAX: usize = 256;

/// Longer names are of no ModelServing; Kthena's CRD does not limit them.
fn may_be_sent(name: &str) -> bool {
    (1..=MODEL_NAME_MAX).contains(&name.len())
}

impl From<&LiveModelRoute> for RouteDigest {
    fn from(live: &LiveModelRoute) -> Self {
        let rules = live.spec.rules.iter().flatten();
        // A target with weight 0 receives no requests.
        let targets = rules.flat_map(|rule| &rule.target_models).filter(|target| target.weight != Some(0));
        let mut targets: Vec<_> = targets.map(|target| target.model_server_name.clone()).collect();
        targets.sort();
        targets.dedup();
        targets.truncate(TARGETS_MAX);
        let adapters = live.spec.lora_adapters.iter().flatten().filter(|name| may_be_sent(name));
        Self {
            model: live.spec.model_name.clone().filter(|name| may_be_sent(name)),
            adapters: adapters.take(ADAPTERS_MAX).cloned().collect(),
            targets,
        }
    }
}

impl From<&LiveModelServer> for ServerDigest {
    fn from(live: &LiveModelServer) -> Self {
        let mut selector = live.spec.workload_selector.clone().unwrap_or_default();
        if selector.match_labels.len() > LABELS_MAX {
            selector.match_labels.clear();
        }
        Self {
            labels: selector.match_labels,
            engine: live.spec.inference_engine.as_deref().and_then(Engine::from_name),
            port: live.spec.workload_port.as_ref().map(|port| port.port),
            disaggregated: selector.pd_group,
        }
    }
}

impl RouteDigest {
    /// Names that clients may send for it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.model.iter().chain(&self.adapters).map(String::as_str)
    }

    /// ModelServers of its namespace that it routes to.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().flatten().map(String::as_str)
    }

    fn carries_any(&self, names: &HashSet<&str>) -> bool {
        self.names().any(|carried| names.contains(carried))
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

/// Routes from clients' requests to a model's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// LoRA adapters that are routed with one of its names, which makes them names of it.
    pub adapters: Vec<String>,
    /// ModelServers that select its pods.
    pub servers: Vec<Server>,
    /// Destinations of requests for its names.
    pub destinations: Vec<Destination>,
    /// `true` if the cluster serves ModelRoutes.
    pub is_known: bool,
    /// Its names that no ModelRoute of its namespace carries, each with the most similar routed name; empty
    /// if `is_known` is `false`.
    pub unrouted: Vec<(String, Option<String>)>,
    /// Other ModelServings that opted in with one of its names, as `<namespace>/<name>`; at most [`OTHERS_KEPT`].
    pub claimants: Vec<String>,
}

/// A ModelServer that selects a model's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name.
    pub name: String,
    /// Inference engine of the pods; `None` if it is unknown.
    pub engine: Option<Engine>,
    /// Port of the engine.
    pub port: Option<u16>,
}

/// Number of other ModelServings that are kept for a message: one more than it lists, so that it can end in "and others".
pub const OTHERS_KEPT: usize = 6;

/// Number of routes of a namespace, the first by name, that are compared to suggest a similar name. A bound,
/// since thousands of models without a route may share a namespace with thousands that have one.
pub const COMPARED: usize = 200;

/// ModelServers that are looked at for one model: those of its own namespace first.
pub const DESTINATIONS_MAX: usize = 64;

/// LoRA adapters that count for one model, the first by name.
const NAMES_MAX: usize = 256;

/// Destination of requests for a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A ModelServer of the cluster.
    Server {
        /// `<namespace>/<name>`, as in the router's labels.
        name: String,
        /// `true` if it selects pods of the model.
        is_own: bool,
        /// `true` if different pods do prefill and decode, so that a request counts up to twice.
        disaggregated: bool,
        /// Other ModelServings whose pods it selects, as `<namespace>/<name>`; at most [`OTHERS_KEPT`].
        others: Vec<String>,
    },
    /// A provider outside the cluster.
    Outside,
}

/// Objects that [`Routing`] depends on.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a> {
    /// `true` if the cluster serves ModelRoutes.
    pub routes_are_served: bool,
    /// ModelRoutes of the cluster.
    pub routes: &'a [(&'a Key, &'a RouteDigest)],
    /// ModelServers of the cluster.
    pub servers: &'a [(&'a Key, &'a ServerDigest)],
    /// ModelServings of the cluster.
    pub model_servings: &'a [Arc<ModelServing>],
}

impl Network<'_> {
    /// Routing of one ModelServing; empty if it is not opted in.
    pub fn routing(&self, model_serving: &ModelServing) -> Routing {
        let namespace = model_serving.namespace().unwrap_or_default();
        let names: Vec<&str> = model_serving.model_names().collect();
        if names.is_empty() {
            return Routing::default();
        }
        let adapters = self.adapters(&namespace, &names);
        let unrouted = self.unrouted(&namespace, &names);
        let all: HashSet<&str> = names.into_iter().chain(adapters.iter().map(String::as_str)).collect();
        Routing {
            servers: self.servers_of(&namespace, model_serving),
            destinations: self.destinations(model_serving, &all),
            claimants: self.claimants(model_serving, &all),
            is_known: self.routes_are_served,
            unrouted,
            adapters,
        }
    }

    fn adapters(&self, namespace: &str, names: &[&str]) -> Vec<String> {
        let is_routed_with = |key: &Key, route: &RouteDigest| {
            key.0 == namespace && route.model.as_deref().is_some_and(|model| names.contains(&model))
        };
        let routes = self.routes.iter().filter(|(key, route)| is_routed_with(key, route));
        let adapters = routes
            .flat_map(|(_, route)| &route.adapters)
            .filter(|adapter| !names.contains(&adapter.as_str()));
        let mut adapters = sorted(adapters.cloned());
        adapters.truncate(NAMES_MAX);
        adapters
    }

    fn unrouted(&self, namespace: &str, names: &[&str]) -> Vec<(String, Option<String>)> {
        let routes = || self.routes.iter().filter(|(key, _)| key.0 == namespace).map(|(_, route)| route);
        let carried: HashSet<&str> = routes().flat_map(|route| route.names()).collect();
        let candidates = || routes().take(COMPARED).flat_map(|route| route.names());
        let missing = names.iter().filter(|name| self.routes_are_served && !carried.contains(*name));
        let suggestion =
            |i: usize, name: &str| (i < SUGGESTIONS_MAX).then(|| nearest(name, candidates())).flatten();
        missing
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), suggestion(i, name).map(str::to_owned)))
            .collect()
    }

    fn servers_of(&self, namespace: &str, model_serving: &ModelServing) -> Vec<Server> {
        let selecting =
            self.servers.iter().filter(|(key, server)| key.0 == namespace && server.selects(model_serving));
        selecting
            .take(DESTINATIONS_MAX)
            .map(|(key, server)| Server { name: key.1.clone(), engine: server.engine, port: server.port })
            .collect()
    }

    fn destinations(&self, model_serving: &ModelServing, names: &HashSet<&str>) -> Vec<Destination> {
        let carrying: Vec<_> =
            self.routes.iter().copied().filter(|(_, route)| route.carries_any(names)).collect();
        let namespace = model_serving.namespace().unwrap_or_default();
        let targets = targets(&namespace, &carrying);
        let wanted: BTreeSet<(&str, &str)> =
            targets.iter().filter_map(|(namespace, server)| Some((*namespace, (*server)?))).collect();
        let servers: BTreeMap<(&str, &str), &ServerDigest> = self
            .servers
            .iter()
            .map(|(key, server)| ((key.0.as_str(), key.1.as_str()), *server))
            .filter(|(key, _)| wanted.contains(key))
            .collect();
        sorted(targets.into_iter().filter_map(|(namespace, target)| match target {
            Some(name) => {
                let server = servers.get(&(namespace, name))?;
                Some(self.destination(model_serving, (namespace, name), server))
            }
            None => Some(Destination::Outside),
        }))
    }

    fn destination(
        &self,
        model_serving: &ModelServing,
        (namespace, name): (&str, &str),
        server: &ServerDigest,
    ) -> Destination {
        let selected = self
            .present()
            .filter(|found| found.metadata.namespace.as_deref() == Some(namespace) && server.selects(found));
        let (own, others): (Vec<_>, Vec<_>) = selected.partition(|found| is_same(found, model_serving));
        Destination::Server {
            name: format!("{namespace}/{name}"),
            is_own: !own.is_empty(),
            disaggregated: server.disaggregated,
            others: first(others.into_iter()),
        }
    }

    fn claimants(&self, model_serving: &ModelServing, names: &HashSet<&str>) -> Vec<String> {
        let others = self.present().filter(|other| !is_same(other, model_serving));
        first(others.filter(|other| other.model_names().any(|name| names.contains(name))))
    }

    /// ModelServings that are not being deleted.
    fn present(&self) -> impl Iterator<Item = &ModelServing> {
        self.model_servings
            .iter()
            .map(AsRef::as_ref)
            .filter(|found| found.metadata.deletion_timestamp.is_none())
    }
}

/// Destinations of these routes, as namespace and ModelServer, those in `namespace` first; at most
/// [`DESTINATIONS_MAX`]. A ModelServer that does not exist receives no requests.
pub fn targets<'a>(
    namespace: &str,
    routes: &[(&'a Key, &'a RouteDigest)],
) -> Vec<(&'a str, Option<&'a str>)> {
    let targets = routes
        .iter()
        .flat_map(|(key, route)| route.targets.iter().map(|target| (key.0.as_str(), target.as_deref())));
    let (own, others): (BTreeSet<_>, BTreeSet<_>) = targets.partition(|(of, _)| *of == namespace);
    own.into_iter().chain(others).take(DESTINATIONS_MAX).collect()
}

/// The first [`OTHERS_KEPT`], by namespace and name.
fn first<'a>(found: impl Iterator<Item = &'a ModelServing>) -> Vec<String> {
    let mut keys = sorted(found.map(key));
    keys.truncate(OTHERS_KEPT);
    keys.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
}

fn sorted<T: Ord>(found: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = found.collect();
    all.sort();
    all.dedup();
    all
}

fn is_same(a: &ModelServing, b: &ModelServing) -> bool {
    key(a) == key(b)
}
