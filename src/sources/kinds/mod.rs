//! The table of watched kinds, and what is done for each of them.
//!
//! Discovery, watches, live reads, manifests, readiness and the RBAC documentation read the rows. A new kind is one row of
//! `kinds/table.rs`: an implementation of [`WatchedKind`], a line in [`visit_all`] and a field of [`Stores`].

mod table;

pub use table::{Stores, visit_all};

use std::fmt::Debug;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::{
    cache::{Digest, DigestStore, Scope},
    cluster::discovery::{Presence, ServedApis, WatchedApi},
};
use kthena_keda_core::observed::Readable;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Origin of the kind.
    pub availability: Availability,
    /// Namespaces in which the kind is watched.
    pub area: Area,
    /// No plan is made before the first list of the kind is complete, if the cluster serves it.
    pub is_input_of_plans: bool,
    /// The objects stay known when the API disappears, since its return is awaited: a CRD is replaced during an
    /// upgrade, and plans would change meanwhile.
    pub outlives_its_api: bool,
    /// Objects that a change of an object requeues.
    pub requeues: Requeues,
    /// Label that the objects have; `None` for every object of the kind.
    pub label: Option<&'static str>,
}

impl Row {
    /// A row of a kind that no plan waits for.
    const fn new(availability: Availability, area: Area, requeues: Requeues) -> Self {
        Self { availability, area, is_input_of_plans: false, outlives_its_api: false, requeues, label: None }
    }

    /// The same, of a kind whose first list every plan waits for.
    const fn awaited_by_plans(self) -> Self {
        Self { is_input_of_plans: true, ..self }
    }

    /// The same, of a kind of which only the objects with a label matter.
    const fn labelled(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// The same, of a kind whose objects stay known when the API disappears.
    const fn outliving_its_api(self) -> Self {
        Self { outlives_its_api: true, ..self }
    }
}

/// Origin of a kind: Kubernetes, or a component that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Part of Kubernetes.
    BuiltIn,
    /// Served by a component that may come and go, and reported by the metric under this name.
    Optional(&'static str),
    /// Served by some releases of a component only, so its absence means nothing.
    SomeReleases,
    /// The CRD of an optional feature of this operator, so its absence means nothing.
    OwnCrd,
}

/// Namespaces in which a kind is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The namespaces of this instance's ModelServings.
    Models,
    /// These, and the router's namespace.
    ModelsAndRouter,
    /// The namespaces of this instance's ModelServings; the whole cluster, where it has cluster duties.
    ModelsOrClusterDuties,
    /// The router's namespace.
    Router,
    /// The whole cluster, or the kind has no namespaces.
    Cluster,
    /// The namespaces of this instance's ModelServings, where it makes stand-ins.
    StandIns,
    /// The whole cluster, where this instance has cluster duties and only some of the ModelServings.
    ClusterDuties,
}

/// Objects that a change of an object requeues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeues {
    /// The ModelServings that the object scales or scaled, and the one for which it is generated.
    Targets,
    /// These, and the ModelServings that bindings of the policy scale.
    PolicyTargets,
    /// These, and the router's ServiceMonitor.
    TargetsAndRouterMonitor,
    /// The router's ServiceMonitor.
    RouterMonitor,
    /// The router's ServiceMonitor and the status of profiles.
    ClusterWriters,
    /// The ModelServings that use the profile, the cluster workers and the signal probe.
    ProfileUsers,
    /// The ModelServings that the object controls, and the cluster workers.
    Controlled,
    /// The ModelServings with a name of the route, in the annotation or by another route, and those to which it leads or led.
    RouteUsers,
    /// The ModelServings that the ModelServer selects or selected, and those whose names lead to it.
    ModelServerUsers,
}

/// A kind that is watched, and kept as a digest of each object.
pub trait WatchedKind:
    Resource<DynamicType = (), Scope: WatchScope<Self>> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Part of an object that is kept.
    type Digest: Digest + Debug + for<'a> From<&'a Self>;
    /// The row of the kind.
    const ROW: Row;

    /// The digests of the kind.
    fn store(stores: &Stores) -> &DigestStore<Self::Digest>;

    /// `true` if the cluster serves the kind.
    fn is_served(served: &ServedApis) -> bool {
        Self::presence(served) == Presence::Served
    }

    /// Presence of the kind in the cluster.
    fn presence(served: &ServedApis) -> Presence {
        match Self::ROW.availability {
            Availability::BuiltIn => Presence::Served,
            _ => served.presence(&Self::group(&()), &Self::plural(&())),
        }
    }

    /// `true` if every object that plans need is known.
    fn has_synced(stores: &Stores, served: &ServedApis) -> bool {
        !Self::is_served(served) || Self::store(stores).has_synced()
    }

    /// Readability of the objects of one namespace or, without one, of all that are watched. A kind that
    /// the cluster does not serve has none.
    fn readable(stores: &Stores, served: &ServedApis, namespace: Option<&str>) -> Readable {
        let store = Self::store(stores);
        match Self::presence(served) {
            Presence::Unknown => Readable::NotYet,
            Presence::Absent if store.is_withdrawn() => Readable::NotYet,
            Presence::Absent => Readable::Yes,
            Presence::Served => {
                namespace.map_or_else(|| store.readable(), |namespace| store.readable_in(namespace))
            }
        }
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

/// Callback for every watched kind.
pub trait KindVisitor {
    /// Called once for each kind.
    fn visit<K: WatchedKind>(&mut self);
}

/// The optional APIs of the table, for discovery.
pub fn optional_apis() -> Vec<WatchedApi> {
    struct Collect(Vec<WatchedApi>);
    impl KindVisitor for Collect {
        fn visit<K: WatchedKind>(&mut self) {
            let label = match K::ROW.availability {
                Availability::BuiltIn => return,
                Availability::Optional(label) => Some(label),
                Availability::SomeReleases | Availability::OwnCrd => None,
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
