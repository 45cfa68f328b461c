//! What is there: one [`Observed`] per ModelServing, whatever source it came from; and one [`ObservedRouter`].
//!
//! In: objects as the API server sends them. Out: digests that keep only what plans and reports depend on.

mod competing_autoscalers;
mod condition;
mod hpa;
mod monitor;
mod owned_object;
mod policy;
mod probe;
mod profile;
mod router;
mod routing;
mod scaled_object;

pub use competing_autoscalers::{Autoscalers, CompetingAutoscaler};
pub use condition::{ConditionDigest, find_condition, normalize_message};
pub use hpa::{HpaDigest, LiveHpa, ScaleTarget};
pub use monitor::{LivePodMonitor, LiveServiceMonitor, MonitorDigest, Scrapes};
pub use owned_object::{Fingerprint, OwnedObject, Ownership};
pub use policy::{LiveBinding, LivePolicy, PolicyDigest};
pub use probe::{NameTraffic, ProbeResult, ProbeResults, ProbeTarget, Sample, SelectorMismatch};
pub use profile::{LiveProfile, ProfileDigest};
pub use router::{ObservedRouter, RouterPort, RouterService};
pub use routing::{
    COMPARED, Destination, LiveModelRoute, LiveModelServer, NAMED, Network, RouteDigest, Routing, Server,
    ServerDigest,
};
pub use scaled_object::{LiveScaledObject, ScaledObjectDigest};

use std::sync::Arc;

use crate::{api::kthena::ModelServing, intent::Profile, signals::RouterSeries};

/// What there is of one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// What stands under the name of its ScaledObject.
    pub scaled_object: Option<ScaledObjectDigest>,
    /// The HPA that KEDA makes for it.
    pub hpa: Option<HpaDigest>,
    /// Whoever else scales it.
    pub competing_autoscalers: Vec<CompetingAutoscaler>,
    /// What stands under the name of its PodMonitor.
    pub pod_monitor: Option<OwnedObject>,
    /// How the router's series are found.
    pub router: RouterSeries,
    /// Who sets the number of ServingGroups although autoscalers did before.
    pub second_writer: Option<String>,
    /// Why the API server did not take what was planned the last time.
    pub rejection: Option<String>,
    /// What Prometheus showed last.
    pub probes: Arc<ProbeResults>,
    /// How its selector fails to match its ServingGroups, where somebody counted.
    pub mismatch: Option<SelectorMismatch>,
    /// How clients' requests reach its pods.
    pub routing: Routing,
    /// The profile that it names, or the one named `default`: what it gives, or what is wrong with it; none where there is none.
    pub profile: Option<Result<Profile, String>>,
}

impl Observed {
    /// A ModelServing beside which nothing else exists.
    pub fn of(model_serving: ModelServing, router: RouterSeries) -> Self {
        Self {
            model_serving,
            scaled_object: None,
            hpa: None,
            competing_autoscalers: Vec::new(),
            pod_monitor: None,
            router,
            second_writer: None,
            rejection: None,
            probes: Arc::default(),
            mismatch: None,
            routing: Routing::default(),
            profile: None,
        }
    }

    /// Whose the object under the name of its ScaledObject is.
    pub fn ownership(&self) -> Ownership {
        self.whose(self.owned_scaled_object())
    }

    /// What stands under the name of its ScaledObject, as far as that is ours to write.
    pub fn owned_scaled_object(&self) -> Option<&OwnedObject> {
        self.scaled_object.as_ref().map(|found| &found.owned)
    }

    /// Whose the object under the name of its PodMonitor is.
    pub fn pod_monitor_ownership(&self) -> Ownership {
        self.whose(self.pod_monitor.as_ref())
    }

    fn whose(&self, found: Option<&OwnedObject>) -> Ownership {
        found.map_or(Ownership::Absent, |digest| digest.ownership(self.model_serving.metadata.uid.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kthena::{AUTOSCALING_READY, ReplicasWriter};
    use kube_core::{ObjectList, Resource, WatchEvent};
    use rstest::rstest;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// An object that has every field of every kind that is read.
    fn whole() -> Value {
        let condition = |kind| json!({"type": kind, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
        let target = json!({"apiVersion": "workload.serving.volcano.sh/v1alpha1", "kind": "ModelServing", "name": "chat"});
        let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:annotations": {"f:b": {}}}, "f:spec": {"f:replicas": {}}, "f:status": {"f:labelSelector": {}}});
        json!({
            "apiVersion": "v1", "kind": "Any",
            "metadata": {
                "name": "chat", "namespace": "models", "uid": "u", "resourceVersion": "7", "generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"a": "1"}, "annotations": {"kthena.io/model-name": "llama"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "o", "controller": true, "blockOwnerDeletion": false}],
                "managedFields": [{"manager": "kthena-keda", "operation": "Apply", "subresource": "scale", "fieldsV1": fields}],
            },
            "spec": {
                "replicas": 2, "scaleTargetRef": target, "triggers": [{"type": "prometheus", "metadata": {"query": "q"}, "metricType": "Value"}],
                "template": {"roles": [{"name": "prefill", "entryTemplate": {"metadata": {"labels": {"a": "b"}}}}]},
                "homogeneousTarget": {"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}}, "modelName": "m", "loraAdapters": ["l"],
                "rules": [{"targetModels": [{"modelServerName": "s", "weight": 1}]}], "workloadSelector": {"matchLabels": {"a": "b"}, "pdGroup": {}},
                "workloadPort": {"port": 8000}, "selector": {"matchLabels": {"a": "b"}}, "endpoints": [{"port": "http"}],
                "podMetricsEndpoints": [{"port": "http", "relabelings": [{"action": "drop"}]}], "minReplicaCount": 1, "signals": [{"name": "kv-cache", "target": "1"}],
            },
            "status": {"labelSelector": "a=b", "replicas": 1, "availableReplicas": 1, "modelServings": 1, "conditions": [condition("Ready"), condition(AUTOSCALING_READY)]},
        })
    }

    /// The paths of everything in an object.
    fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| {
                    paths(field, &format!("{path}/{}", name.replace('/', "~1")), found);
                });
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, field)| paths(field, &format!("{path}/{i}"), found));
            }
            _ => {}
        }
    }

    fn odd() -> [Value; 10] {
        [
            json!(null),
            json!(true),
            json!(-3),
            json!(u64::MAX),
            json!(1e300),
            json!("odd"),
            json!([]),
            json!([null, 3, "x", [], {}]),
            json!({}),
            json!({"metadata": 3, "name": [], "a": {"b": null}}),
        ]
    }

    fn read<K: DeserializeOwned>(text: &str) -> K {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Whatever stands anywhere in an object, it is decoded, and so are those beside it, in a list and by a watch.
    fn nothing_fails<K: Resource + Clone + DeserializeOwned>() {
        let sound = whole();
        let beside = sound.to_string();
        let mut everywhere = Vec::new();
        paths(&sound, "", &mut everywhere);
        for (path, odd) in everywhere.iter().flat_map(|path| odd().into_iter().map(move |odd| (path, odd))) {
            let mut object = sound.clone();
            *object.pointer_mut(path).unwrap() = odd;
            let text = object.to_string();
            let list: ObjectList<K> = read(&format!(
                r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{text},{beside}]}}"#
            ));
            let named: Vec<bool> =
                list.items.iter().map(|found| found.meta().name.as_deref() == Some("chat")).collect();
            assert_eq!(
                named,
                [!["", "/metadata", "/metadata/name"].contains(&path.as_str()), true],
                "{text}"
            );
            let event: WatchEvent<K> = read(&format!(r#"{{"type":"MODIFIED","object":{text}}}"#));
            assert!(matches!(event, WatchEvent::Modified(_)));
            assert!(serde_json::from_value::<K>(object).is_ok(), "{text}");
        }
    }

    #[test]
    fn nothing_in_an_object_stops_a_watch() {
        nothing_fails::<ModelServing>();
        nothing_fails::<LiveScaledObject>();
        nothing_fails::<LiveHpa>();
        nothing_fails::<LivePolicy>();
        nothing_fails::<LiveBinding>();
        nothing_fails::<LiveModelRoute>();
        nothing_fails::<LiveModelServer>();
        nothing_fails::<LiveServiceMonitor>();
        nothing_fails::<LivePodMonitor>();
        nothing_fails::<LiveProfile>();
    }

    #[test]
    fn what_is_there_twice_counts_once() {
        let text = r#"{"metadata": {"name": "a", "name": "chat", "labels": {}, "labels": {}}, "status": {}, "spec": {"replicas": 1}, "spec": {"replicas": 2}}"#;
        let found: ModelServing = serde_json::from_str(text).unwrap();
        assert_eq!((found.metadata.name.as_deref(), found.replicas()), (Some("chat"), 2));
    }

    /// The parser gives up at 128 levels of what it is to keep.
    #[test]
    fn nothing_is_too_deep() {
        let deep = format!("{}3{}", r#"{"a":["#.repeat(500), "]}".repeat(500));
        let text = format!(
            r#"{{"metadata":{{"name":"chat","labels":{deep}}},"spec":{deep},"status":{{"conditions":[{deep}],"a":{deep}}}}}"#
        );
        assert_eq!(read::<ModelServing>(&text).metadata.name.as_deref(), Some("chat"));
        read::<LiveScaledObject>(&text);
        read::<LivePodMonitor>(&text);
        read::<LiveModelRoute>(&text);
        read::<LiveProfile>(&text);
    }

    /// What can be read of an object counts although something else of it is odd.
    #[rstest]
    #[case::template("/spec/template", json!("odd"))]
    #[case::labels("/metadata/labels", json!({"a": 3}))]
    #[case::owner("/metadata/ownerReferences", json!([3]))]
    #[case::other_condition("/status/conditions/0", json!({"type": 3}))]
    fn the_rest_of_an_object_counts(#[case] path: &str, #[case] odd: Value) {
        let mut object = whole();
        *object.pointer_mut(path).unwrap() = odd;
        let found: ModelServing = read(&object.to_string());
        assert_eq!(found.model_names().collect::<Vec<_>>(), ["llama"]);
        assert_eq!(
            (found.replicas(), found.label_selector(), found.selector_is_ours),
            (2, Some("a=b"), true)
        );
        assert_eq!(found.replicas_set_by, ReplicasWriter::Scale);
        assert_eq!(found.condition().unwrap().reason, "R");
    }

    #[test]
    fn what_a_scaled_object_scales_is_known_whatever_it_measures() {
        let mut object = whole();
        *object.pointer_mut("/spec/triggers").unwrap() =
            json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}]);
        let found: LiveScaledObject = read(&object.to_string());
        assert!(ScaledObjectDigest::from(&found).target.is("chat"));
    }
}
