//! ModelRoutes and ModelServers, and the routes from a model's names to its pods.

mod digest;
mod network;
mod precedence;

pub use digest::{LiveModelRoute, LiveModelServer, RouteDigest, ServerDigest};
pub use network::{Network, further_names, targets};

use std::collections::BTreeMap;

use crate::signals::Engine;

/// Routes from clients' requests to a model's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Names in the annotation, in its order; then the other names that routes lead to its pods, sorted. At
    /// most [`NAMES_MAX`].
    pub names: Vec<RoutedName>,
    /// `true` if routes lead more names than these to its pods.
    pub is_cut: bool,
    /// ModelServers that select its pods.
    pub servers: Vec<Server>,
    /// `true` if the cluster serves ModelRoutes.
    pub is_known: bool,
    /// Other ModelServings that opted in with one of its names, as `<namespace>/<name>`; at most [`OTHERS_KEPT`].
    pub claimants: Vec<String>,
}

/// A name that clients send for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedName {
    /// The name.
    pub name: String,
    /// Origin of the name.
    pub origin: NameOrigin,
    /// ModelRoutes of the model's namespace that carry the name, as `<namespace>/<name>`; at most
    /// [`OTHERS_KEPT`].
    pub carried_by: Vec<String>,
    /// Most similar name that is routed, of a listed name that no ModelRoute of the namespace carries.
    pub similar: Option<String>,
    /// Destinations of the requests for the name, by the router's own choice among routes; of those that do
    /// not lead to the model at most [`DESTINATIONS_KEPT`].
    pub destinations: Vec<Destination>,
}

/// Origin of a model name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameOrigin {
    /// The annotation.
    Listed,
    /// A ModelRoute that carries a listed name has it as an adapter.
    Adapter,
    /// A ModelRoute leads it to the model's own ModelServers.
    Route,
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
    /// Name to which the router changes the model name of a request.
    pub model: Option<String>,
    /// Labels by which it selects pods.
    pub labels: BTreeMap<String, String>,
    /// `true` if different pods do prefill and decode.
    pub disaggregated: bool,
    /// `true` if the router speaks TLS to the pods.
    pub is_tls: bool,
}

/// Number of names of one model, listed ones included; a query has to list them all.
pub const NAMES_MAX: usize = 64;

/// Bytes of the names that a model has by its routes, beside the listed ones.
pub const NAMES_BYTES_MAX: usize = 4096;

/// Number of other ModelServings that are kept for a message: one more than it lists, so that it can end in "and others".
pub const OTHERS_KEPT: usize = 6;

/// Number of ModelServers that are looked at for one model: those of its own namespace first.
pub const PLACES_MAX: usize = 64;

/// Number of destinations of a name that are kept, besides those that lead to the model.
pub const DESTINATIONS_KEPT: usize = 16;

/// Number of routes of a namespace, the first by name, that are compared to suggest a similar name. A bound,
/// since thousands of models without a route may share a namespace with thousands that have one.
pub const COMPARED: usize = 200;

/// Destination of requests for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// `true` if the route is attached to Gateways at which no route of the model's namespace carries the
    /// name. Whether these Gateways exist is not known.
    pub at_other_gateway: bool,
    /// Use by the router.
    pub usage: Usage,
    /// ModelRoute, as `<namespace>/<name>`.
    pub route: String,
    /// Receiver of the requests.
    pub backend: Backend,
}

/// Use of a destination by the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// It receives requests.
    Receives,
    /// It has weight 0, so that it receives none now.
    NoWeight,
    /// The router uses other routes for the name. Kept of the model's own ModelServers only.
    Unused,
}

/// Receiver of requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// A ModelServer of the cluster.
    Server(ServerBackend),
    /// A ModelServer that does not exist, as `<namespace>/<name>`: the router rejects the requests.
    Missing(String),
    /// A provider outside the cluster.
    Outside,
}

/// A ModelServer as a receiver of requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerBackend {
    /// `<namespace>/<name>`, as in the router's labels.
    pub name: String,
    /// `true` if it selects pods of the model.
    pub is_own: bool,
    /// `true` if different pods do prefill and decode, so that a request counts up to twice.
    pub disaggregated: bool,
    /// Other ModelServings whose pods it selects, as `<namespace>/<name>`; at most [`OTHERS_KEPT`].
    pub others: Vec<String>,
    /// Labels by which it selects pods; only of a ModelServer in the model's namespace that selects pods of no
    /// ModelServing.
    pub labels: Vec<(String, String)>,
}

impl Routing {
    /// The part that users of a namespace wrote, without the claims and routes of other namespaces.
    pub(super) fn within(&self, namespace: &str) -> Self {
        let is_local = |full_name: &str| full_name.split_once('/').is_some_and(|(of, _)| of == namespace);
        let mut local = self.clone();
        local.claimants.retain(|claimant| is_local(claimant));
        for name in &mut local.names {
            name.destinations.retain(|destination| is_local(&destination.route));
            for destination in &mut name.destinations {
                // Routes of other namespaces decide whether a route is used, too.
                destination.usage = Usage::Receives;
            }
        }
        local
    }

    /// Listed names that no ModelRoute of the namespace carries; empty if the cluster serves no ModelRoutes.
    pub fn unrouted(&self) -> Vec<&RoutedName> {
        let unrouted = self.listed().filter(|name| self.is_known && name.carried_by.is_empty());
        unrouted.collect()
    }

    /// Names in the annotation.
    pub fn listed(&self) -> impl Iterator<Item = &RoutedName> {
        self.names.iter().filter(|name| name.origin == NameOrigin::Listed)
    }
}

impl RoutedName {
    /// Destinations that are the model's own ModelServers, and their use.
    pub fn own(&self) -> impl Iterator<Item = (&ServerBackend, Usage)> {
        self.destinations.iter().filter_map(|destination| match &destination.backend {
            Backend::Server(server) if server.is_own => Some((server, destination.usage)),
            Backend::Server(_) | Backend::Missing(_) | Backend::Outside => None,
        })
    }

    /// Destinations that serve the requests without the model.
    pub fn elsewhere(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter().filter(|destination| match &destination.backend {
            Backend::Server(server) => !server.is_own,
            Backend::Outside => true,
            Backend::Missing(_) => false,
        })
    }

    /// `true` if a route that the router uses leads the name to the model's own ModelServers, with any weight.
    pub fn leads_here(&self) -> bool {
        self.own().any(|(_, usage)| usage != Usage::Unused)
    }
}
