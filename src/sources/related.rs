//! What of everything that was seen is near to one model: there may be thousands of others, and nobody looks at all of them.
//!
//! In: a ModelServing, or what changed. Out: how requests reach it, and what others have in common with it.

use std::{collections::BTreeSet, sync::Arc};

use kube::ResourceExt as _;

use super::{Caches, ModelServingDigest, index_keys, model_digest::selecting};
use crate::{
    cache::{Digest as _, IndexKey},
    cluster::discovery::ServedApis,
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
    observed::{COMPARED, NAMED, Network, Routing, ServerDigest},
};

/// The names that clients send for a model.
struct Names {
    /// Adapters included.
    all: BTreeSet<String>,
    /// The routes among whose names one may be meant that no route carries.
    similar_in: Vec<Key>,
}

impl Caches {
    /// Decided by those parts of the network alone that concern the model: there may be many others.
    pub(super) fn routing(&self, model_serving: &ModelServing, served: ServedApis) -> Routing {
        if !model_serving.is_opted_in() {
            return Routing::default();
        }
        let (namespace, own) = (model_serving.namespace().unwrap_or_default(), key(model_serving));
        let names = self.names(model_serving, &namespace);
        let about: Vec<IndexKey> = names.all.iter().map(|name| index_keys::model_name(name)).collect();
        let selecting = selecting(&namespace, &own.1, &model_serving.spec.template.roles);
        self.routes.with_matching(&about, &names.similar_in, |routes| {
            let targets = routes
                .iter()
                .flat_map(|(key, route)| route.servers().map(|server| (key.0.clone(), server.to_owned())));
            self.servers.with_matching(&selecting, &targets.collect::<Vec<_>>(), |servers| {
                let model_servings = self.others_and(&own, &names.all, servers);
                Network {
                    are_served: served.network.routes,
                    routes,
                    servers,
                    model_servings: &model_servings,
                }
                .routing(model_serving)
            })
        })
    }

    fn names(&self, model_serving: &ModelServing, namespace: &str) -> Names {
        let mut all: BTreeSet<String> = model_serving.model_names().map(str::to_owned).collect();
        let about: Vec<IndexKey> = all.iter().map(|name| index_keys::model_name(name)).collect();
        let carried: BTreeSet<String> = self.routes.with_matching(&about, &[], |routes| {
            let here = routes.iter().filter(|(key, _)| key.0 == namespace);
            here.flat_map(|(_, route)| route.names()).map(str::to_owned).collect()
        });
        let is_misspelt = !all.is_subset(&carried);
        let similar_in = if is_misspelt {
            self.routes.keys(index_keys::namespace(namespace), COMPARED)
        } else {
            Vec::new()
        };
        all.extend(carried);
        Names { all, similar_in }
    }

    /// The first few ModelServings that claim one of the names or are selected by one of the servers, and the one that it is about.
    fn others_and(
        &self,
        own: &Key,
        names: &BTreeSet<String>,
        servers: &[(&Key, &ServerDigest)],
    ) -> Vec<Arc<ModelServing>> {
        let claiming = names.iter().flat_map(|name| {
            self.model_digests.keys(index_keys::model_name(name), NAMED, |of, peer| peer.stays() && of != own)
        });
        let selected = servers.iter().flat_map(|(key, server)| self.selected(key, server, own));
        let keys: BTreeSet<Key> = claiming.chain(selected).chain([own.clone()]).collect();
        keys.iter().filter_map(|key| self.model_serving(key)).collect()
    }

    /// The first few ModelServings besides one whose pods a ModelServer selects.
    fn selected(&self, (namespace, name): &Key, server: &ServerDigest, besides: &Key) -> Vec<Key> {
        let is_selected = |of: &Key, peer: &ModelServingDigest| {
            of.0 == *namespace
                && peer.stays()
                && of != besides
                && self.model_serving(of).is_some_and(|found| server.selects(&found))
        };
        let about = server.index_keys(&(namespace.clone(), name.clone()));
        about.into_iter().flat_map(|topic| self.model_digests.keys(topic, NAMED, is_selected)).collect()
    }

    /// What others have in common with a ModelServing that speaks of these topics, or spoke of them: names, and the ModelServers that
    /// select both.
    pub fn shared_by(&self, topics: &[IndexKey]) -> Vec<IndexKey> {
        let selecting = self.servers.with_matching(topics, &[], |servers| {
            servers.iter().flat_map(|(key, server)| server.index_keys(key)).collect::<Vec<_>>()
        });
        topics.iter().copied().filter(|topic| topic.is_of(index_keys::MODEL_NAME)).chain(selecting).collect()
    }

    /// The names that routes lead to a ModelServer.
    pub fn led_to(&self, (namespace, name): &Key) -> Vec<IndexKey> {
        let about = [index_keys::model_server(namespace, name)];
        self.routes.with_matching(&about, &[], |routes| {
            routes.iter().flat_map(|(_, route)| route.names()).map(index_keys::model_name).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::discovery::{PolicyApis, RoutingApis},
        settings::Shard,
    };
    use kthena_keda_core::{
        domain::Capabilities,
        observed::{LiveModelRoute, LiveModelServer},
    };
    use kube::runtime::{reflector, watcher::Event};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const SERVED: ServedApis = ServedApis {
        model_servings: true,
        profiles: true,
        service_monitors: true,
        network: RoutingApis { routes: true, servers: true },
        policies: PolicyApis { policies: true, bindings: true },
        plan: Capabilities::NEWEST,
    };

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
        fn route()(namespace in 0..2u8, name in 0..4u8, model in prop::option::of(0..4u8), adapters in prop::collection::vec(0..4u8, 0..2), targets in prop::collection::vec(prop::option::of(0..4u8), 0..3)) -> Value {
            let targets: Vec<Value> = targets.iter().map(|server| json!({"modelServerName": server.map(|server| format!("o{server}"))})).collect();
            let adapters: Vec<String> = adapters.iter().map(|name| format!("m{name}")).collect();
            let model = model.map(|name| format!("m{name}"));
            json!({"metadata": metadata(namespace, name), "spec": {"modelName": model, "loraAdapters": adapters, "rules": [{"targetModels": targets}]}})
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
        let share = Shard { selector: None, namespaces: Vec::new(), cluster_duties: true };
        let caches = Caches::new(store, &share, "kthena-system");
        for object in &world.model_servings {
            let event = Event::Apply(serde_json::from_value::<ModelServing>(object.clone()).unwrap());
            writer.apply_watcher_event(&event);
            caches.model_digests.apply_event(&event, &mut BTreeSet::new());
        }
        world.routes.iter().for_each(|object| {
            caches.routes.record_write(&serde_json::from_value::<LiveModelRoute>(object.clone()).unwrap())
        });
        world.servers.iter().for_each(|object| {
            caches.servers.record_write(&serde_json::from_value::<LiveModelServer>(object.clone()).unwrap())
        });
        caches
    }

    #[test]
    fn one_that_was_meant_is_looked_for_among_the_first_of_many() {
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
            caches.routing(model_serving, SERVED).unrouted
        };
        let suggestion = |suggested: usize| [(name(COMPARED + 7) + "x", Some(name(suggested)))];
        assert_eq!(found(&name(COMPARED + 7)), []);
        assert_eq!(found(&(name(COMPARED + 7) + "x")), suggestion(7));
    }

    proptest! {
        #[test]
        fn what_is_near_tells_as_much_as_everything(world in world()) {
            let caches = caches(&world);
            let (routes, servers) = (caches.routes.all(), caches.servers.all());
            let (routes, servers): (Vec<_>, Vec<_>) = (routes.iter().map(|(key, route)| (key, route)).collect(), servers.iter().map(|(key, server)| (key, server)).collect());
            let model_servings = caches.model_servings.state();
            let everything = Network { are_served: true, routes: &routes, servers: &servers, model_servings: &model_servings };
            for model_serving in &model_servings {
                let near = caches.routing(model_serving, SERVED);
                prop_assert_eq!(near, if model_serving.is_opted_in() { everything.routing(model_serving) } else { Routing::default() });
            }
        }
    }
}
