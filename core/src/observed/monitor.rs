//! ServiceMonitors and PodMonitors: owned ones, and foreign ones that may scrape the router.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube_derive::Resource;
use serde::Deserialize;

use super::owned_object::OwnedObject;
use crate::api::{
    BestEffort, LenientDe, fields,
    metadata::{LeanMetadata, ManagedMetadata, OwnMetadata},
    monitoring::{
        Endpoint, NamespaceSelector, PodMonitor, PodMonitorSpec, ServiceMonitor, ServiceMonitorSpec,
    },
};

/// A ServiceMonitor as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ServiceMonitor, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<ServiceMonitorSpec>>>")]
pub struct LiveServiceMonitor {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    spec: Option<ServiceMonitorSpec>,
    own: OwnMetadata,
}

/// A PodMonitor as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = PodMonitor, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire<BestEffort<PodMonitorSpec>>>")]
pub struct LivePodMonitor {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    spec: Option<PodMonitorSpec>,
    own: OwnMetadata,
}

#[derive(Default)]
struct Wire<S> {
    metadata: LeanMetadata<ManagedMetadata>,
    spec: S,
}

fields!(Wire<S> where S { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<Wire<BestEffort<ServiceMonitorSpec>>>> for LiveServiceMonitor {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<ServiceMonitorSpec>>>) -> Self {
        Self { own: wire.metadata.own(), metadata: wire.metadata.into(), spec: wire.spec.0 }
    }
}

impl From<LenientDe<Wire<BestEffort<PodMonitorSpec>>>> for LivePodMonitor {
    fn from(LenientDe(wire): LenientDe<Wire<BestEffort<PodMonitorSpec>>>) -> Self {
        Self { own: wire.metadata.own(), metadata: wire.metadata.into(), spec: wire.spec.0 }
    }
}

/// Digest of a monitor of either kind.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorDigest {
    /// Owner, and fingerprint of the fields that the operator writes.
    pub owned: OwnedObject,
    /// Targets that it selects.
    pub scrapes: Scrapes,
}

/// Targets that a monitor selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrapes {
    /// Namespaces of the targets.
    pub namespaces: NamespaceSelector,
    /// Labels of the Services or pods.
    pub selector: LabelSelector,
    /// Endpoints of each Service or pod.
    pub endpoints: Vec<Endpoint>,
}

impl From<&LiveServiceMonitor> for MonitorDigest {
    fn from(live: &LiveServiceMonitor) -> Self {
        let owned = OwnedObject::new(&live.metadata, &live.own, live.spec.as_ref());
        Self { owned, scrapes: live.spec.clone().map(Scrapes::from).unwrap_or_default() }
    }
}

impl From<&LivePodMonitor> for MonitorDigest {
    fn from(live: &LivePodMonitor) -> Self {
        let owned = OwnedObject::new(&live.metadata, &live.own, live.spec.as_ref());
        Self { owned, scrapes: live.spec.clone().map(Scrapes::from).unwrap_or_default() }
    }
}

impl From<ServiceMonitorSpec> for Scrapes {
    fn from(spec: ServiceMonitorSpec) -> Self {
        Self { namespaces: spec.namespace_selector, selector: spec.selector, endpoints: spec.endpoints }
    }
}

impl From<PodMonitorSpec> for Scrapes {
    fn from(spec: PodMonitorSpec) -> Self {
        Self {
            namespaces: spec.namespace_selector,
            selector: spec.selector,
            endpoints: spec.pod_metrics_endpoints,
        }
    }
}
