//! The router's choice among the ModelRoutes of one name.
//!
//! Routes whose `modelName` is the name come before routes that have it as an adapter, whether or not they
//! match; then the oldest comes first. The first rule that matches applies, and a route without a matching
//! rule leaves the request to the next one. Source: Kthena `pkg/kthena-router/datastore/store.go`,
//! `MatchModelServer`.

use std::collections::{BTreeMap, BTreeSet};

use super::digest::{Matches, RouteDigest, TargetDigest};
use crate::domain::Key;

/// A route and its key.
pub(super) type Route<'a> = (&'a Key, &'a RouteDigest);

/// Entry of requests into the router: its own port, or a Gateway.
pub(super) type Listener<'a> = Option<&'a Key>;

/// ModelRoutes by the names that they carry, in the router's order.
#[derive(Default)]
pub(super) struct RouteTable<'a> {
    by_model: BTreeMap<&'a str, Vec<Route<'a>>>,
    by_adapter: BTreeMap<&'a str, Vec<Route<'a>>>,
}

/// A route that the router uses for some requests for a name.
pub(super) struct UsedRoute<'a> {
    pub(super) key: &'a Key,
    /// Targets of the rules that apply to some requests.
    pub(super) targets: Vec<&'a TargetDigest>,
    /// Targets of rules that would apply, but whose targets all have weight 0.
    pub(super) without_weight: Vec<&'a TargetDigest>,
}

impl<'a> RouteTable<'a> {
    pub(super) fn new(routes: &[Route<'a>]) -> Self {
        let mut table = Self::default();
        let mut ordered = routes.to_vec();
        ordered.sort_by(|(key, route), (other_key, other)| {
            route.age.cmp(&other.age).then_with(|| key.cmp(other_key))
        });
        for route in ordered {
            if let Some(model) = &route.1.model {
                table.by_model.entry(model).or_default().push(route);
            }
            for adapter in &route.1.adapters {
                table.by_adapter.entry(adapter).or_default().push(route);
            }
        }
        table
    }

    /// Routes that the router considers for a name, in its order.
    fn candidates(&self, name: &str) -> &[Route<'a>] {
        let found = self.by_model.get(name).or_else(|| self.by_adapter.get(name));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Routes that carry a name, whether or not the router considers them.
    pub(super) fn carrying(&self, name: &str) -> impl Iterator<Item = Route<'a>> {
        [&self.by_model, &self.by_adapter].into_iter().filter_map(move |by| by.get(name)).flatten().copied()
    }

    /// Routes that the router considers for a name at each listener, in its order.
    pub(super) fn by_listener(&self, name: &str) -> BTreeMap<Listener<'a>, Vec<Route<'a>>> {
        let mut by_listener: BTreeMap<Listener<'a>, Vec<Route<'a>>> = BTreeMap::new();
        for route in self.candidates(name) {
            for listener in listeners(route.1) {
                by_listener.entry(listener).or_default().push(*route);
            }
        }
        by_listener
    }
}

/// Routes that the router uses for requests for a name, of those at one listener; the others have no effect.
pub(super) fn used<'a>(name: &str, candidates: &[Route<'a>]) -> Vec<UsedRoute<'a>> {
    let mut used = Vec::new();
    for (key, route) in candidates {
        let (route, is_final) = apply(key, route, name);
        used.push(route);
        if is_final {
            break;
        }
    }
    used
}

fn listeners(route: &RouteDigest) -> BTreeSet<Listener<'_>> {
    if route.gateways.is_empty() { [None].into() } else { route.gateways.iter().map(Some).collect() }
}

/// Applies the rules of a route to a name; `true` if that leaves no request to the next route.
fn apply<'a>(key: &'a Key, route: &'a RouteDigest, name: &str) -> (UsedRoute<'a>, bool) {
    let mut used = UsedRoute { key, targets: Vec::new(), without_weight: Vec::new() };
    let mut is_final = true;
    for rule in &route.rules {
        let matches = rule.matches(name);
        match (matches, rule.has_destination()) {
            (Matches::None, _) => {}
            (_, true) => used.targets.extend(&rule.targets),
            (_, false) => {
                is_final = false;
                used.without_weight.extend(&rule.targets);
            }
        }
        if matches == Matches::All {
            return (used, is_final);
        }
    }
    (used, false)
}
