//! Inputs of a plan: one [`Observed`] per ModelServing, and one [`ObservedRouter`].
//!
//! In: objects as the API server sends them. Out: digests with the fields that plans and reports depend on.
//! Watches, one read of the cluster and files all lead to the same types.

mod booster;
mod competing_autoscalers;
mod condition;
#[cfg(test)]
pub(crate) mod fixture;
mod hpa;
mod measured;
mod monitor;
mod own_fields;
mod owned_object;
mod policy;
mod probe;
mod profile;
mod readable;
mod roles;
mod router;
mod routing;
mod scaled_object;
mod shadow;
mod spec;
mod stand_in;
mod waiting_pods;

pub use booster::{BoosterDigest, LiveBooster};
pub use competing_autoscalers::{Autoscalers, CompetingAutoscaler};
pub use condition::{ConditionDigest, find_condition, normalize_message};
pub use hpa::{HpaDigest, LiveHpa, ScaleTarget};
pub use measured::Measurements;
pub use monitor::{LivePodMonitor, LiveServiceMonitor, MonitorDigest, Scrapes};
pub use own_fields::with_pause;
pub use owned_object::{Fingerprint, OwnedObject, Ownership};
pub use policy::{LiveBinding, LivePolicy, PolicyDigest};
pub use probe::{
    EngineScrape, NameTraffic, ProbeResult, ProbeResults, ProbeTarget, RouterSamples, RouterScrape, Sample,
    SelectorMismatch, ServerSamples,
};
pub use profile::{LiveProfile, ProfileDigest};
pub use readable::{Readability, Readable, UnreadKind};
pub use roles::{INSTANCES_MAX, InstanceCount, LiveRole, ObservedRole, RoleDigest, RoleInstances};
pub use router::{
    LocatedRouter, ObservedRouter, RouterPort, RouterProblem, RouterService, ScrapeEvidence, ScrapeTarget,
};
pub use routing::{
    Backend, COMPARED, Destination, LiveModelRoute, LiveModelServer, NAMES_MAX, NameOrigin, Network,
    OTHERS_KEPT, PLACES_MAX, RouteDigest, RoutedName, Routing, Server, ServerBackend, ServerDigest, Usage,
    further_names, targets,
};
pub use scaled_object::{KedaPause, LiveScaledObject, ScaledObjectDigest};
pub use shadow::{ShadowRange, ShadowState};
pub use spec::{LiveObject, LiveSpec, SpecDifference, desired_spec};
pub use stand_in::{
    GateDigest, LiveStandIn, LiveStandInService, ObservedStandIn, StandInDigest, StandInServiceDigest,
};
pub use waiting_pods::WaitingPods;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    iter,
    sync::Arc,
};

use crate::{api::kthena::ModelServing, domain::Capabilities, intent::Profile, signals::RouterSeries};

/// Inputs of the plan for one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// Object with the name of its ScaledObject, of any owner.
    pub scaled_object: Option<ScaledObjectDigest>,
    /// `true` if KEDA has reported nothing on its ScaledObject although it has existed for minutes.
    pub keda_is_silent: bool,
    /// `true` if KEDA has reported a pause of one of its [ScaledObjects](Self::ended_pauses) for minutes although no annotation asks
    /// for one.
    pub pause_is_outdated: bool,
    /// HPA that KEDA creates for its ScaledObject.
    pub hpa: Option<HpaDigest>,
    /// Other autoscalers of it.
    pub competing_autoscalers: Vec<CompetingAutoscaler>,
    /// Object with the name of its PodMonitor, of any owner.
    pub pod_monitor: Option<OwnedObject>,
    /// Location of the router's series.
    pub router: RouterSeries,
    /// Problem of its scraping, as far as the cluster shows it.
    pub router_problem: Option<RouterProblem>,
    /// Field manager that set `spec.replicas` after an autoscaler had set it.
    pub second_writer: Option<String>,
    /// Fields of its generated objects that are set again after each removal.
    pub persistent_fields: PersistentFields,
    /// Error with which the API server or a webhook rejected the last plan.
    pub rejection: Option<String>,
    /// Latest results of the operator's own queries to Prometheus.
    pub probes: Arc<ProbeResults>,
    /// Confirmed mismatch of its label selector; `None` if it matches or was not checked.
    pub mismatch: Option<SelectorMismatch>,
    /// Cause for which its ServingGroups have not become ready for some time; `None` if they are, or were not checked.
    pub waiting: Option<WaitingPods>,
    /// Measurements in its history.
    pub measured: Measurements,
    /// State of its dry run, if an annotation asks for one.
    pub shadow: ShadowState,
    /// Its stand-in, the pod that holds requests at zero.
    pub stand_in: ObservedStandIn,
    /// Roles that are scaled, or were.
    pub roles: Vec<ObservedRole>,
    /// Instances of the roles.
    pub role_instances: InstanceCount,
    /// Other autoscalers of its roles.
    pub role_autoscalers: Vec<CompetingAutoscaler>,
    /// Field manager that set `spec.template.roles` after the operator had.
    pub roles_writer: Option<String>,
    /// `true` if the operator may scale roles.
    pub may_scale_roles: bool,
    /// Routes from its model names to its pods.
    pub routing: Routing,
    /// Profile that it names, by default the one named `default`: its settings or its errors; `None` if it
    /// does not exist.
    pub profile: Option<Result<Profile, String>>,
    /// Which of these objects could be read; an object of a kind that could not be read may exist.
    pub readable: Readability,
}

/// Fields of the generated objects that are set again after each removal, and that the operator leaves alone, as
/// JSON pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistentFields {
    /// Fields of the ScaledObject.
    pub scaled_object: Vec<String>,
    /// Fields of the PodMonitor.
    pub pod_monitor: Vec<String>,
}

impl Observed {
    /// A ModelServing without any other object.
    pub fn of(model_serving: ModelServing, router: impl Into<LocatedRouter>) -> Self {
        let LocatedRouter { series: router, problem: router_problem } = router.into();
        Self {
            model_serving,
            scaled_object: None,
            keda_is_silent: false,
            pause_is_outdated: false,
            hpa: None,
            competing_autoscalers: Vec::new(),
            pod_monitor: None,
            router,
            router_problem,
            second_writer: None,
            persistent_fields: PersistentFields::default(),
            rejection: None,
            probes: Arc::default(),
            mismatch: None,
            waiting: None,
            measured: Measurements::default(),
            shadow: ShadowState::default(),
            stand_in: ObservedStandIn::default(),
            roles: Vec::new(),
            role_instances: InstanceCount::NotCounted,
            role_autoscalers: Vec::new(),
            roles_writer: None,
            may_scale_roles: false,
            routing: Routing::default(),
            profile: None,
            readable: Readability::default(),
        }
    }

    /// Namespace of the ModelServing.
    pub fn namespace(&self) -> &str {
        self.model_serving.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Hash of what the model's users and the platform team wrote: the annotations, the pod template, the profile,
    /// the routes and autoscalers of the namespace, the installed APIs and the permissions to read them, the objects
    /// of others that have the generated names, the fields that others keep setting, and a pause that has ended. It
    /// does not change with what other controllers report at each moment or tenants of other namespaces do.
    pub fn user_input(&self, capabilities: Option<Capabilities>) -> u64 {
        let prefix = format!("{}/", self.namespace());
        let autoscalers: Vec<_> =
            self.competing_autoscalers.iter().filter(|found| found.name.starts_with(&prefix)).collect();
        // An object that the operator creates is no input of users.
        let objects = [self.scaled_object_ownership(), self.pod_monitor_ownership()].map(|ownership| {
            (!matches!(ownership, Ownership::Absent | Ownership::Owned)).then_some(ownership)
        });
        let written = (
            self.model_serving.effective_annotations(),
            &self.model_serving.spec.template.roles,
            &self.profile,
            self.routing.within(self.namespace()),
            (autoscalers, objects, &self.persistent_fields, self.pause_is_outdated),
            (self.readable, capabilities, self.may_scale_roles, &self.stand_in.rejection),
        );
        let mut hasher = DefaultHasher::new();
        format!("{written:?}").hash(&mut hasher);
        hasher.finish()
    }

    /// `true` if [`user_input`](Self::user_input) has a part that this process has learned by its own writes, and that a restart
    /// forgets.
    pub fn has_learned_input(&self) -> bool {
        let PersistentFields { scaled_object, pod_monitor } = &self.persistent_fields;
        let has_fields = !scaled_object.is_empty() || !pod_monitor.is_empty();
        has_fields || self.pause_is_outdated || self.stand_in.rejection.is_some()
    }

    /// Number of instances of a role in the ServingGroup that has the fewest, or as it was last reported; `None` if it was never counted.
    pub fn instances_of(&self, role: &ObservedRole) -> Option<i32> {
        if let InstanceCount::Counted(instances) = &self.role_instances {
            return Some(instances.get(&role.name));
        }
        let reported = role.object.as_ref().map(|object| &object.status);
        reported.filter(|status| !status.selector.is_empty()).map(|status| status.replicas)
    }

    /// Ownership of the object with the name of its ScaledObject.
    pub fn scaled_object_ownership(&self) -> Ownership {
        self.ownership_of(self.scaled_object_digest())
    }

    /// Digest of the fields that the operator writes, of the object with the name of its ScaledObject.
    pub fn scaled_object_digest(&self) -> Option<&OwnedObject> {
        self.scaled_object.as_ref().map(|found| &found.owned)
    }

    /// Names of its ScaledObjects, and those of its roles, on which KEDA reports a pause that no annotation asks for.
    pub fn ended_pauses(&self) -> Vec<String> {
        let of_model = (self.scaled_object.as_ref(), self.model_serving.scaled_object_name());
        let of_roles = self.roles.iter().map(|role| (role.scaled_object.as_ref(), role.object_name.clone()));
        let reports = |found: &ScaledObjectDigest| {
            found.reports_ended_pause && self.ownership_of(Some(&found.owned)) == Ownership::Owned
        };
        let all = iter::once(of_model).chain(of_roles);
        all.filter(|(found, _)| found.is_some_and(reports)).map(|(_, name)| name).collect()
    }

    /// Ownership of the object with the name of its PodMonitor.
    pub fn pod_monitor_ownership(&self) -> Ownership {
        self.ownership_of(self.pod_monitor.as_ref())
    }

    /// Ownership of the pod with the name of its stand-in.
    pub fn stand_in_ownership(&self) -> Ownership {
        self.ownership_of(self.stand_in.pod.as_ref().map(|found| &found.owned))
    }

    /// Ownership of the Service with the name of its stand-in.
    pub fn stand_in_service_ownership(&self) -> Ownership {
        self.ownership_of(self.stand_in.service.as_ref())
    }

    /// `true` if roles are to be scaled instead of ServingGroups, by valid settings or not.
    pub fn asks_for_roles(&self) -> bool {
        let profile = self.profile.as_ref().and_then(|profile| profile.as_ref().ok());
        self.model_serving.is_opted_in()
            && (self.model_serving.has_roles_annotation()
                || profile.is_some_and(|profile| profile.roles.is_some()))
    }

    /// The same model from the point of view of the ScaledObject of a role.
    #[must_use]
    pub fn of_role(&self, role: &ObservedRole) -> Self {
        Self {
            scaled_object: role.scaled_object.clone(),
            hpa: role.hpa.clone(),
            keda_is_silent: role.keda_is_silent,
            rejection: None,
            roles: Vec::new(),
            ..self.clone()
        }
    }

    /// Ownership of an object with a generated name.
    pub fn ownership_of(&self, found: Option<&OwnedObject>) -> Ownership {
        found.map_or(Ownership::Absent, |digest| digest.ownership_of(&self.model_serving))
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
    fn complete_object() -> Value {
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

    /// Decodes an object with an odd value at every path, alone, in a list and by a watch; the objects next
    /// to it decode too.
    fn decodes_with_odd_values<K: Resource + Clone + DeserializeOwned>() {
        let complete = complete_object();
        let beside = complete.to_string();
        let mut everywhere = Vec::new();
        paths(&complete, "", &mut everywhere);
        for (path, odd) in everywhere.iter().flat_map(|path| odd().into_iter().map(move |odd| (path, odd))) {
            let mut object = complete.clone();
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
    fn decodes_odd_objects_of_every_kind() {
        decodes_with_odd_values::<ModelServing>();
        decodes_with_odd_values::<LiveScaledObject>();
        decodes_with_odd_values::<LiveHpa>();
        decodes_with_odd_values::<LivePolicy>();
        decodes_with_odd_values::<LiveBinding>();
        decodes_with_odd_values::<LiveModelRoute>();
        decodes_with_odd_values::<LiveModelServer>();
        decodes_with_odd_values::<LiveServiceMonitor>();
        decodes_with_odd_values::<LivePodMonitor>();
        decodes_with_odd_values::<LiveProfile>();
        decodes_with_odd_values::<LiveBooster>();
        decodes_with_odd_values::<LiveStandIn>();
        decodes_with_odd_values::<LiveStandInService>();
        decodes_with_odd_values::<LiveRole>();
    }

    #[test]
    fn takes_the_last_of_repeated_fields() {
        let text = r#"{"metadata": {"name": "a", "name": "chat", "labels": {}, "labels": {}}, "status": {}, "spec": {"replicas": 1}, "spec": {"replicas": 2}}"#;
        let found: ModelServing = serde_json::from_str(text).unwrap();
        assert_eq!((found.metadata.name.as_deref(), found.replicas()), (Some("chat"), 2));
    }

    /// `serde_json` fails at 128 levels of the values that it keeps.
    #[test]
    fn decodes_deep_objects() {
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

    /// Odd values in one part of an object leave the other parts readable.
    #[rstest]
    #[case::template("/spec/template", json!("odd"))]
    #[case::labels("/metadata/labels", json!({"a": 3}))]
    #[case::owner("/metadata/ownerReferences", json!([3]))]
    #[case::other_condition("/status/conditions/0", json!({"type": 3}))]
    fn keeps_the_readable_parts_of_an_object(#[case] path: &str, #[case] odd: Value) {
        let mut object = complete_object();
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
    fn reads_the_target_of_a_scaled_object_with_foreign_triggers() {
        let mut object = complete_object();
        *object.pointer_mut("/spec/triggers").unwrap() =
            json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}]);
        let found: LiveScaledObject = read(&object.to_string());
        assert!(ScaledObjectDigest::from(&found).target.is("chat"));
    }
}
