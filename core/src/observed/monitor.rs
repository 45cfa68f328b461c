//! ServiceMonitors and PodMonitors: owned ones, and foreign ones that may scrape the router.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube_derive::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::{
    owned_object::OwnedObject,
    spec::{LiveObject, LiveSpec},
};
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
#[serde(from = "LenientDe<Wire>")]
pub struct LiveServiceMonitor {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    scrapes: Scrapes,
    spec: LiveSpec,
    own: OwnMetadata,
}

/// A PodMonitor as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = PodMonitor, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LivePodMonitor {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    scrapes: Scrapes,
    spec: LiveSpec,
    own: OwnMetadata,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<ManagedMetadata>,
    spec: BestEffort<Value>,
}

fields!(Wire { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<Wire>> for LiveServiceMonitor {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        let spec = wire.spec.0.unwrap_or_default();
        Self {
            scrapes: ServiceMonitorSpec::deserialize(&spec).map(Scrapes::from).unwrap_or_default(),
            spec: LiveSpec::new(spec, &wire.metadata),
            own: wire.metadata.own(),
            metadata: wire.metadata.into(),
        }
    }
}

impl LiveObject for LiveServiceMonitor {
    fn spec(&self) -> &LiveSpec {
        &self.spec
    }

    fn owned_object(&self) -> OwnedObject {
        OwnedObject::new(&self.metadata, &self.own, &self.spec)
    }
}

impl From<LenientDe<Wire>> for LivePodMonitor {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        let spec = wire.spec.0.unwrap_or_default();
        Self {
            scrapes: PodMonitorSpec::deserialize(&spec).map(Scrapes::from).unwrap_or_default(),
            spec: LiveSpec::new(spec, &wire.metadata),
            own: wire.metadata.own(),
            metadata: wire.metadata.into(),
        }
    }
}

impl LiveObject for LivePodMonitor {
    fn spec(&self) -> &LiveSpec {
        &self.spec
    }

    fn owned_object(&self) -> OwnedObject {
        OwnedObject::new(&self.metadata, &self.own, &self.spec)
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
        Self { owned: live.owned_object(), scrapes: live.scrapes.clone() }
    }
}

impl From<&LivePodMonitor> for MonitorDigest {
    fn from(live: &LivePodMonitor) -> Self {
        Self { owned: live.owned_object(), scrapes: live.scrapes.clone() }
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
