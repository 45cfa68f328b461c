//! ScaledObjects of any owner, with the conditions that KEDA reports. KEDA rewrites the status at every poll.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::{
    condition::ConditionDigest,
    hpa::ScaleTarget,
    owned_object::OwnedObject,
    spec::{LiveObject, LiveSpec},
};
use crate::{
    api::{
        BestEffort, LenientDe, fields,
        keda::{ScaledObject, pause_annotation},
        metadata::{LeanMetadata, ManagedMetadata, OwnMetadata},
    },
    domain::Pause,
};

/// A ScaledObject as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = ScaledObject, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveScaledObject {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    spec: LiveSpec,
    target: ScaleTarget,
    own: OwnMetadata,
    conditions: Vec<ConditionDigest>,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<ManagedMetadata>,
    spec: BestEffort<Value>,
    status: Status,
}

fields!(Wire { "metadata" => metadata, "spec" => spec, "status" => status });

#[derive(Default)]
struct Status {
    conditions: Vec<ConditionDigest>,
}

fields!(Status { "conditions" => conditions });

impl From<LenientDe<Wire>> for LiveScaledObject {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        let spec = wire.spec.0.unwrap_or_default();
        let target =
            spec.get("scaleTargetRef").and_then(|target| LenientDe::<ScaleTarget>::deserialize(target).ok());
        Self {
            target: target.map(|LenientDe(target)| target).unwrap_or_default(),
            spec: LiveSpec::new(spec, &wire.metadata),
            own: wire.metadata.own(),
            metadata: wire.metadata.into(),
            conditions: wire.status.conditions,
        }
    }
}

/// Digest of a ScaledObject.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledObjectDigest {
    /// Owner, and fingerprint of the fields that the operator writes.
    pub owned: OwnedObject,
    /// Scale target.
    pub target: ScaleTarget,
    /// Pauses that the operator set.
    pub own_pauses: Vec<Pause>,
    /// Annotation that pauses all scaling, if any.
    pub paused_by: Option<&'static str>,
    /// Conditions reported by KEDA.
    pub conditions: Vec<ConditionDigest>,
}

/// KEDA's annotations that pause all scaling (`apis/keda/v1alpha1/scaledobject_types.go`); the first one does
/// so with any value.
const PAUSED_AT: &str = "autoscaling.keda.sh/paused-replicas";
const PAUSED: &str = "autoscaling.keda.sh/paused";

impl From<&LiveScaledObject> for ScaledObjectDigest {
    fn from(live: &LiveScaledObject) -> Self {
        let pauses = |key: &&str| {
            live.annotations().get(*key).is_some_and(|value| *key == PAUSED_AT || value != "false")
        };
        let is_own =
            |pause: &Pause| live.own.annotations.get(pause_annotation(*pause)).is_some_and(|on| on == "true");
        Self {
            own_pauses: Pause::ALL.into_iter().filter(is_own).collect(),
            owned: live.owned_object(),
            target: live.target.clone(),
            paused_by: [PAUSED_AT, PAUSED].into_iter().find(pauses),
            conditions: live.conditions.clone(),
        }
    }
}

impl LiveScaledObject {
    /// Prometheus address that KEDA queries.
    pub fn server_address(&self) -> Option<&str> {
        let triggers = self.spec.value().get("triggers").and_then(Value::as_array);
        triggers?.iter().find_map(|trigger| trigger.pointer("/metadata/serverAddress")?.as_str())
    }
}

impl LiveObject for LiveScaledObject {
    fn spec(&self) -> &LiveSpec {
        &self.spec
    }

    fn owned_object(&self) -> OwnedObject {
        OwnedObject::new(&self.metadata, &self.own, &self.spec)
    }
}
