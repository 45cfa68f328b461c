//! Plans from annotations and a profile: planning never panics, the API server accepts every planned object,
//! and a second reconcile writes nothing.
//!
//! Input: lines that describe the cluster, such as `max-replicas=3` (an annotation),
//! `profile/replicas/min=0`, `serving/spec/replicas=2`, `route/spec/modelName=m`,
//! `server/spec/workloadPort/port=8000`, `service/metadata/name=r` and `without=pod-monitors`.

use kthena_keda::{cluster::server_side_apply::Generated as _, sources::Manifests};
use kthena_keda_core::{
    api::{keda::ScaledObject, kthena::ModelServing, monitoring::PodMonitor},
    domain::{Capabilities, Keda, LabelSelector, Namespace, ObjectName, PrometheusUrl},
    intent::{Profile, PrometheusSettings},
    observed::{LivePodMonitor, LiveScaledObject, LiveServiceMonitor, MonitorDigest, ScaledObjectDigest},
    plan::{Desired, Plan, plan, plan_router},
    promql::Query,
};
use serde_json::{Value, json};

use crate::{
    lines::{lines, set, text},
    schema::{OLD_SCALED_OBJECT, POD_MONITOR, SCALED_OBJECT, SERVICE_MONITOR, Schema},
};

/// Label of the router's Service.
const COMPONENT: &str = "app.kubernetes.io/component";
/// Maximum length of a label value; Kthena creates no pods for a ModelServing with a longer name.
const MAX_LABEL_LENGTH: usize = 63;

/// Inputs of a plan.
struct Case {
    serving: Value,
    profile: Option<Value>,
    route: Option<Value>,
    server: Option<Value>,
    service: Option<Value>,
    capabilities: Capabilities,
}

/// Checks that planning succeeds and is deterministic, that the plan is valid, and that nothing is left to
/// write after it is applied.
pub fn annotations(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let case = Case::read(input);
    let Some(model_serving) = case.model_serving() else { return };
    let mut manifests = Manifests::of_newest_cluster(case.route.is_some());
    for object in [
        Some(&case.serving),
        case.profile.as_ref(),
        case.route.as_ref(),
        case.server.as_ref(),
        case.service.as_ref(),
    ] {
        // Invalid objects are ignored.
        let _ = object.map(|object| manifests.add("case", object.clone()));
    }
    let mut defaults = Profile::built_in();
    defaults.prometheus = Some(PrometheusSettings::from(
        "http://prometheus:9090".parse::<PrometheusUrl>().expect("an address"),
    ));

    let (router, _) = manifests.observe_router("kthena-system");
    let router = plan_router(&router, manifests.default_profile().as_ref(), &defaults, true);
    if let Desired::Apply(monitor) = &router.service_monitor {
        let object = checked(&SERVICE_MONITOR, &**monitor);
        let live: LiveServiceMonitor = serde_json::from_value(after_apply(&object)).expect("any object");
        assert!(
            MonitorDigest::from(&live).owned.fingerprint == monitor.fingerprint(),
            "an applied object is written again: {object}"
        );
    }
    let observed = manifests.observe(&model_serving, router.router);
    let planned = plan(&observed, case.capabilities, &defaults);
    assert_eq!(
        format!("{planned:?}"),
        format!("{:?}", plan(&observed, case.capabilities, &defaults)),
        "two plans of the same inputs differ"
    );
    check(&model_serving, &planned, case.capabilities);
}

fn check(model_serving: &ModelServing, planned: &Plan, capabilities: Capabilities) {
    if let Desired::Apply(object) = &planned.scaled_object {
        check_scaled_object(object, capabilities);
    } else if model_serving.is_opted_in() && !model_serving.spec.template.roles.is_empty() {
        assert!(!planned.findings.is_empty(), "neither a ScaledObject nor a finding is planned");
    }
    if let Desired::Apply(monitor) = &planned.pod_monitor {
        check_pod_monitor(monitor);
    }
    let name = model_serving.metadata.name.as_deref().unwrap_or_default();
    if let (Desired::Apply(selector), true) = (&planned.selector, name.len() <= MAX_LABEL_LENGTH) {
        assert!(selector.parse::<LabelSelector>().is_ok(), "the selector {selector}");
    }
    if let Some(explanation) = &planned.explanation {
        assert!(!explanation.verdict.message.is_empty(), "{:?} has no message", explanation.verdict);
    }
}

fn check_scaled_object(object: &ScaledObject, capabilities: Capabilities) {
    let keda = capabilities.keda.expect("a ScaledObject is planned without KEDA");
    let newest = capabilities == Capabilities::NEWEST;
    let value =
        checked(if newest || keda.fallback_behavior { &SCALED_OBJECT } else { &OLD_SCALED_OBJECT }, object);
    let spec = &object.spec;
    assert!(spec.min_replica_count <= spec.max_replica_count, "{value}");
    assert!(
        object.metadata.name.as_ref().is_some_and(|name| name.len() <= 54),
        "the name of KEDA's HPA is too long: {value}"
    );
    let mut names: Vec<&String> = spec.triggers.iter().filter_map(|trigger| trigger.name.as_ref()).collect();
    assert_eq!(names.len(), spec.triggers.len(), "a trigger without a name: {value}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), spec.triggers.len(), "two triggers with one name: {value}");
    assert!(!names.is_empty(), "no trigger: {value}");
    for trigger in &spec.triggers {
        let query = &trigger.metadata["query"];
        assert!(Query::parse(query).is_ok(), "{:?} of {query}", Query::parse(query));
        let threshold: f64 = trigger.metadata["threshold"].parse().expect("a number");
        assert!(threshold >= 0.001 && threshold.is_finite(), "the threshold {threshold}");
    }
    let behavior = spec
        .advanced
        .iter()
        .filter_map(|advanced| advanced.horizontal_pod_autoscaler_config.as_ref()?.behavior.as_ref());
    for rules in behavior.flat_map(|behavior| [&behavior.scale_up, &behavior.scale_down]).flatten() {
        // Limits of the HPA (Kubernetes `pkg/apis/autoscaling/validation`), on which KEDA would fail.
        assert!(
            rules.stabilization_window_seconds.is_none_or(|seconds| (0..=3600).contains(&seconds)),
            "{value}"
        );
        assert!(
            rules
                .policies
                .iter()
                .all(|policy| policy.value > 0 && (1..=1800).contains(&policy.period_seconds)),
            "{value}"
        );
    }
    let live: LiveScaledObject = serde_json::from_value(after_apply(&value)).expect("any object");
    assert!(
        ScaledObjectDigest::from(&live).owned.fingerprint == object.fingerprint(),
        "an applied object is written again: {value}"
    );
}

fn check_pod_monitor(monitor: &PodMonitor) {
    let value = checked(&POD_MONITOR, monitor);
    let live: LivePodMonitor = serde_json::from_value(after_apply(&value)).expect("any object");
    assert!(
        MonitorDigest::from(&live).owned.fingerprint == monitor.fingerprint(),
        "an applied object is written again: {value}"
    );
}

fn checked(schema: &Schema, object: &impl serde::Serialize) -> Value {
    let value = serde_json::to_value(object).expect("JSON");
    schema.check(&value);
    value
}

/// Field set of the keys in a map of an object's metadata.
fn owned_keys(object: &Value, field: &str) -> Value {
    let keys = object["metadata"][field].as_object().into_iter().flat_map(|fields| fields.keys());
    keys.map(|key| (format!("f:{key}"), json!({}))).collect::<serde_json::Map<_, _>>().into()
}

/// An applied object as the API server returns it, with the managed fields of its metadata.
fn after_apply(object: &Value) -> Value {
    let fields = json!({"f:metadata": {"f:labels": owned_keys(object, "labels"), "f:annotations": owned_keys(object, "annotations")}});
    let mut live = object.clone();
    live["metadata"]["uid"] = json!("uid");
    live["metadata"]["managedFields"] =
        json!([{"manager": "kthena-keda", "operation": "Apply", "fieldsV1": fields}]);
    live
}

impl Case {
    fn read(input: &str) -> Self {
        let mut case = Self {
            serving: json!({
                "apiVersion": ModelServing::API_VERSION, "kind": "ModelServing",
                "metadata": {"name": "chat", "namespace": "models", "uid": "7e1f"},
                "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}},
            }),
            profile: None,
            route: None,
            server: None,
            service: None,
            capabilities: Capabilities::NEWEST,
        };
        lines(input).take(64).for_each(|(path, value)| case.apply(path, value));
        case
    }

    fn apply(&mut self, path: &str, value: &str) {
        let networking = "networking.serving.volcano.sh";
        match path.split_once('/') {
            _ if path == "without" => self.remove_capability(value),
            Some(("serving", path)) => set(&mut self.serving, path, value),
            Some(("profile", path)) => {
                let profile = self
                    .profile
                    .get_or_insert_with(|| empty_object("AutoscalingProfile", "autoscaling.kthena.io", ""));
                set(&mut profile["spec"], path, value);
            }
            Some(("route", path)) => set(
                self.route.get_or_insert_with(|| empty_object("ModelRoute", networking, "models")),
                path,
                value,
            ),
            Some(("server", path)) => set(
                self.server.get_or_insert_with(|| empty_object("ModelServer", networking, "models")),
                path,
                value,
            ),
            Some(("service", path)) => set(self.service.get_or_insert_with(service), path, value),
            // An annotation is text, even if it is valid JSON.
            Some(_) => self.annotate(path, value),
            None => self.annotate(&format!("autoscaling.kthena.io/{path}"), value),
        }
    }

    fn annotate(&mut self, key: &str, value: &str) {
        let path = format!("metadata/annotations/{}", key.replace('/', "~1"));
        set(&mut self.serving, &path, &json!(text(value)).to_string());
    }

    fn remove_capability(&mut self, name: &str) {
        let keda = self.capabilities.keda;
        match name {
            "keda" => self.capabilities.keda = None,
            "scale" => self.capabilities.scale = false,
            "pod-monitors" => self.capabilities.pod_monitors = false,
            "directional-pause" => {
                self.capabilities.keda = keda.map(|keda| Keda { directional_pause: false, ..keda });
            }
            "fallback-behavior" => {
                self.capabilities.keda =
                    keda.map(|keda| Keda { directional_pause: false, fallback_behavior: false, ..keda });
            }
            "initial-cooldown" => {
                self.capabilities.keda = keda.map(|_| Keda {
                    directional_pause: false,
                    fallback_behavior: false,
                    initial_cooldown: false,
                });
            }
            _ => {}
        }
    }

    /// The ModelServing, or `None` if the API server would reject it.
    fn model_serving(&self) -> Option<ModelServing> {
        let metadata = &self.serving["metadata"];
        let is_named = metadata["name"].as_str()?.parse::<ObjectName>().is_ok()
            && metadata["namespace"].as_str()?.parse::<Namespace>().is_ok();
        let has_roles =
            self.serving.pointer("/spec/template/roles").and_then(Value::as_array).is_some_and(|roles| {
                !roles.is_empty()
                    && roles.iter().all(|role| {
                        role["name"]
                            .as_str()
                            .is_some_and(|name| name.len() <= 12 && name.parse::<Namespace>().is_ok())
                    })
            });
        (is_named && metadata["uid"].as_str().is_some_and(|uid| !uid.is_empty()) && has_roles)
            .then(|| serde_json::from_value(self.serving.clone()).expect("any object"))
    }
}

fn empty_object(kind: &str, group: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": format!("{group}/v1alpha1"), "kind": kind,
        "metadata": {"name": "default", "namespace": namespace},
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kthena-router", "namespace": "kthena-system", "labels": {COMPONENT: "kthena-router"}},
        "spec": {"selector": {COMPONENT: "kthena-router"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}
