//! The table: one row for each watched kind.

use k8s_openapi::api::core::v1::Service;
use kube::Resource;

use super::{Area, Availability, KindVisitor, Requeues, Row, WatchedKind};
use crate::{
    cache::{Digest, DigestStore, IndexKey, Scope},
    cluster::server_side_apply::Generated,
    sources::{OptIn, index_keys},
};
use kthena_keda_core::{
    api::{
        keda::ScaledObject,
        kthena::ModelServing,
        model_serving_role::ModelServingRole,
        monitoring::{PodMonitor, ServiceMonitor},
        stand_in::STAND_IN,
    },
    domain::Key,
    observed::{
        BoosterDigest, Fingerprint, HpaDigest, LiveBinding, LiveBooster, LiveHpa, LiveModelRoute,
        LiveModelServer, LivePodMonitor, LivePolicy, LiveProfile, LiveRole, LiveScaledObject,
        LiveServiceMonitor, LiveStandIn, LiveStandInService, MonitorDigest, OwnedObject, PolicyDigest,
        ProfileDigest, RoleDigest, RouteDigest, RouterService, ScaledObjectDigest, ServerDigest,
        StandInDigest, StandInServiceDigest, desired_spec,
    },
};

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
    visitor.visit::<LiveBooster>();
    visitor.visit::<LiveRole>();
    visitor.visit::<LiveServiceMonitor>();
    visitor.visit::<Service>();
    visitor.visit::<LiveStandIn>();
    visitor.visit::<LiveStandInService>();
    visitor.visit::<ModelServing>();
}

/// The digests of every kind of the table.
#[derive(Debug)]
pub struct Stores {
    pub(in crate::sources) scaled_objects: DigestStore<ScaledObjectDigest>,
    pub(in crate::sources) profiles: DigestStore<ProfileDigest>,
    pub(in crate::sources) pod_monitors: DigestStore<MonitorDigest>,
    pub(in crate::sources) routes: DigestStore<RouteDigest>,
    pub(in crate::sources) servers: DigestStore<ServerDigest>,
    pub(in crate::sources) hpas: DigestStore<HpaDigest>,
    pub(in crate::sources) policies: DigestStore<PolicyDigest>,
    pub(in crate::sources) bindings: DigestStore<PolicyDigest>,
    pub(in crate::sources) boosters: DigestStore<BoosterDigest>,
    pub(in crate::sources) roles: DigestStore<RoleDigest>,
    pub(in crate::sources) service_monitors: DigestStore<MonitorDigest>,
    pub(in crate::sources) services: DigestStore<RouterService>,
    pub(in crate::sources) stand_ins: DigestStore<StandInDigest>,
    pub(in crate::sources) stand_in_services: DigestStore<StandInServiceDigest>,
    pub(in crate::sources) opt_ins: DigestStore<OptIn>,
}

impl Stores {
    /// Empty stores; `scopes` are the watches that fill those of an area.
    pub(in crate::sources) fn new(scopes: impl Fn(Area) -> Vec<Scope>) -> Self {
        Self {
            scaled_objects: store::<LiveScaledObject>(&scopes),
            profiles: store::<LiveProfile>(&scopes),
            pod_monitors: store::<LivePodMonitor>(&scopes),
            routes: store::<LiveModelRoute>(&scopes),
            servers: store::<LiveModelServer>(&scopes),
            hpas: store::<LiveHpa>(&scopes),
            policies: store::<LivePolicy>(&scopes),
            bindings: store::<LiveBinding>(&scopes),
            boosters: store::<LiveBooster>(&scopes),
            roles: store::<LiveRole>(&scopes),
            service_monitors: store::<LiveServiceMonitor>(&scopes),
            services: store::<Service>(&scopes),
            stand_ins: store::<LiveStandIn>(&scopes),
            stand_in_services: store::<LiveStandInService>(&scopes),
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

impl WatchedKind for LiveScaledObject {
    type Digest = ScaledObjectDigest;
    const ROW: Row =
        Row::new(Availability::Optional("keda"), Area::Models, Requeues::Targets).awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.scaled_objects
    }
}

impl Generated for ScaledObject {
    type Live = LiveScaledObject;

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_desired(&self.metadata, &self.spec)
    }

    fn desired_spec(&self) -> serde_json::Value {
        desired_spec(&self.spec)
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
    const ROW: Row =
        Row::new(Availability::Optional("autoscalingprofiles"), Area::Cluster, Requeues::ProfileUsers)
            .awaited_by_plans()
            .outliving_its_api();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.profiles
    }
}

impl Digest for ProfileDigest {}

impl WatchedKind for LivePodMonitor {
    type Digest = MonitorDigest;
    const ROW: Row = Row::new(
        Availability::Optional("podmonitors"),
        Area::ModelsAndRouter,
        Requeues::TargetsAndRouterMonitor,
    )
    .awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.pod_monitors
    }
}

impl Generated for PodMonitor {
    type Live = LivePodMonitor;

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_desired(&self.metadata, &self.spec)
    }

    fn desired_spec(&self) -> serde_json::Value {
        desired_spec(&self.spec)
    }
}

impl WatchedKind for LiveServiceMonitor {
    type Digest = MonitorDigest;
    const ROW: Row =
        Row::new(Availability::Optional("servicemonitors"), Area::ModelsAndRouter, Requeues::RouterMonitor);

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.service_monitors
    }
}

impl Generated for ServiceMonitor {
    type Live = LiveServiceMonitor;

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_desired(&self.metadata, &self.spec)
    }

    fn desired_spec(&self) -> serde_json::Value {
        desired_spec(&self.spec)
    }
}

impl Digest for MonitorDigest {}

impl WatchedKind for LiveModelRoute {
    type Digest = RouteDigest;
    const ROW: Row = Row::new(Availability::Optional("modelroutes"), Area::Models, Requeues::RouteUsers)
        .awaited_by_plans()
        .outliving_its_api();

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
    const ROW: Row =
        Row::new(Availability::Optional("modelservers"), Area::Models, Requeues::ModelServerUsers)
            .awaited_by_plans()
            .outliving_its_api();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.servers
    }
}

impl Digest for ServerDigest {
    /// The ModelServer, by which routes refer to it; and the label that selects the fewest ModelServings: Kthena's own label of their
    /// name, else one that users set, else the namespace.
    fn index_keys(&self, (namespace, server): &Key) -> Vec<IndexKey> {
        let name = self.labels().get("modelserving.volcano.sh/name");
        let name = name.map(|name| index_keys::model_serving(namespace, name));
        let user_label = self.labels().iter().find(|(key, _)| !key.starts_with("modelserving.volcano.sh/"));
        let user_label = user_label.map(|(key, value)| index_keys::label(namespace, key, value));
        let selected = name.or(user_label).unwrap_or_else(|| index_keys::namespace(namespace));
        vec![selected, index_keys::model_server(namespace, server)]
    }
}

impl WatchedKind for LiveHpa {
    type Digest = HpaDigest;
    const ROW: Row = Row::new(Availability::BuiltIn, Area::Models, Requeues::Targets).awaited_by_plans();

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
    const ROW: Row =
        Row::new(Availability::SomeReleases, Area::Models, Requeues::PolicyTargets).awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.policies
    }
}

impl WatchedKind for LiveBinding {
    type Digest = PolicyDigest;
    const ROW: Row = Row::new(Availability::SomeReleases, Area::Models, Requeues::Targets).awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.bindings
    }
}

impl Digest for PolicyDigest {
    /// The policy, by which bindings refer to it, and the scaled ModelServings.
    fn index_keys(&self, key: &Key) -> Vec<IndexKey> {
        let (namespace, policy) = self.policy().unwrap_or(key);
        let targets = self.model_servings().iter().chain(self.model_servings_of_roles());
        targets
            .map(|(namespace, name)| index_keys::model_serving(namespace, name))
            .chain([index_keys::policy(namespace, policy)])
            .collect()
    }
}

impl WatchedKind for LiveBooster {
    type Digest = BoosterDigest;
    const ROW: Row =
        Row::new(Availability::Optional("modelboosters"), Area::ModelsOrClusterDuties, Requeues::Controlled)
            .awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.boosters
    }
}

impl Digest for BoosterDigest {}

impl WatchedKind for LiveRole {
    type Digest = RoleDigest;
    const ROW: Row = Row::new(Availability::OwnCrd, Area::Models, Requeues::Targets).awaited_by_plans();

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.roles
    }
}

impl Generated for ModelServingRole {
    type Live = LiveRole;

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_desired(&self.metadata, &self.spec)
    }

    fn desired_spec(&self) -> serde_json::Value {
        desired_spec(&self.spec)
    }
}

impl Digest for RoleDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        vec![index_keys::model_serving(namespace, &self.model_serving)]
    }
}

impl WatchedKind for Service {
    type Digest = RouterService;
    const ROW: Row = Row::new(Availability::BuiltIn, Area::Router, Requeues::RouterMonitor);

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.services
    }
}

impl Digest for RouterService {}

impl WatchedKind for LiveStandIn {
    type Digest = StandInDigest;
    const ROW: Row = Row::new(Availability::BuiltIn, Area::StandIns, Requeues::Targets)
        .awaited_by_plans()
        .labelled(STAND_IN);

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.stand_ins
    }
}

impl Digest for StandInDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        owner_keys(namespace, &self.owned)
    }
}

impl WatchedKind for LiveStandInService {
    type Digest = StandInServiceDigest;
    const ROW: Row = Row::new(Availability::BuiltIn, Area::StandIns, Requeues::Targets)
        .awaited_by_plans()
        .labelled(STAND_IN);

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.stand_in_services
    }
}

impl Digest for StandInServiceDigest {
    fn index_keys(&self, (namespace, _): &Key) -> Vec<IndexKey> {
        owner_keys(namespace, &self.0)
    }
}

impl Generated for Service {
    type Live = LiveStandInService;

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_desired(&self.metadata, &self.spec)
    }

    fn desired_spec(&self) -> serde_json::Value {
        desired_spec(&self.spec)
    }
}

/// The ModelServing that controls an object.
fn owner_keys(namespace: &str, owned: &OwnedObject) -> Vec<IndexKey> {
    owned.model_serving().map(|name| index_keys::model_serving(namespace, name)).into_iter().collect()
}

/// Only the opt-ins of the cluster are kept as digests; this instance's ModelServings are kept as decoded, in
/// [`Caches::model_servings`](super::Caches::model_servings).
impl WatchedKind for ModelServing {
    type Digest = OptIn;
    const ROW: Row =
        Row::new(Availability::Optional("modelservings"), Area::ClusterDuties, Requeues::ClusterWriters);

    fn store(stores: &Stores) -> &DigestStore<Self::Digest> {
        &stores.opt_ins
    }
}
