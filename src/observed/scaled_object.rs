//! A ScaledObject as it stands, whoever wrote it; KEDA rewrites its status at every poll, which is not looked at here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::generated::{Fingerprint, Generated};
use crate::api::{
    keda::{ScaledObject, ScaledObjectSpec},
    lenient,
    metadata::{LeanMetadata, ManagedMetadata, OwnMetadata},
};

/// A ScaledObject as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ScaledObject)]
#[serde(from = "Wire")]
pub struct LiveScaledObject {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    /// The fields that we would write, as they stand.
    spec: Option<ScaledObjectSpec>,
    own: OwnMetadata,
}

#[derive(Deserialize)]
struct Wire {
    metadata: LeanMetadata<ManagedMetadata>,
    #[serde(default, deserialize_with = "lenient")]
    spec: Option<ScaledObjectSpec>,
}

impl From<Wire> for LiveScaledObject {
    fn from(wire: Wire) -> Self {
        Self { own: wire.metadata.own(), metadata: wire.metadata.into(), spec: wire.spec }
    }
}

impl From<&LiveScaledObject> for Generated {
    fn from(live: &LiveScaledObject) -> Self {
        Self::new(&live.metadata, &live.own, live.spec.as_ref())
    }
}

impl ScaledObject {
    /// The fingerprint that the live object has when it looks like this one.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::wanted(&self.metadata, &self.spec)
    }
}
