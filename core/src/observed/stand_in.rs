//! The stand-in pod of a model and the Service by which it finds the engines.

use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::{SignedDuration, Timestamp},
};
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
    stand_in::TAKES_REQUESTS,
};

/// Time for which ServingGroups are ready before the stand-in goes: what it holds is handed over by then, and a
/// group that fails soon after its start does not make it come and go.
const LINGER: SignedDuration = SignedDuration::from_secs(60);

/// Inputs of the plan for the stand-in of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedStandIn {
    /// Image of stand-ins; `None` if the operator makes none.
    pub image: Option<String>,
    /// Pod with the label and the name of the stand-in, of any owner.
    pub pod: Option<StandInDigest>,
    /// Service with the label and the name of the stand-in's, of any owner.
    pub service: Option<OwnedObject>,
    /// `true` once the stand-in has taken no requests for so long that it may go.
    pub is_over: bool,
    /// Error with which the API server or a webhook rejected the last write of the pod or the Service.
    pub rejection: Option<String>,
}

/// A pod with the label of stand-ins as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Pod, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<PodWire>")]
pub struct LiveStandIn {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    own: OwnMetadata,
    status: PodStatus,
}

/// A Service with the label of stand-ins as the API server sends it.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Service, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<ServiceWire>")]
pub struct LiveStandInService {
    /// Name, identity and owners.
    pub metadata: ObjectMeta,
    own: OwnMetadata,
    spec: LiveSpec,
}

#[derive(Default)]
struct PodWire {
    metadata: LeanMetadata<ManagedMetadata>,
    status: PodStatus,
}

fields!(PodWire { "metadata" => metadata, "status" => status });

#[derive(Clone, Debug, Default)]
struct PodStatus {
    phase: String,
    conditions: Vec<PodCondition>,
}

fields!(PodStatus { "phase" => phase, "conditions" => conditions });

#[derive(Clone, Debug, Default)]
struct PodCondition {
    kind: String,
    status: String,
    since: Option<Time>,
}

fields!(PodCondition { "type" => kind, "status" => status, "lastTransitionTime" => since });

#[derive(Default)]
struct ServiceWire {
    metadata: LeanMetadata<ManagedMetadata>,
    spec: BestEffort<Value>,
}

fields!(ServiceWire { "metadata" => metadata, "spec" => spec });

impl From<LenientDe<PodWire>> for LiveStandIn {
    fn from(LenientDe(wire): LenientDe<PodWire>) -> Self {
        Self { own: wire.metadata.own(), metadata: wire.metadata.into(), status: wire.status }
    }
}

impl From<LenientDe<ServiceWire>> for LiveStandInService {
    fn from(LenientDe(wire): LenientDe<ServiceWire>) -> Self {
        Self {
            spec: LiveSpec::new(wire.spec.0.unwrap_or_default(), &wire.metadata),
            own: wire.metadata.own(),
            metadata: wire.metadata.into(),
        }
    }
}

impl LiveObject for LiveStandInService {
    fn spec(&self) -> &LiveSpec {
        &self.spec
    }

    fn owned_object(&self) -> OwnedObject {
        OwnedObject::new(&self.metadata, &self.own, &self.spec)
    }
}

/// Digest of a pod with the label of stand-ins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandInDigest {
    /// Owner, and fingerprint of the metadata that the operator writes; an annotation stands for the spec, of which
    /// the API server sets half.
    pub owned: OwnedObject,
    /// `true` if its containers have ended and do not start again.
    pub has_ended: bool,
    /// `true` if the kubelet reports its containers ready.
    pub is_running: bool,
    /// `true` if the pod is Ready, so that the router sends it requests.
    pub is_ready: bool,
    /// The readiness gate; `None` before the operator has set it.
    pub gate: Option<GateDigest>,
}

/// Readiness gate of a stand-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateDigest {
    /// `true` if the stand-in takes requests.
    pub is_open: bool,
    /// Time of the last change.
    pub since: Option<Timestamp>,
}

impl From<&LiveStandIn> for StandInDigest {
    fn from(live: &LiveStandIn) -> Self {
        let find = |kind: &str| live.status.conditions.iter().find(|condition| condition.kind == kind);
        let is_true = |kind: &str| find(kind).is_some_and(|condition| condition.status == "True");
        Self {
            owned: OwnedObject::new(&live.metadata, &live.own, &LiveSpec::default()),
            has_ended: matches!(live.status.phase.as_str(), "Failed" | "Succeeded"),
            is_running: is_true("ContainersReady"),
            is_ready: is_true("Ready"),
            gate: find(TAKES_REQUESTS).map(|condition| GateDigest {
                is_open: condition.status == "True",
                since: condition.since.as_ref().map(|time| time.0),
            }),
        }
    }
}

/// Digest of a Service with the label of stand-ins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandInServiceDigest(pub OwnedObject);

impl From<&LiveStandInService> for StandInServiceDigest {
    fn from(live: &LiveStandInService) -> Self {
        Self(live.owned_object())
    }
}

impl StandInDigest {
    /// Time until the pod has taken no requests for so long that it may go: none for one that never took any; `None`
    /// while it takes requests.
    pub fn time_to_go(&self, now: Timestamp) -> Option<SignedDuration> {
        let Some(gate) = &self.gate else { return Some(SignedDuration::ZERO) };
        if gate.is_open {
            return None;
        }
        let age = gate.since.map_or(LINGER, |since| now.duration_since(since));
        Some((LINGER - age).clamp(SignedDuration::ZERO, LINGER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::never_open(json!([]), Some(0))]
    #[case::open(json!([{"type": TAKES_REQUESTS, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]), None)]
    #[case::closed(json!([{"type": TAKES_REQUESTS, "status": "False", "lastTransitionTime": "2026-01-01T00:00:50Z"}]), Some(50))]
    #[case::closed_long_ago(json!([{"type": TAKES_REQUESTS, "status": "False", "lastTransitionTime": "2025-01-01T00:00:50Z"}]), Some(0))]
    #[case::clock_behind(json!([{"type": TAKES_REQUESTS, "status": "False", "lastTransitionTime": "2027-01-01T00:00:50Z"}]), Some(60))]
    #[case::without_time(json!([{"type": TAKES_REQUESTS, "status": "False"}]), Some(0))]
    fn a_stand_in_lingers_after_it_took_requests(#[case] conditions: Value, #[case] expected: Option<i64>) {
        let pod = json!({"metadata": {"name": "a"}, "status": {"conditions": conditions}});
        let live: LiveStandIn = serde_json::from_value(pod).unwrap();
        let left = StandInDigest::from(&live).time_to_go("2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(left.map(|left| left.as_secs()), expected);
    }
}
