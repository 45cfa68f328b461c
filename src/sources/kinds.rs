//! The table of watched kinds: what each is served as, where it is watched, what plans need of it, where its digests are kept and what a
//! change requeues. Discovery, watches, live reads, manifests, readiness and the RBAC documentation all read it.
//!
//! A new kind is one implementation of [`WatchedKind`], one line in [`visit_all`] and one field of [`Stores`].

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, api::core::v1::Service};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::{OptIn, index_keys};
use crate::{
    cache::{Digest, DigestStore, IndexKey, Scope},
    cluster::discovery::{ServedApis, WatchedApi},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::Key,
    observed::{
        HpaDigest, LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy,
        LiveProfile, LiveScaledObject, LiveServiceMonitor, MonitorDigest, PolicyDigest, ProfileDigest,
        RouteDigest, RouterService, ScaledObjectDigest, ServerDigest,
    },
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Whether the API server always serves the kind.
    pub availability: Availability,
    /// Namespaces in which the kind is watched.
    pub area: Area,
    /// No plan is made before the first list of the kind is complete, if the cluster serves it.
    pub is_input_of_plans: bool,
    /// What a change of an object requeues.
    pub requeues: Requeues,
}

/// Whether a kind is part of Kubernetes or of a component that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Part of Kubernetes.
    BuiltIn,
    /// Served by a component that may come and go, and reported by the metric under this name.
    Optional(&'static str),
    /// Served by some releases of a component only, so its absence means nothing.
    SomeReleases,
}

/// Namespaces in which a kind is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The namespaces of this instance's ModelServings.
    Models,
    /// These, and the router's namespace.
    ModelsAndRouter,
    /// The router's namespace.
    Router,
    /// The whole cluster, or the kind has no namespaces.
    Cluster,
    /// The whole cluster, where this instance has cluster duties and only some of the ModelServings.
    ClusterDuties,
}

/// What a change of an object requeues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeues {
    /// The ModelServings that the object scales or scaled, and the one for which it is generated.
    Targets,
    /// These, and the router's ServiceMonitor.
    TargetsAndRouterMonitor,
    /// The router's ServiceMonitor.
    RouterMonitor,
    /// The router's ServiceMonitor and the status of profiles.
    ClusterWorkers,
    /// The ModelServings that use the profile, the cluster workers and the signal probe.
    ProfileUsers,
    /// The ModelServings whose names the route carries or carried.
    ModelNames,
    /// The ModelServings that the ModelServer selects or selected, and those whose names lead to it.
    ModelServerUsers,
}

/// A kind that is watched, and kept as a digest of each object.
pub trait WatchedKind:
    Resource<DynamicType = (), Scope: WatchScope<Self>> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// What is kept of an object.
    type Digest: Digest + Debug + for<'a> From<&'a Self>;
    /// The row of the kind.
    const ROW: Row;

    /// The digests of the kind.
    fn store(stores: &Stores) -> &DigestStore<Self::Digest>;

    /// Whether the cluster serves the kind.
    fn is_served(served: &ServedApis) -> bool {
        Self::ROW.availability == Availability::BuiltIn
            || served.serves(&Self::group(&()), &Self::plural(&()))
    }

    /// Whether every object that plans need is known.
    fn has_synced(stores: &Stores, served: &ServedApis) -> bool {
        !Self::is_served(served) || Self::store(stores).has_synced()
    }
}

/// Builds the API handle of one watch, for namespaced and for cluster-scoped kinds.
pub trait WatchScope<K> {
    /// The objects of one namespace, or all objects.
    fn api(client: &Client, scope: &Scope) -> Api<K>;
}

impl<K: Resource<DynamicType = (), Scope = Self>> WatchScope<K> for NamespaceResourceScope {
    fn api(client: &Client, scope: &Scope) -> Api<K> {
        match scope {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

impl<K: Resource<DynamicType = (), Scope = Self>> WatchScope<K> for ClusterResourceScope {
    fn api(client: &Client, _: &Scope) -> Api<K> {
        Api::all(client.clone())
    }
}

/// Does something with every kind of the table.
pub trait KindVisitor {
    /// Does it with one kind.
    fn visit<K: WatchedKind>(&mut self);
}

/// Visits every kind of the table.
pub fn visit_all(visitor: &mut impl KindVisitor) {
    visitor.visit::<LiveScaledObject>();
    visitor.visit::<LiveProfile>();
    visitor.visit::<LivePodMonitor>();
    visitor.visit::<LiveModelRoute>();
    visitor.visit::<LiveModelServer>();
    visitor.visit::<LiveHpa>();
    visitor.visit::<LivePolicy>();
    visitor.visit::<LiveBinding>();
    visitor.visit::<LiveServiceMonitor>();
    visitor.visit::<Service>();
    visitor.visit::<ModelServing>();
}

/// The digests of every kind of the table.
#[derive(Debug)]
pub struct Stores {
    pub(super) scaled_objects: DigestStore<ScaledObjectDigest>,
    pub(super) profiles: DigestStore<ProfileDigest>,
    pub(super) pod_monitors: DigestStore<MonitorDigest>,
    pub(super) routes: DigestStore<RouteDigest>,
    pub(super) servers: DigestStore<ServerDigest>,
    pub(super) hpas: DigestStore<HpaDigest>,
    pub(super) policies: DigestStore<PolicyDigest>,
    pub(super) bindings: DigestStore<PolicyDigest>,
    pub(super) service_monitors: DigestStore<MonitorDigest>,
    pub(super) services: DigestStore<RouterService>,
    pub(super) opt_ins: DigestStore<OptIn>,
}

impl Stores {
    /// Empty stores; `scopes` are the watches that fill those of an area.
    pub(super) fn new(scopes: impl Fn(Area) -> Vec<Scope>) -> Self {
        Self {
            scaled_objects: store::<LiveScaledObject>(&scopes),
            profiles: store::<LiveProfile>(&scopes),
            pod_monitors: store::<LivePodMonitor>(&scopes),
            routes: store::<LiveModelRoute>(&scopes),
            servers: store::<LiveModelServer>(&scopes),
            hpas: store::<LiveHpa>(&scopes),
            policies: store::<LivePolicy>(&scopes),
            bindings: store::<LiveBinding>(&scopes),
            service_monitors: store::<LiveServiceMonitor>(&scopes),
            services: store::<Service>(&scopes),
            opt_ins: store::<ModelServing>(&scopes),
        }
    }

    /// Records an object in the store of `K`: what the API server returned to a write, or what a manifest holds.
    pub fn record<K: WatchedKind, O: Resource>(&self, object: &O)
    where
        K::Digest: for<'a> From<&'a O>,
    {
        K::store(self).record_write(object);
    }
}

fn store<K: WatchedKind>(scopes: &impl Fn(Area) -> Vec<Scope>) -> DigestStore<K::Digest> {
    DigestStore::of(scopes(K::ROW.area))
}

/// The optional APIs of the table, for discovery.
pub fn optional_apis() -> Vec<WatchedApi> {
    struct Collect(Vec<WatchedApi>);
    impl KindVisitor for Collect {
        fn visit<K: WatchedKind>(&mut self) {
            let label = match K::ROW.availability {
                Availability::BuiltIn => return,
                Availability::Optional(label) => Some(label),
                Availability::SomeReleases => None,
            };
            let (group, version, plural) = (K::group(&()), K::version(&()), K::plural(&()));
            self.0.push(WatchedApi {
                group: group.into(),
                version: version.into(),
                plural: plural.into(),
                label,
            });
        }
    }
    let mut apis = Collect(Vec::new());
    visit_all(&mut apis);
    apis.0
}

impl WatchedKind for LiveScaledObject {
    type Digest = ScaledObjectDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("keda"),
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::Targets,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.scaled_objects
    }
}

impl Digest for ScaledObjectDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        self.target
            .model_serving()
            .map(|name| index_keys::model_serving(namespace, name))
            .into_iter()
            .collect()
    }
}

impl WatchedKind for LiveProfile {
    type Digest = ProfileDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("autoscalingprofiles"),
        area: Area::Cluster,
        is_input_of_plans: true,
        requeues: Requeues::ProfileUsers,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.profiles
    }
}

impl Digest for ProfileDigest {}

impl WatchedKind for LivePodMonitor {
    type Digest = MonitorDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("podmonitors"),
        area: Area::ModelsAndRouter,
        is_input_of_plans: true,
        requeues: Requeues::TargetsAndRouterMonitor,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.pod_monitors
    }
}

impl WatchedKind for LiveServiceMonitor {
    type Digest = MonitorDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("servicemonitors"),
        area: Area::ModelsAndRouter,
        is_input_of_plans: false,
        requeues: Requeues::RouterMonitor,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.service_monitors
    }
}

impl Digest for MonitorDigest {}

impl WatchedKind for LiveModelRoute {
    type Digest = RouteDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("modelroutes"),
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::ModelNames,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.routes
    }
}

impl Digest for RouteDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        let servers = self.servers().map(|server| index_keys::model_server(namespace, server));
        self.names()
            .map(index_keys::model_name)
            .chain(servers)
            .chain([index_keys::namespace(namespace)])
            .collect()
    }
}

impl WatchedKind for LiveModelServer {
    type Digest = ServerDigest;
    const ROW: Row = Row {
        availability: Availability::Optional("modelservers"),
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::ModelServerUsers,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.servers
    }
}

impl Digest for ServerDigest {
    /// The label that selects the fewest ModelServings: Kthena's own label of their name, else one that users set, else the namespace.
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        let name = self.labels().get("modelserving.volcano.sh/name");
        let name = name.map(|name| index_keys::model_serving(namespace, name));
        let user_label = self.labels().iter().find(|(key, _)| !key.starts_with("modelserving.volcano.sh/"));
        let user_label = user_label.map(|(key, value)| index_keys::label(namespace, key, value));
        vec![name.or(user_label).unwrap_or_else(|| index_keys::namespace(namespace))]
    }
}

impl WatchedKind for LiveHpa {
    type Digest = HpaDigest;
    const ROW: Row = Row {
        availability: Availability::BuiltIn,
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::Targets,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.hpas
    }
}

impl Digest for HpaDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        self.target
            .model_serving()
            .map(|name| index_keys::model_serving(namespace, name))
            .into_iter()
            .collect()
    }
}

impl WatchedKind for LivePolicy {
    type Digest = PolicyDigest;
    const ROW: Row = Row {
        availability: Availability::SomeReleases,
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::Targets,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.policies
    }
}

impl WatchedKind for LiveBinding {
    type Digest = PolicyDigest;
    const ROW: Row = Row {
        availability: Availability::SomeReleases,
        area: Area::Models,
        is_input_of_plans: true,
        requeues: Requeues::Targets,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.bindings
    }
}

impl Digest for PolicyDigest {
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        self.model_servings()
            .iter()
            .map(|(namespace, name)| index_keys::model_serving(namespace, name))
            .collect()
    }
}

impl WatchedKind for Service {
    type Digest = RouterService;
    const ROW: Row = Row {
        availability: Availability::BuiltIn,
        area: Area::Router,
        is_input_of_plans: false,
        requeues: Requeues::RouterMonitor,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.services
    }
}

impl Digest for RouterService {}

/// Only the opt-ins of the cluster are kept as digests; this instance's ModelServings are kept whole, in
/// [`Caches::model_servings`](super::Caches::model_servings).
impl WatchedKind for ModelServing {
    type Digest = OptIn;
    const ROW: Row = Row {
        availability: Availability::Optional("modelservings"),
        area: Area::ClusterDuties,
        is_input_of_plans: false,
        requeues: Requeues::ClusterWorkers,
    };

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.opt_ins
    }
}
