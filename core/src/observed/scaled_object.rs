//! ScaledObjects of any owner, with the conditions that KEDA reports. KEDA rewrites the status at every poll.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube_core::ResourceExt as _;
use kube_derive::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::{
    condition::{ConditionDigest, find_condition},
    hpa::{ScaleTarget, WireTarget},
    owned_object::OwnedObject,
    spec::{LiveObject, LiveSpec},
};
use crate::{
    api::{
        BestEffort, LenientDe,
        annotations::MEASURED_SERVICE_TIME,
        fields,
        keda::{ScaledObject, pause_annotation},
        metadata::{LeanMetadata, ManagedMetadata, OwnMetadata},
    },
    domain::{Pause, ServiceTime},
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
            spec.get("scaleTargetRef").and_then(|target| LenientDe::<WireTarget>::deserialize(target).ok());
        Self {
            target: target.map(|LenientDe(target)| target.into()).unwrap_or_default(),
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
    /// Minimum and maximum of the number of replicas, as KEDA reads them; `None` if one is no
    /// number.
    pub bounds: Option<(i32, i32)>,
    /// Measured service time in its query, if the operator wrote it.
    pub service_time: Option<ServiceTime>,
    /// Pause of all scaling by an annotation of KEDA, if any.
    pub pause: Option<KedaPause>,
    /// `true` if KEDA reports a pause and no annotation asks for one.
    pub reports_ended_pause: bool,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Conditions reported by KEDA.
    pub conditions: Vec<ConditionDigest>,
}

/// Pause of all scaling by an annotation of KEDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KedaPause {
    /// The annotation.
    pub annotation: &'static str,
    /// Number of replicas that KEDA sets; `None` if it leaves them as they are.
    pub replicas: Option<i32>,
}

impl ScaledObjectDigest {
    /// Time since its creation if KEDA has reported nothing on it.
    pub fn silence(&self, now: Timestamp) -> Option<Duration> {
        if find_condition(&self.conditions, "Ready").is_some() {
            return None;
        }
        Some(Duration::try_from(now.duration_since(self.created?)).unwrap_or_default())
    }
}

/// KEDA's annotations that pause all scaling (`apis/keda/v1alpha1/scaledobject_types.go`); the first one does
/// so with any value. Those of one direction begin with the second one.
const PAUSED_AT: &str = "autoscaling.keda.sh/paused-replicas";
const PAUSED: &str = "autoscaling.keda.sh/paused";

impl From<&LiveScaledObject> for ScaledObjectDigest {
    fn from(live: &LiveScaledObject) -> Self {
        let is_own =
            |pause: &Pause| live.own.annotations.get(pause_annotation(*pause)).is_some_and(|on| on == "true");
        Self {
            own_pauses: Pause::ALL.into_iter().filter(is_own).collect(),
            owned: live.owned_object(),
            target: live.target.clone(),
            bounds: live.bounds(),
            service_time: live.service_time(),
            pause: live.pause(),
            reports_ended_pause: live.reports_ended_pause(),
            created: live.metadata.creation_timestamp.as_ref().map(|time| time.0),
            conditions: live.conditions.clone(),
        }
    }
}

impl LiveScaledObject {
    /// KEDA's own defaults stand in for a missing bound (`apis/keda/v1alpha1/scaledobject_types.go`).
    fn bounds(&self) -> Option<(i32, i32)> {
        let bound = |field: &str, default: i64| {
            let value = self.spec.value().get(field).map_or(Some(default), Value::as_i64);
            i32::try_from(value?).ok()
        };
        Some((bound("minReplicaCount", 0)?, bound("maxReplicaCount", 100)?))
    }

    /// Another client that changes the annotation becomes its field manager, and its value does not count. Output of kubectl has no field
    /// managers.
    fn service_time(&self) -> Option<ServiceTime> {
        let annotations = if self.own.touched { &self.own.annotations } else { self.annotations() };
        annotations.get(MEASURED_SERVICE_TIME)?.parse().ok()
    }

    fn pause(&self) -> Option<KedaPause> {
        let annotations = self.annotations();
        if let Some(replicas) = annotations.get(PAUSED_AT) {
            return Some(KedaPause { annotation: PAUSED_AT, replicas: replicas.parse().ok() });
        }
        let is_paused = annotations.get(PAUSED).is_some_and(|value| value != "false");
        is_paused.then_some(KedaPause { annotation: PAUSED, replicas: None })
    }

    fn reports_ended_pause(&self) -> bool {
        let is_pause = |(key, value): (&String, &String)| {
            key == PAUSED_AT || key.starts_with(PAUSED) && value != "false"
        };
        find_condition(&self.conditions, "Paused").is_some_and(|paused| paused.status == "True")
            && !self.annotations().iter().any(is_pause)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::no_report(json!([]), Some(360))]
    #[case::not_reported(json!([{"type": "Ready", "status": "Unknown", "reason": "", "message": ""}]), Some(360))]
    #[case::reported(json!([{"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": ""}]), None)]
    fn keda_is_silent_until_it_reports(#[case] conditions: Value, #[case] seconds: Option<u64>) {
        let metadata = json!({"name": "chat", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let object = json!({"metadata": metadata, "status": {"conditions": conditions}});
        let live: LiveScaledObject = serde_json::from_value(object).unwrap();
        let digest = ScaledObjectDigest::from(&live);
        let now: Timestamp = "2026-01-01T00:06:00Z".parse().unwrap();
        assert_eq!(digest.silence(now).map(|silence| silence.as_secs()), seconds);
    }

    #[rstest]
    #[case::ended("True", json!({}), true)]
    #[case::ended_with_other_annotations("True", json!({"autoscaling.keda.sh/force-activation": "true"}), true)]
    #[case::turned_off("True", json!({"autoscaling.keda.sh/paused": "false"}), true)]
    #[case::paused("True", json!({"autoscaling.keda.sh/paused": "true"}), false)]
    #[case::at_zero("True", json!({"autoscaling.keda.sh/paused-replicas": "0"}), false)]
    #[case::scale_in("True", json!({"autoscaling.keda.sh/paused-scale-in": "true"}), false)]
    #[case::scale_out("True", json!({"autoscaling.keda.sh/paused-scale-out": "true"}), false)]
    #[case::resumed("False", json!({}), false)]
    fn a_pause_ends_with_its_annotation(
        #[case] status: &str,
        #[case] annotations: Value,
        #[case] expected: bool,
    ) {
        let paused =
            json!({"type": "Paused", "status": status, "reason": "ScaledObjectPaused", "message": ""});
        let object = json!({"metadata": {"name": "chat", "annotations": annotations}, "status": {"conditions": [paused]}});
        let live: LiveScaledObject = serde_json::from_value(object).unwrap();
        assert_eq!(ScaledObjectDigest::from(&live).reports_ended_pause, expected);
    }
}
