//! Routing of one ModelServing, from the routes, ModelServers and ModelServings of the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube_core::ResourceExt as _;

use super::{
    Backend, COMPARED, DESTINATIONS_KEPT, Destination, NAMES_BYTES_MAX, NAMES_MAX, NameOrigin, OTHERS_KEPT,
    PLACES_MAX, RouteDigest, RoutedName, Routing, Server, ServerBackend, ServerDigest, Usage,
    digest::TargetDigest,
    precedence::{Listener, RouteTable, used},
};
use crate::{
    api::kthena::ModelServing,
    domain::{Key, ModelName, SUGGESTIONS_MAX, key, nearest},
};

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

/// Names beside the listed ones that routes lead to a model, and `true` if there are more than are returned.
///
/// These are the adapters of routes with a listed name, and the names of routes to the model's own
/// ModelServers. `routes` are those of the model's namespace, all of these among them.
pub fn further_names<'a>(
    listed: &[&str],
    own_servers: &[&str],
    routes: impl Iterator<Item = &'a RouteDigest>,
) -> (BTreeMap<&'a str, NameOrigin>, bool) {
    let mut all: BTreeMap<&str, NameOrigin> = BTreeMap::new();
    for route in routes {
        if route.servers().any(|server| own_servers.contains(&server)) {
            for name in route.names() {
                all.entry(name).or_insert(NameOrigin::Route);
            }
        }
        if route.model.as_deref().is_some_and(|model| listed.contains(&model)) {
            all.extend(route.adapters.iter().map(|name| (name.as_str(), NameOrigin::Adapter)));
        }
    }
    all.retain(|name, _| !listed.contains(name) && name.parse::<ModelName>().is_ok());
    let mut room = NAMES_BYTES_MAX;
    let count = NAMES_MAX.saturating_sub(listed.len());
    let kept = all.iter().take(count).take_while(|(name, _)| {
        let fits = name.len() <= room;
        room = room.saturating_sub(name.len());
        fits
    });
    let kept: BTreeMap<&str, NameOrigin> = kept.map(|(name, origin)| (*name, *origin)).collect();
    let is_cut = kept.len() < all.len();
    (kept, is_cut)
}

impl<'a> Network<'a> {
    /// Routing of one ModelServing; empty if it is not opted in.
    pub fn routing(&self, model_serving: &ModelServing) -> Routing {
        let namespace = model_serving.namespace().unwrap_or_default();
        let listed = listed_names(model_serving);
        if listed.is_empty() {
            return Routing::default();
        }
        let servers = self.servers_of(&namespace, model_serving);
        let own: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let local = self.routes.iter().filter(|(key, _)| key.0 == namespace).map(|(_, route)| *route);
        let (further, is_cut) = further_names(&listed, &own, local);
        let all: Vec<(&str, NameOrigin)> =
            listed.iter().map(|name| (*name, NameOrigin::Listed)).chain(further).collect();
        let claimed: Vec<&str> =
            all.iter().filter(|(_, origin)| *origin != NameOrigin::Route).map(|(name, _)| *name).collect();
        Routing {
            claimants: self.claimants(model_serving, &claimed),
            names: self.resolve(model_serving, &namespace, &all),
            is_known: self.routes_are_served,
            servers,
            is_cut,
        }
    }

    fn servers_of(&self, namespace: &str, model_serving: &ModelServing) -> Vec<Server> {
        let selecting =
            self.servers.iter().filter(|(key, server)| key.0 == namespace && server.selects(model_serving));
        selecting
            .take(PLACES_MAX)
            .map(|(key, server)| Server {
                name: key.1.clone(),
                engine: server.engine,
                port: server.port,
                model: server.model.clone(),
                labels: server.labels.clone(),
                disaggregated: server.disaggregated,
                is_tls: server.is_tls,
            })
            .collect()
    }

    fn resolve(
        &self,
        model_serving: &ModelServing,
        namespace: &str,
        names: &[(&str, NameOrigin)],
    ) -> Vec<RoutedName> {
        let table = RouteTable::new(self.routes);
        let targets: Vec<Targets<'_>> =
            names.iter().map(|(name, _)| targets_of(&table, name, namespace)).collect();
        let servers: BTreeMap<(&str, &str), &ServerDigest> =
            self.servers.iter().map(|(key, server)| ((key.0.as_str(), key.1.as_str()), *server)).collect();
        let distinct = distinct(namespace, &targets).into_iter();
        let backends: BTreeMap<Place<'_>, Backend> =
            distinct.map(|place| (place, self.backend(model_serving, namespace, place, &servers))).collect();
        let resolved = names.iter().zip(&targets).enumerate().map(|(i, ((name, origin), targets))| {
            let carrying: Vec<String> =
                self.local_routes(namespace, name).map(|(key, _)| display(key)).collect();
            let similar = match origin {
                NameOrigin::Listed if carrying.is_empty() && i < SUGGESTIONS_MAX => {
                    self.similar(namespace, name)
                }
                NameOrigin::Listed | NameOrigin::Adapter | NameOrigin::Route => None,
            };
            RoutedName {
                name: (*name).to_owned(),
                origin: *origin,
                carried_by: carrying.into_iter().take(OTHERS_KEPT).collect(),
                similar,
                destinations: destinations(targets, &backends),
            }
        });
        resolved.collect()
    }

    fn local_routes(&self, namespace: &str, name: &str) -> impl Iterator<Item = &(&'a Key, &'a RouteDigest)> {
        self.routes.iter().filter(move |(key, route)| key.0 == namespace && route.carries(name))
    }

    fn similar(&self, namespace: &str, name: &str) -> Option<String> {
        let local = self.routes.iter().filter(|(key, _)| key.0 == namespace).map(|(_, route)| route);
        let all: Vec<&str> = local.take(COMPARED).flat_map(|route| route.names()).collect();
        nearest(name, all).map(str::to_owned)
    }

    fn backend(
        &self,
        model_serving: &ModelServing,
        own_namespace: &str,
        (namespace, server): Place<'_>,
        servers: &BTreeMap<(&str, &str), &ServerDigest>,
    ) -> Backend {
        let Some(name) = server else { return Backend::Outside };
        let full_name = format!("{namespace}/{name}");
        let Some(server) = servers.get(&(namespace, name)) else {
            return Backend::Missing(full_name);
        };
        let selected = self
            .present()
            .filter(|found| found.metadata.namespace.as_deref() == Some(namespace) && server.selects(found));
        let (own, others): (Vec<_>, Vec<_>) = selected.partition(|found| is_same(found, model_serving));
        let others = first(others.into_iter());
        let selects_none = own.is_empty() && others.is_empty() && namespace == own_namespace;
        let labels = server.labels.clone().into_iter().filter(|_| selects_none);
        Backend::Server(ServerBackend {
            name: full_name,
            is_own: !own.is_empty(),
            disaggregated: server.disaggregated,
            others,
            labels: labels.collect(),
        })
    }

    fn claimants(&self, model_serving: &ModelServing, names: &[&str]) -> Vec<String> {
        let others = self.present().filter(|other| !is_same(other, model_serving));
        first(others.filter(|other| other.model_names().any(|name| names.contains(&name))))
    }

    /// ModelServings that are not being deleted.
    fn present(&self) -> impl Iterator<Item = &ModelServing> {
        self.model_servings
            .iter()
            .map(AsRef::as_ref)
            .filter(|found| found.metadata.deletion_timestamp.is_none())
    }
}

/// Names in the annotation without repetitions, at most [`NAMES_MAX`].
fn listed_names(model_serving: &ModelServing) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in model_serving.model_names() {
        if names.len() < NAMES_MAX && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Namespace and name of a ModelServer; no name for a provider outside the cluster.
type Place<'a> = (&'a str, Option<&'a str>);

/// Places to which the router sends requests for these names, and those of unused routes of `namespace`; the
/// places in `namespace` first, and at most [`PLACES_MAX`].
pub fn targets<'a>(
    namespace: &str,
    names: &[&str],
    routes: &[(&'a Key, &'a RouteDigest)],
) -> Vec<(&'a str, Option<&'a str>)> {
    let table = RouteTable::new(routes);
    let targets: Vec<Targets<'a>> = names.iter().map(|name| targets_of(&table, name, namespace)).collect();
    distinct(namespace, &targets)
}

fn distinct<'a>(namespace: &str, targets: &[Targets<'a>]) -> Vec<Place<'a>> {
    let places =
        targets.iter().flat_map(BTreeMap::keys).map(|target| (target.route.0.as_str(), target.server));
    let (own, others): (BTreeSet<_>, BTreeSet<_>) = places.partition(|(of, _)| *of == namespace);
    own.into_iter().chain(others).take(PLACES_MAX).collect()
}

/// A route, and the name of a ModelServer in its namespace; `None` for a provider outside the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Target<'a> {
    route: &'a Key,
    server: Option<&'a str>,
}

/// Use of a target by the router.
#[derive(Clone, Copy)]
struct Use {
    usage: Usage,
    at_other_gateway: bool,
}

type Targets<'a> = BTreeMap<Target<'a>, Use>;

/// Targets of the routes that the router uses for a name, and those of unused routes of the namespace.
///
/// Only listeners at which routes of the namespace carry the name are of interest: routes at the router's own
/// port and at Gateways never compete. The other Gateways are added for a name that has a Gateway itself.
fn targets_of<'a>(table: &RouteTable<'a>, name: &str, namespace: &str) -> Targets<'a> {
    let by_listener = table.by_listener(name);
    let mut own: BTreeSet<Listener<'_>> = BTreeSet::new();
    for (listener, routes) in &by_listener {
        own.extend(routes.iter().any(|(key, _)| key.0 == namespace).then_some(*listener));
    }
    if own.is_empty() {
        own.insert(None);
    }
    let has_gateway = own.iter().any(Option::is_some);
    let is_of_interest =
        |listener: &Listener<'_>| own.contains(listener) || (has_gateway && listener.is_some());
    let mut targets = Targets::new();
    for (listener, routes) in by_listener.iter().filter(|(listener, _)| is_of_interest(listener)) {
        let at_other_gateway = !own.contains(listener);
        for used in used(name, routes) {
            for target in used.targets {
                let usage = if target.receives { Usage::Receives } else { Usage::NoWeight };
                add(&mut targets, used.key, target, Use { usage, at_other_gateway });
            }
            // A route without any weight has no effect on the models of other namespaces.
            for target in used.without_weight.into_iter().filter(|_| used.key.0 == namespace) {
                add(&mut targets, used.key, target, Use { usage: Usage::NoWeight, at_other_gateway });
            }
        }
    }
    for (key, route) in table.carrying(name).filter(|(key, _)| key.0 == namespace) {
        for target in route.targets() {
            add(&mut targets, key, target, Use { usage: Usage::Unused, at_other_gateway: false });
        }
    }
    targets
}

fn add<'a>(targets: &mut Targets<'a>, route: &'a Key, target: &'a TargetDigest, found: Use) {
    let target = Target { route, server: target.server.as_deref() };
    let known = targets.entry(target).or_insert(Use { usage: Usage::Unused, ..found });
    known.usage = known.usage.min(found.usage);
    known.at_other_gateway &= found.at_other_gateway;
}

/// Destinations of one name; of those that do not lead to the model only the first few.
fn destinations(targets: &Targets<'_>, backends: &BTreeMap<Place<'_>, Backend>) -> Vec<Destination> {
    let found = targets.iter().filter_map(|(target, found)| {
        Some(Destination {
            at_other_gateway: found.at_other_gateway,
            usage: found.usage,
            route: display(target.route),
            backend: backends.get(&(target.route.0.as_str(), target.server))?.clone(),
        })
    });
    let is_own = |found: &Destination| matches!(&found.backend, Backend::Server(server) if server.is_own);
    let (mut kept, mut others): (Vec<_>, Vec<_>) = found.partition(is_own);
    others.retain(|found| found.usage != Usage::Unused);
    others.sort();
    others.truncate(DESTINATIONS_KEPT);
    kept.extend(others);
    kept.sort();
    kept
}

fn display((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

/// The first [`OTHERS_KEPT`], by namespace and name.
fn first<'a>(found: impl Iterator<Item = &'a ModelServing>) -> Vec<String> {
    let keys: BTreeSet<Key> = found.map(key).collect();
    keys.iter().take(OTHERS_KEPT).map(display).collect()
}

fn is_same(a: &ModelServing, b: &ModelServing) -> bool {
    key(a) == key(b)
}

#[cfg(test)]
mod tests {
    use super::{super::LiveModelRoute, *};
    use serde_json::json;

    /// Routes of another tenant for one name, each at a few Gateways of its own.
    fn routes(count: usize) -> Vec<(Key, RouteDigest)> {
        let route = |i: usize| {
            let gateways: Vec<_> = (0..4).map(|j| json!({"name": format!("gateway-{i}-{j}")})).collect();
            let live: LiveModelRoute = serde_json::from_value(json!({
                "metadata": {"name": format!("route-{i}"), "namespace": "theirs"},
                "spec": {"modelName": "llama", "parentRefs": gateways, "rules": [{"targetModels": [{"modelServerName": "m"}]}]},
            }))
            .unwrap();
            (key(&live), RouteDigest::from(&live))
        };
        (0..count).map(route).collect()
    }

    /// The work of a name is proportional to its routes and their Gateways, and not to the product of the two.
    #[test]
    fn looks_at_each_route_once_for_each_of_its_listeners() {
        let routes = routes(100);
        let routes: Vec<(&Key, &RouteDigest)> = routes.iter().map(|(key, route)| (key, route)).collect();
        let by_listener = RouteTable::new(&routes).by_listener("llama");
        assert_eq!((by_listener.len(), by_listener.values().map(Vec::len).sum::<usize>()), (400, 400));
        assert_eq!(targets("theirs", &["llama"], &routes), [("theirs", Some("m"))]);
    }
}
