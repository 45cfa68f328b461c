//! Objects related to one model, found by index keys: a reconcile looks at these and not at all models.
//!
//! In: a ModelServing, or the index keys of a change. Out: how requests reach it, and the index keys that it shares with others.

use std::{collections::BTreeSet, sync::Arc};

use kube::ResourceExt as _;

use super::{Caches, ModelServingDigest, index_keys, kinds::WatchedKind as _, model_digest::selecting};
use crate::{
    cache::{Digest as _, IndexKey, Shared},
    cluster::discovery::ServedApis,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    observed::{
        COMPARED, LiveModelRoute, Network, OTHERS_KEPT, PLACES_MAX, Routing, ServerDigest, further_names,
        targets,
    },
};

impl Caches {
    /// Routing of requests to a ModelServing, from the related routes, servers and ModelServings alone.
    pub(super) fn routing(&self, model_serving: &ModelServing, served: &ServedApis) -> Routing {
        if !model_serving.is_opted_in() {
            return Routing::default();
        }
        let (namespace, own) = (model_serving.namespace().unwrap_or_default(), key(model_serving));
        let selecting = selecting(&namespace, &own.1, &model_serving.spec.template.roles);
        let own_servers = self.own_servers(model_serving, &namespace, &selecting);
        let names = self.names(model_serving, &namespace, &own_servers);
        let carrying = names.iter().map(|name| index_keys::model_name(name));
        let leading = own_servers.iter().map(|name| index_keys::model_server(&namespace, name));
        let keys: Vec<IndexKey> = carrying.chain(leading).collect();
        let routes = self.stores.routes.matching(&keys, &self.similar_in(model_serving, &namespace));
        let sent: Vec<&str> = names.iter().map(String::as_str).collect();
        let targets: Vec<Key> = targets(&namespace, &sent, &borrowed(&routes))
            .into_iter()
            .filter_map(|(namespace, server)| Some((namespace.to_owned(), server?.to_owned())))
            .collect();
        let servers = self.stores.servers.matching(&selecting, &targets);
        let destinations = self.stores.servers.matching(&[], &targets);
        let network = Network {
            routes_are_served: LiveModelRoute::is_served(served),
            routes: &borrowed(&routes),
            servers: &borrowed(&servers),
            model_servings: &self.related_model_servings(&own, &names, &destinations),
        };
        network.routing(model_serving)
    }

    /// Names that clients send for a model: the listed ones, and those that routes add.
    fn names(
        &self,
        model_serving: &ModelServing,
        namespace: &str,
        own_servers: &[String],
    ) -> BTreeSet<String> {
        let listed: Vec<&str> = model_serving.model_names().collect();
        let keys: Vec<IndexKey> = listed
            .iter()
            .map(|name| index_keys::model_name(name))
            .chain(own_servers.iter().map(|name| index_keys::model_server(namespace, name)))
            .collect();
        let routes = self.stores.routes.matching_in(namespace, &keys);
        let local = routes.iter().map(|(_, route)| &**route);
        let own_servers: Vec<&str> = own_servers.iter().map(String::as_str).collect();
        let (further, _) = further_names(&listed, &own_servers, local);
        listed.into_iter().chain(further.into_keys()).map(str::to_owned).collect()
    }

    /// Names of the ModelServers that select a model's pods.
    fn own_servers(
        &self,
        model_serving: &ModelServing,
        namespace: &str,
        selecting: &[IndexKey],
    ) -> Vec<String> {
        let servers = self.stores.servers.matching_in(namespace, selecting);
        let own = servers.iter().filter(|(_, server)| server.selects(model_serving));
        own.take(PLACES_MAX).map(|(key, _)| key.1.clone()).collect()
    }

    /// The routes to search for a similar name, if no route of the namespace carries one of the listed names.
    fn similar_in(&self, model_serving: &ModelServing, namespace: &str) -> Vec<Key> {
        let mut names = model_serving.model_names();
        let is_carried = |name: &str| {
            !self.stores.routes.matching_in(namespace, &[index_keys::model_name(name)]).is_empty()
        };
        if names.all(is_carried) {
            return Vec::new();
        }
        self.stores.routes.keys(index_keys::namespace(namespace), COMPARED)
    }

    /// The model itself, and the first few ModelServings that claim one of its names or that one of the servers selects.
    fn related_model_servings(
        &self,
        own: &Key,
        names: &BTreeSet<String>,
        servers: &[Shared<ServerDigest>],
    ) -> Vec<Arc<ModelServing>> {
        let is_other = |key: &Key, digest: &ModelServingDigest| !digest.is_deleting() && key != own;
        let claiming = names
            .iter()
            .flat_map(|name| self.model_digests.keys(index_keys::model_name(name), OTHERS_KEPT, is_other));
        let selected = servers.iter().flat_map(|(key, server)| self.selected(key, server, own));
        let keys: BTreeSet<Key> = claiming.chain(selected).chain([own.clone()]).collect();
        keys.iter().filter_map(|key| self.model_serving(key)).collect()
    }

    /// The first few ModelServings, other than `own`, whose pods a ModelServer selects.
    fn selected(&self, (namespace, name): &Key, server: &ServerDigest, own: &Key) -> Vec<Key> {
        let is_selected = |key: &Key, digest: &ModelServingDigest| {
            key.0 == *namespace
                && !digest.is_deleting()
                && key != own
                && self.model_serving(key).is_some_and(|found| server.selects(&found))
        };
        let index_keys = server.index_keys(&(namespace.clone(), name.clone()));
        index_keys
            .into_iter()
            .flat_map(|key| self.model_digests.keys(key, OTHERS_KEPT, is_selected))
            .collect()
    }

    /// The index keys under which changed ModelServings are related to others: their model names, and the ModelServers that select them.
    pub fn shared_index_keys(&self, index_keys: &[IndexKey]) -> Vec<IndexKey> {
        let servers = self.stores.servers.matching(index_keys, &[]);
        let selecting = servers.iter().flat_map(|(key, server)| server.index_keys(key));
        let names = index_keys.iter().copied().filter(|key| key.is_of(index_keys::MODEL_NAME));
        names.chain(selecting).collect()
    }

    /// The index keys of the bindings of a changed policy, the models that they scale among them.
    pub fn index_keys_of_bindings(&self, index_keys: &[IndexKey]) -> Vec<IndexKey> {
        let bindings = self.stores.bindings.matching(index_keys, &[]);
        bindings.iter().flat_map(|(key, binding)| binding.index_keys(key)).collect()
    }

    /// The index keys of the models that changed routes concern: those with one of their names, in the annotation or by another route,
    /// and those that their ModelServers select. The index keys of the routes are those before and after the changes.
    pub fn index_keys_of_routes(&self, index_keys: &[IndexKey]) -> Vec<IndexKey> {
        let names = index_keys.iter().copied().filter(|key| key.is_of(index_keys::MODEL_NAME));
        let targets: Vec<IndexKey> =
            index_keys.iter().copied().filter(|key| key.is_of(index_keys::MODEL_SERVER)).collect();
        let servers = self.stores.servers.matching(&targets, &[]);
        let selecting = servers.iter().flat_map(|(key, server)| server.index_keys(key));
        self.with_names(names.collect()).into_iter().chain(selecting).collect()
    }

    /// The index keys of the models that changed ModelServers concern, beside those that they select: those with a name that routes
    /// lead to one of them.
    pub fn index_keys_routed_to<'a>(&self, servers: impl IntoIterator<Item = &'a Key>) -> Vec<IndexKey> {
        let leading: Vec<IndexKey> =
            servers.into_iter().map(|(namespace, name)| index_keys::model_server(namespace, name)).collect();
        let routes = self.stores.routes.matching(&leading, &[]);
        self.with_names(
            routes.iter().flat_map(|(_, route)| route.names()).map(index_keys::model_name).collect(),
        )
    }

    /// Index keys of the models with any of these names, in the annotation or by a route.
    fn with_names(&self, names: Vec<IndexKey>) -> Vec<IndexKey> {
        let routes = self.stores.routes.matching(&names, &[]);
        let targets: Vec<Key> = routes
            .iter()
            .flat_map(|(key, route)| route.servers().map(|server| (key.0.clone(), server.to_owned())))
            .collect();
        let servers = self.stores.servers.matching(&[], &targets);
        names.into_iter().chain(servers.iter().flat_map(|(key, server)| server.index_keys(key))).collect()
    }
}

pub(super) fn borrowed<D>(digests: &[Shared<D>]) -> Vec<(&Key, &D)> {
    digests.iter().map(|(key, digest)| (&**key, &**digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::discovery::Presence, settings::Shard, sources::kinds::optional_apis};
    use kthena_keda_core::{domain::Capabilities, observed::LiveModelServer};
    use kube::runtime::{reflector, watcher::Event};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn everything_served() -> ServedApis {
        ServedApis::new(optional_apis().into_iter().map(|api| (api, Presence::Served)), Capabilities::NEWEST)
    }

    /// Few of everything, so that much is shared.
    #[derive(Clone, Debug)]
    struct World {
        model_servings: Vec<Value>,
        routes: Vec<Value>,
        servers: Vec<Value>,
    }

    fn metadata(namespace: u8, name: u8) -> Value {
        json!({"namespace": format!("n{namespace}"), "name": format!("o{name}"), "resourceVersion": "1"})
    }

    prop_compose! {
        fn model_serving()(namespace in 0..2u8, name in 0..9u8, names in prop::collection::vec(0..3u8, 0..3), team in 0..2u8, leaves in prop::bool::weighted(0.1)) -> Value {
            let mut metadata = metadata(namespace, name);
            let names: Vec<String> = names.iter().map(|name| format!("m{name}")).collect();
            if !names.is_empty() {
                metadata["annotations"] = json!({"kthena.io/model-name": names.join(",")});
            }
            if leaves {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let labels = json!({"team": format!("t{team}")});
            json!({"metadata": metadata, "spec": {"template": {"roles": [{"name": "engine", "entryTemplate": {"metadata": {"labels": labels}}}]}}})
        }
    }

    prop_compose! {
        fn route()(namespace in 0..2u8, name in 0..4u8, created in 0..3u8, gateway in prop::option::weighted(0.3, 0..2u8), model in prop::option::of(0..4u8), adapters in prop::collection::vec(0..4u8, 0..2), targets in prop::collection::vec(prop::option::of(0..4u8), 0..3)) -> Value {
            let targets: Vec<Value> = targets.iter().map(|server| json!({"modelServerName": server.map(|server| format!("o{server}"))})).collect();
            let adapters: Vec<String> = adapters.iter().map(|name| format!("m{name}")).collect();
            let model = model.map(|name| format!("m{name}"));
            let mut metadata = metadata(namespace, name);
            if created > 0 {
                metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{created}Z"));
            }
            let gateways: Vec<Value> = gateway.iter().map(|name| json!({"name": format!("g{name}"), "namespace": "n0"})).collect();
            json!({"metadata": metadata, "spec": {"modelName": model, "loraAdapters": adapters, "parentRefs": gateways, "rules": [{"targetModels": targets}]}})
        }
    }

    prop_compose! {
        fn server()(namespace in 0..2u8, name in 0..4u8, label in prop_oneof![
            (0..9u8).prop_map(|name| json!({"modelserving.volcano.sh/name": format!("o{name}")})),
            (0..9u8, 0..2u8).prop_map(|(name, team)| json!({"modelserving.volcano.sh/name": format!("o{name}"), "team": format!("t{team}")})),
            (0..2u8).prop_map(|team| json!({"team": format!("t{team}")})),
            Just(json!({"modelserving.volcano.sh/role": "engine"})),
            Just(json!({})),
        ]) -> Value {
            json!({"metadata": metadata(namespace, name), "spec": {"workloadSelector": {"matchLabels": label}}})
        }
    }

    prop_compose! {
        fn world()(
            model_servings in prop::collection::vec(model_serving(), 0..20),
            routes in prop::collection::vec(route(), 0..6),
            servers in prop::collection::vec(server(), 0..6),
        ) -> World {
            World { model_servings, routes, servers }
        }
    }

    fn caches(world: &World) -> Caches {
        let (store, mut writer) = reflector::store::<ModelServing>();
        let shard =
            Shard { selector: None, namespaces: Vec::new(), cluster_duties: true, stand_in_image: None };
        let caches = Caches::of_shard(store, &shard, "kthena-system");
        for object in &world.model_servings {
            let event = Event::Apply(serde_json::from_value::<ModelServing>(object.clone()).unwrap());
            writer.apply_watcher_event(&event);
            caches.model_digests.apply_event(&event, &mut BTreeSet::new());
        }
        world.routes.iter().for_each(|object| {
            caches
                .stores
                .record::<LiveModelRoute, LiveModelRoute>(&serde_json::from_value(object.clone()).unwrap());
        });
        world.servers.iter().for_each(|object| {
            caches
                .stores
                .record::<LiveModelServer, LiveModelServer>(&serde_json::from_value(object.clone()).unwrap());
        });
        caches
    }

    #[test]
    fn suggests_a_name_among_the_first_routes_of_many() {
        let name = |i: usize| format!("a-name-that-is-long-{i:03}");
        let route = |i: usize| json!({"metadata": {"namespace": "n0", "name": name(i), "resourceVersion": "1"}, "spec": {"modelName": name(i)}});
        let model_serving = |name: &str| json!({"metadata": {"namespace": "n0", "name": "chat", "annotations": {"kthena.io/model-name": name}}});
        let world = |name: &str| World {
            model_servings: vec![model_serving(name)],
            routes: (0..2 * COMPARED).map(route).collect(),
            servers: Vec::new(),
        };
        let found = |typed: &str| {
            let caches = caches(&world(typed));
            let [model_serving] = &caches.model_servings.state()[..] else { panic!("one ModelServing") };
            let routing = caches.routing(model_serving, &everything_served());
            let unrouted =
                routing.unrouted().into_iter().map(|found| (found.name.clone(), found.similar.clone()));
            unrouted.collect::<Vec<_>>()
        };
        let suggestion = |suggested: usize| [(name(COMPARED + 7) + "x", Some(name(suggested)))];
        assert_eq!(found(&name(COMPARED + 7)), []);
        assert_eq!(found(&(name(COMPARED + 7) + "x")), suggestion(7));
    }

    proptest! {
        #[test]
        fn related_objects_give_the_same_routing_as_all_objects(world in world()) {
            let caches = caches(&world);
            let (routes, servers) = (caches.stores.routes.all(), caches.stores.servers.all());
            let (routes, servers): (Vec<_>, Vec<_>) = (routes.iter().map(|(key, route)| (key, route)).collect(), servers.iter().map(|(key, server)| (key, server)).collect());
            let model_servings = caches.model_servings.state();
            let everything = Network { routes_are_served: true, routes: &routes, servers: &servers, model_servings: &model_servings };
            for model_serving in &model_servings {
                let related = caches.routing(model_serving, &everything_served());
                prop_assert_eq!(related, if model_serving.is_opted_in() { everything.routing(model_serving) } else { Routing::default() });
            }
        }
    }
}
