//! Builder of [`Observed`] for tests. Objects are decoded from JSON, so that digests are made as in
//! production.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Autoscalers, BoosterDigest, HpaDigest, InstanceCount, LiveBinding, LiveBooster, LiveHpa, LiveModelRoute,
    LiveModelServer, LivePodMonitor, LivePolicy, LiveProfile, LiveRole, LiveScaledObject, LocatedRouter,
    MonitorDigest, Network, Observed, ObservedRole, ObservedStandIn, PersistentFields, PolicyDigest,
    ProbeResult, ProbeTarget, ProfileDigest, Readability, RoleDigest, RoleInstances, RouteDigest,
    RouterProblem, RouterScrape, ScaledObjectDigest, SelectorMismatch, ServerDigest, ShadowState,
    WaitingPods,
};
use crate::{
    api::{
        annotations::{MODEL_NAME, PREFIX},
        keda::ScaledObject,
        kthena::{ModelServing, Unread},
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::PodMonitor,
    },
    domain::{Capabilities, Key, PrometheusUrl, key, names},
    intent::{Profile, PrometheusSettings},
    signals::RouterSeries,
};

/// A ModelServing `models/chat` and the objects around it.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact of a case")]
pub(crate) struct Fixture {
    /// Capabilities of the cluster, by default [`Capabilities::NEWEST`].
    pub(crate) capabilities: Capabilities,
    /// Built-in defaults and flags of the operator, by default with a Prometheus address.
    pub(crate) defaults: Profile,
    model_serving: Value,
    others: Vec<Value>,
    scaled_object: Option<Value>,
    hpa: Option<Value>,
    pod_monitor: Option<Value>,
    profile: Option<Value>,
    competing: Vec<Value>,
    routes: Vec<Value>,
    servers: Vec<Value>,
    are_routes_served: bool,
    probe: Option<Result<ProbeResult, String>>,
    probed_router: String,
    mismatch: Option<SelectorMismatch>,
    router_problem: Option<RouterProblem>,
    waiting: Option<WaitingPods>,
    second_writer: Option<String>,
    persistent_fields: Vec<String>,
    rejection: Option<String>,
    readable: Readability,
    booster: Option<Result<Value, Unread>>,
    keda_is_silent: bool,
    pause_is_outdated: bool,
    bounds: Option<(i32, i32)>,
    shadow: ShadowState,
    stand_in: Box<ObservedStandIn>,
    roles: Vec<ObservedRole>,
    role_pods: Option<Vec<ObjectMeta>>,
    may_scale_roles: bool,
    roles_writer: Option<String>,
}

impl Fixture {
    /// UID of the ModelServing.
    pub(crate) const UID: &str = "uid-of-chat";
    /// Selector that Kthena writes for the ModelServing.
    pub(crate) const SELECTOR: &str = "modelserving.volcano.sh/entry=true,modelserving.volcano.sh/name=chat,modelserving.volcano.sh/role-id=engine-0,modelserving.volcano.sh/role=engine";

    /// A ModelServing with one role, one ServingGroup and Kthena's selector, which is not opted in.
    pub(crate) fn opted_out() -> Self {
        let url: PrometheusUrl = "http://prometheus:9090".parse().unwrap();
        let prometheus = PrometheusSettings::from(url);
        Self {
            capabilities: Capabilities::NEWEST,
            defaults: Profile { prometheus: Some(prometheus), ..Profile::built_in() },
            model_serving: json!({
                "metadata": {"name": "chat", "namespace": "models", "uid": Self::UID, "annotations": {}},
                "spec": {"replicas": 1, "template": {"roles": [{"name": "engine"}]}},
                "status": {"labelSelector": Self::SELECTOR, "replicas": 1, "availableReplicas": 1},
            }),
            others: Vec::new(),
            scaled_object: None,
            hpa: None,
            pod_monitor: None,
            profile: None,
            competing: Vec::new(),
            routes: Vec::new(),
            servers: Vec::new(),
            are_routes_served: true,
            probe: None,
            probed_router: "kthena-system".to_owned(),
            mismatch: None,
            router_problem: None,
            waiting: None,
            second_writer: None,
            persistent_fields: Vec::new(),
            rejection: None,
            readable: Readability::default(),
            booster: None,
            keda_is_silent: false,
            pause_is_outdated: false,
            bounds: None,
            shadow: ShadowState::default(),
            stand_in: Box::default(),
            roles: Vec::new(),
            role_pods: Some(Vec::new()),
            may_scale_roles: true,
            roles_writer: None,
        }
    }

    /// The same, opted in with model names.
    pub(crate) fn model(names: &str) -> Self {
        Self::opted_out().with("/metadata/annotations", &json!({MODEL_NAME: names}))
    }

    /// Opted in, and scaled well: KEDA, the HPA, the router and the routes are as they should be.
    pub(crate) fn healthy() -> Self {
        let probe = ProbeResult { router: RouterScrape::Succeeds, ..ProbeResult::default() };
        Self::model("llama")
            .scaled_object(&[
                ("Ready", "True", "ScaledObjectReady", "ready"),
                ("Active", "False", "ScalerNotActive", ""),
            ])
            .hpa(&[("ScalingActive", "True", "ValidMetricFound", "")])
            .server("chat", "chat", &json!({"inferenceEngine": "vLLM"}))
            .route("llama", &["chat"])
            .probe(probe)
    }

    /// Sets the capabilities of the cluster.
    pub(crate) fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Removes the Prometheus address from the defaults.
    pub(crate) fn without_prometheus(mut self) -> Self {
        self.defaults.prometheus = None;
        self
    }

    /// Replaces a field of the ModelServing by its JSON pointer; a missing last field is added.
    pub(crate) fn with(mut self, pointer: &str, value: &Value) -> Self {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        self.model_serving.pointer_mut(parent).unwrap()[field] = value.clone();
        self
    }

    /// Sets an annotation by its name under [`PREFIX`].
    pub(crate) fn annotated(mut self, name: &str, value: &str) -> Self {
        self.model_serving["metadata"]["annotations"][format!("{PREFIX}{name}")] = json!(value);
        self
    }

    /// Sets `spec.replicas`.
    pub(crate) fn replicas(self, replicas: i32) -> Self {
        self.with("/spec/replicas", &json!(replicas))
    }

    /// Adds the profile that the ModelServing names.
    pub(crate) fn profile(mut self, spec: &Value) -> Self {
        self.profile = Some(json!({"metadata": {"name": "profile"}, "spec": spec}));
        self
    }

    /// Adds the owned ScaledObject with conditions (type, status, reason, message).
    pub(crate) fn scaled_object(self, conditions: &[Condition<'_>]) -> Self {
        self.scaled_object_with(&owned_by(Self::UID), conditions)
    }

    /// Adds an object with the name of the ScaledObject.
    pub(crate) fn scaled_object_with(mut self, metadata: &Value, conditions: &[Condition<'_>]) -> Self {
        self.scaled_object =
            Some(json!({"metadata": metadata, "spec": target("chat"), "status": reported(conditions)}));
        self
    }

    /// Adds the HPA of the ScaledObject with conditions (type, status, reason, message).
    pub(crate) fn hpa(mut self, conditions: &[Condition<'_>]) -> Self {
        let owner =
            json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "chat", "uid": "s"}]);
        let metadata = json!({"name": "keda-hpa-chat", "namespace": "models", "ownerReferences": owner});
        self.hpa =
            Some(json!({"metadata": metadata, "spec": target("chat"), "status": reported(conditions)}));
        self
    }

    /// Removes the HPA.
    pub(crate) fn without_hpa(mut self) -> Self {
        self.hpa = None;
        self
    }

    /// Adds an object with the name of the PodMonitor.
    pub(crate) fn pod_monitor(mut self, metadata: &Value) -> Self {
        let spec = json!({"selector": {}, "podMetricsEndpoints": []});
        self.pod_monitor = Some(json!({"metadata": metadata, "spec": spec}));
        self
    }

    /// Adds another autoscaler of the given kind, named `theirs`, that scales `chat`.
    pub(crate) fn competitor(mut self, kind: &str) -> Self {
        let metadata = json!({"name": "theirs", "namespace": "models"});
        let spec = if kind.starts_with("AutoscalingPolicy") {
            json!({
                "policyRef": {"name": "theirs"},
                "homogeneousTarget": {"target": {"targetRef": {"kind": "ModelServing", "name": "chat"}}},
            })
        } else {
            target("chat")
        };
        self.competing.push(json!({"kind": kind, "metadata": metadata, "spec": spec}));
        self
    }

    /// Adds another autoscaler of the given kind in a namespace, named `theirs`.
    pub(crate) fn competitor_with(mut self, kind: &str, namespace: &str, spec: &Value) -> Self {
        let metadata = json!({"name": "theirs", "namespace": namespace});
        self.competing.push(json!({"kind": kind, "metadata": metadata, "spec": spec}));
        self
    }

    /// Adds an HPA that KEDA created for a ScaledObject and that scales `chat`.
    pub(crate) fn competitor_of_keda(mut self) -> Self {
        let owner =
            json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "any", "uid": "s"}]);
        let metadata = json!({"name": "keda-hpa-any", "namespace": "models", "ownerReferences": owner});
        self.competing
            .push(json!({"kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": target("chat")}));
        self
    }

    /// Adds a ModelRoute of the namespace from a model name to ModelServers.
    pub(crate) fn route(self, model: &str, servers: &[&str]) -> Self {
        let targets: Vec<Value> = servers.iter().map(|name| json!({"modelServerName": name})).collect();
        self.route_with(&json!({"modelName": model, "rules": [{"targetModels": targets}]}))
    }

    /// Adds a ModelRoute of the namespace; it is younger than the routes added before.
    pub(crate) fn route_with(self, spec: &Value) -> Self {
        self.route_in("models", spec)
    }

    /// Adds a ModelRoute of a namespace; it is younger than the routes added before.
    pub(crate) fn route_in(mut self, namespace: &str, spec: &Value) -> Self {
        let (name, minute) = (format!("route-{}", self.routes.len()), self.routes.len());
        let created = format!("2026-01-01T00:{minute:02}:00Z");
        self.routes.push(json!({
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}, "spec": spec,
        }));
        self
    }

    /// Makes a cluster without ModelRoutes.
    pub(crate) fn without_routes(mut self) -> Self {
        self.routes.clear();
        self.are_routes_served = false;
        self
    }

    /// Adds a ModelServer that selects the pods of a ModelServing, with further fields of its spec.
    pub(crate) fn server(self, name: &str, model_serving: &str, fields: &Value) -> Self {
        self.server_with(name, &json!({"modelserving.volcano.sh/name": model_serving}), fields)
    }

    /// Adds a ModelServer of another namespace that selects no pods.
    pub(crate) fn server_in(mut self, namespace: &str, name: &str) -> Self {
        let spec = json!({"workloadSelector": {"matchLabels": {"app": "any"}}});
        self.servers.push(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}));
        self
    }

    /// Adds a ModelServer by its pod labels, with further fields of its spec.
    pub(crate) fn server_with(mut self, name: &str, labels: &Value, fields: &Value) -> Self {
        let mut spec = json!({"workloadSelector": {"matchLabels": labels}});
        if fields.get("pdGroup").is_some() {
            spec["workloadSelector"]["pdGroup"] = json!({});
        }
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.servers.push(json!({"metadata": {"name": name, "namespace": "models"}, "spec": spec}));
        self
    }

    /// Adds another ModelServing with the same role, opted in with model names.
    pub(crate) fn other(self, name: &str, names: &str) -> Self {
        self.other_in("models", name, names)
    }

    /// Adds a ModelServing of another namespace.
    pub(crate) fn other_in(mut self, namespace: &str, name: &str, names: &str) -> Self {
        let metadata =
            json!({"name": name, "namespace": namespace, "uid": name, "annotations": {MODEL_NAME: names}});
        self.others
            .push(json!({"metadata": metadata, "spec": {"template": {"roles": [{"name": "engine"}]}}}));
        self
    }

    /// Sets the result of the operator's own queries.
    pub(crate) fn probe(mut self, probe: ProbeResult) -> Self {
        self.probe = Some(Ok(probe));
        self
    }

    /// Sets the result of the operator's own queries about the router of a namespace.
    pub(crate) fn probe_at(mut self, router_namespace: &str, probe: ProbeResult) -> Self {
        router_namespace.clone_into(&mut self.probed_router);
        self.probe(probe)
    }

    /// Makes the operator's own queries fail.
    pub(crate) fn probe_error(mut self, error: &str) -> Self {
        self.probe = Some(Err(error.to_owned()));
        self
    }

    /// Sets a problem of the router's scraping.
    pub(crate) fn router_problem(mut self, problem: RouterProblem) -> Self {
        self.router_problem = Some(problem);
        self
    }

    /// Sets a confirmed mismatch of the selector.
    pub(crate) fn mismatch(mut self, pods: usize, groups: i32) -> Self {
        self.mismatch = Some(SelectorMismatch { pods, groups });
        self
    }

    /// Sets the cause for which ServingGroups do not become ready.
    pub(crate) fn waiting(mut self, cause: WaitingPods) -> Self {
        self.waiting = Some(cause);
        self
    }

    /// Sets the field manager that reset `spec.replicas`.
    pub(crate) fn second_writer(mut self, manager: &str) -> Self {
        self.second_writer = Some(manager.to_owned());
        self
    }

    /// Makes KEDA silent for minutes.
    pub(crate) fn keda_is_silent(mut self) -> Self {
        self.keda_is_silent = true;
        self
    }

    /// Makes KEDA report a pause for minutes after its end.
    pub(crate) fn pause_is_outdated(mut self) -> Self {
        self.pause_is_outdated = true;
        if let Some(found) = &mut self.scaled_object {
            let paused = json!({"type": "Paused", "status": "True", "reason": "ScaledObjectPaused"});
            found["status"]["conditions"].as_array_mut().unwrap().push(paused);
        }
        self
    }

    /// Asks for a dry run, whose state is this.
    pub(crate) fn in_shadow(mut self, state: ShadowState) -> Self {
        self.shadow = state;
        self.annotated("shadow", "true")
    }

    /// A model with a minimum of 0, whose profile asks for a stand-in, of an operator that makes them.
    pub(crate) fn holding() -> Self {
        let profile = json!({"scaleToZero": {"hold": {}}});
        let mut holding = Self::healthy()
            .server("chat", "chat", &json!({"inferenceEngine": "vLLM", "workloadPort": {"port": 8000}}))
            .annotated("min-replicas", "0")
            .profile(&profile);
        holding.servers.remove(0);
        holding.stand_in.image = Some("registry/kthena-keda:1".to_owned());
        holding
    }

    /// The same, without a ServingGroup.
    pub(crate) fn asleep() -> Self {
        Self::holding().replicas(0).available(0)
    }

    /// Sets `status.availableReplicas`.
    pub(crate) fn available(self, groups: i32) -> Self {
        self.with("/status/availableReplicas", &json!(groups))
    }

    /// Replaces the ModelServers by one with these pod labels and further fields.
    pub(crate) fn only_server(mut self, labels: &Value, fields: &Value) -> Self {
        self.servers.clear();
        self.server_with("chat", labels, fields)
    }

    /// Removes the ModelServers.
    pub(crate) fn without_servers(mut self) -> Self {
        self.servers.clear();
        self
    }

    /// Sets the stand-in, from its default.
    pub(crate) fn stand_in(mut self, set: impl FnOnce(&mut ObservedStandIn)) -> Self {
        set(&mut self.stand_in);
        self
    }

    /// Removes the ScaledObject and its HPA.
    pub(crate) fn without_scaled_object(mut self) -> Self {
        self.scaled_object = None;
        self.without_hpa()
    }

    /// Sets the bounds of the ScaledObject.
    pub(crate) fn applied_bounds(mut self, min: i32, max: i32) -> Self {
        self.bounds = Some((min, max));
        self
    }

    /// Sets which kinds could be read.
    pub(crate) fn readable(mut self, readable: Readability) -> Self {
        self.readable = readable;
        self
    }

    /// Adds a field of the ScaledObject that is set again after each removal, as a JSON pointer.
    pub(crate) fn persistent_field(mut self, field: &str) -> Self {
        self.persistent_fields.push(field.to_owned());
        self
    }

    /// Sets the rejection of the last plan.
    pub(crate) fn rejected(mut self, error: &str) -> Self {
        self.rejection = Some(error.to_owned());
        self
    }

    /// Makes the ModelBooster `demo` control the ModelServing, with these annotations.
    pub(crate) fn booster(self, annotations: &Value) -> Self {
        let metadata = json!({"name": "demo", "namespace": "models", "uid": "b", "annotations": annotations});
        self.controlled_by(Ok(json!({"metadata": metadata})))
    }

    /// Makes a ModelBooster that could not be read control the ModelServing.
    pub(crate) fn unread_booster(self, cause: Unread) -> Self {
        self.controlled_by(Err(cause))
    }

    fn controlled_by(mut self, booster: Result<Value, Unread>) -> Self {
        self.booster = Some(booster);
        let api_version = ModelServing::API_VERSION;
        let owner = json!([{"apiVersion": api_version, "kind": "ModelBooster", "name": "demo", "uid": "b", "controller": true}]);
        self.with("/metadata/ownerReferences", &owner)
    }

    /// A model whose roles `prefill` (2 instances) and `decode` (3) are scaled, before anything was generated for them.
    pub(crate) fn with_roles() -> Self {
        let role = |name: &str, replicas: i32| json!({"name": name, "replicas": replicas});
        Self::model("llama")
            .with("/spec/template/roles", &json!([role("prefill", 2), role("decode", 3)]))
            .annotated("roles", "prefill: ttft-p90=2s max=8; decode: kv-cache=0.8 min=2 max=16")
            .server("chat", "chat", &json!({"inferenceEngine": "vLLM"}))
            .route("llama", &["chat"])
            .role_pods("chat-0", &[("prefill", 2), ("decode", 3)])
    }

    /// Adds the entry pods of a ServingGroup.
    pub(crate) fn role_pods(mut self, group: &str, roles: &[(&str, usize)]) -> Self {
        let owner = &owned_by(Self::UID)["ownerReferences"];
        for (role, count) in roles {
            let labels =
                json!({"modelserving.volcano.sh/group-name": group, "modelserving.volcano.sh/role": role});
            let pod: ObjectMeta = decode(&json!({"labels": labels, "ownerReferences": owner}));
            self.role_pods.get_or_insert_default().extend(vec![pod; *count]);
        }
        self
    }

    /// Forbids the operator to list pods.
    pub(crate) fn without_permission_for_pods(mut self) -> Self {
        self.role_pods = None;
        self
    }

    /// Adds the owned scale target of a role, for which the HPA asks for this number.
    pub(crate) fn role(self, role: &str, asked: i32) -> Self {
        let target = json!({"modelServing": "chat", "role": role, "replicas": asked});
        self.role_with(role, &owned_by(Self::UID), &target)
    }

    /// Adds an object with the name of the scale target of a role.
    pub(crate) fn role_with(mut self, role: &str, metadata: &Value, spec: &Value) -> Self {
        let object_name = names::role("chat", role);
        let mut metadata = metadata.clone();
        metadata["name"] = json!(object_name);
        self.roles.push(ObservedRole {
            name: role.to_owned(),
            object_name,
            object: Some(RoleDigest::from(&decode::<LiveRole>(&json!({"metadata": metadata, "spec": spec})))),
            scaled_object: None,
            hpa: None,
            keda_is_silent: false,
        });
        self
    }

    /// Adds the owned ScaledObject and the HPA of the last role, with conditions of both.
    pub(crate) fn role_scaled(mut self, keda: &[Condition<'_>], hpa: &[Condition<'_>]) -> Self {
        let role = self.roles.last_mut().unwrap();
        let target = json!({"scaleTargetRef": {"apiVersion": "autoscaling.kthena.io/v1alpha1", "kind": "ModelServingRole", "name": role.object_name}});
        let object = |conditions: &[Condition<'_>]| {
            let mut metadata = owned_by(Self::UID);
            metadata["name"] = json!(role.object_name);
            json!({"metadata": metadata, "spec": target, "status": reported(conditions)})
        };
        role.scaled_object = Some(ScaledObjectDigest::from(&decode::<LiveScaledObject>(&object(keda))));
        role.hpa = Some(HpaDigest::from(&decode::<LiveHpa>(&object(hpa))));
        self
    }

    /// Records an applied scale target of a role as the API server returns it.
    pub(crate) fn role_status(mut self, role: &str, status: &Value) -> Self {
        let found = self.roles.iter_mut().find(|found| found.name == role).unwrap();
        found.object.as_mut().unwrap().status = decode(status);
        self
    }

    /// Forbids the operator to scale roles.
    pub(crate) fn without_permission_for_roles(mut self) -> Self {
        self.may_scale_roles = false;
        self
    }

    /// Sets the field manager that set the roles after the operator had.
    pub(crate) fn roles_writer(mut self, manager: &str) -> Self {
        self.roles_writer = Some(manager.to_owned());
        self
    }

    /// Decodes all objects.
    pub(crate) fn observed(&self) -> Observed {
        let mut model_serving: ModelServing = decode(&self.model_serving);
        model_serving.inherit(|_| match self.booster.clone() {
            Some(Ok(booster)) => Ok(BoosterDigest::from(&decode::<LiveBooster>(&booster)).inherited),
            Some(Err(cause)) => Err(cause),
            None => Err(Unread::NotListed),
        });
        let router = RouterSeries::assumed("kthena-system");
        let prometheus = self.defaults.prometheus.clone();
        let probes = prometheus.zip(self.probe.clone()).map(|(prometheus, probe)| {
            let router = RouterSeries::assumed(&self.probed_router);
            (ProbeTarget { prometheus, router }, probe.map(Arc::new))
        });
        Observed {
            scaled_object: self.scaled_object.as_ref().map(|found| ScaledObjectDigest {
                bounds: self.bounds,
                ..ScaledObjectDigest::from(&decode::<LiveScaledObject>(found))
            }),
            keda_is_silent: self.keda_is_silent,
            pause_is_outdated: self.pause_is_outdated,
            hpa: self.hpa.as_ref().map(|found| HpaDigest::from(&decode::<LiveHpa>(found))),
            competing_autoscalers: self.autoscalers(|all| all.competing_with(&model_serving)),
            role_autoscalers: self.autoscalers(|all| all.scaling_roles_of(&model_serving)),
            roles: self.roles.clone(),
            role_instances: match &self.role_pods {
                Some(pods) => InstanceCount::Counted(RoleInstances::of(pods, Some(Self::UID))),
                None => InstanceCount::Forbidden,
            },
            roles_writer: self.roles_writer.clone(),
            may_scale_roles: self.may_scale_roles,
            pod_monitor: self
                .pod_monitor
                .as_ref()
                .map(|found| MonitorDigest::from(&decode::<LivePodMonitor>(found)).owned),
            second_writer: self.second_writer.clone(),
            shadow: self.shadow,
            stand_in: (*self.stand_in).clone(),
            persistent_fields: PersistentFields {
                scaled_object: self.persistent_fields.clone(),
                ..PersistentFields::default()
            },
            rejection: self.rejection.clone(),
            readable: self.readable,
            probes: Arc::new(probes.into_iter().collect()),
            mismatch: self.mismatch,
            waiting: self.waiting.clone(),
            routing: self.routing(&model_serving),
            profile: self
                .profile
                .as_ref()
                .map(|found| ProfileDigest::from(&decode::<LiveProfile>(found)).settings),
            ..Observed::of(
                model_serving,
                LocatedRouter { series: router, problem: self.router_problem.clone() },
            )
        }
    }

    fn autoscalers(
        &self,
        read: impl FnOnce(&Autoscalers<'_>) -> Vec<super::CompetingAutoscaler>,
    ) -> Vec<super::CompetingAutoscaler> {
        let scaled_objects = self.digests::<LiveScaledObject, ScaledObjectDigest>("ScaledObject");
        let hpas = self.digests::<LiveHpa, HpaDigest>("HorizontalPodAutoscaler");
        let policies = self.digests::<LivePolicy, PolicyDigest>("AutoscalingPolicy");
        let bindings = self.digests::<LiveBinding, PolicyDigest>("AutoscalingPolicyBinding");
        read(&Autoscalers {
            scaled_objects: &by_key(&scaled_objects),
            hpas: &by_key(&hpas),
            policies: &by_key(&policies),
            bindings: &by_key(&bindings),
        })
    }

    fn digests<K, D>(&self, kind: &str) -> Vec<(Key, D)>
    where
        K: Resource + DeserializeOwned,
        D: for<'a> From<&'a K>,
    {
        self.competing.iter().filter(|found| found["kind"] == kind).map(digest::<K, D>).collect()
    }

    fn routing(&self, model_serving: &ModelServing) -> super::Routing {
        let routes: Vec<_> = self.routes.iter().map(digest::<LiveModelRoute, RouteDigest>).collect();
        let servers: Vec<_> = self.servers.iter().map(digest::<LiveModelServer, ServerDigest>).collect();
        let all = [&self.model_serving].into_iter().chain(&self.others);
        let model_servings: Vec<Arc<ModelServing>> = all.map(|found| Arc::new(decode(found))).collect();
        let network = Network {
            routes_are_served: self.are_routes_served,
            routes: &by_key(&routes),
            servers: &by_key(&servers),
            model_servings: &model_servings,
        };
        network.routing(model_serving)
    }
}

/// Type, status, reason and message.
pub(crate) type Condition<'a> = (&'a str, &'a str, &'a str, &'a str);

/// Metadata of a generated object that the operator marked and the owner with this UID controls.
pub(crate) fn owned_by(uid: &str) -> Value {
    let owner = json!([{"apiVersion": ModelServing::API_VERSION, "kind": "ModelServing", "name": "chat", "uid": uid, "controller": true}]);
    json!({"name": "chat", "namespace": "models", "uid": "generated", "labels": {MANAGED_BY: OPERATOR}, "ownerReferences": owner})
}

/// A generated object as the API server returns it after the operator applied it.
pub(crate) fn applied_scaled_object(wanted: &ScaledObject) -> ScaledObjectDigest {
    ScaledObjectDigest::from(&decode::<LiveScaledObject>(&applied(wanted)))
}

/// The same for a PodMonitor.
pub(crate) fn applied_pod_monitor(wanted: &PodMonitor) -> super::OwnedObject {
    MonitorDigest::from(&decode::<LivePodMonitor>(&applied(wanted))).owned
}

/// A stand-in pod as the API server returns it after the operator created it, with a status.
pub(crate) fn applied_stand_in(wanted: &Pod, status: &Value) -> super::StandInDigest {
    let mut pod = applied(wanted);
    pod["status"] = status.clone();
    super::StandInDigest::from(&decode::<super::LiveStandIn>(&pod))
}

/// The same for its Service.
pub(crate) fn applied_stand_in_service(wanted: &Service) -> super::OwnedObject {
    super::StandInServiceDigest::from(&decode::<super::LiveStandInService>(&applied(wanted))).0
}

/// The object with the managed fields of an apply by the operator.
pub(crate) fn applied(wanted: &impl Serialize) -> Value {
    let mut object = serde_json::to_value(wanted).unwrap();
    let keys = |field: &str| fields_of(&object["metadata"][field]);
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let owners: serde_json::Map<_, _> = owners
        .map(|owner| (format!("k:{{\"uid\":{}}}", owner["uid"]), json!({".": {}, "f:uid": {}, "f:name": {}, "f:kind": {}, "f:apiVersion": {}, "f:controller": {}, "f:blockOwnerDeletion": {}})))
        .collect();
    let fields = json!({
        "f:metadata": {"f:labels": keys("labels"), "f:annotations": keys("annotations"), "f:ownerReferences": owners},
        "f:spec": fields_of(&object["spec"]),
    });
    object["metadata"]["managedFields"] =
        json!([{"manager": OPERATOR, "operation": "Apply", "fieldsV1": fields}]);
    object["metadata"]["uid"] = json!("generated");
    object
}

/// Sets a field by its JSON pointer, in the name of a field manager; without one, as a webhook would.
pub(crate) fn edited(mut object: Value, pointer: &str, value: &Value, manager: Option<&str>) -> Value {
    let names: Vec<&str> = pointer.split('/').skip(1).collect();
    let mut found = &mut object;
    for name in &names {
        if found[*name].is_null() {
            found[*name] = json!({});
        }
        found = &mut found[*name];
    }
    *found = value.clone();
    if let Some(manager) = manager {
        let fields = names.iter().rev().fold(json!({}), |below, name| json!({format!("f:{name}"): below}));
        let entry = json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
        object["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
    }
    object
}

fn fields_of(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten();
    fields
        .map(|(key, value)| (format!("f:{key}"), fields_of(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn target(name: &str) -> Value {
    json!({"scaleTargetRef": {"apiVersion": ModelServing::API_VERSION, "kind": ModelServing::KIND, "name": name}})
}

fn reported(conditions: &[Condition<'_>]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason, message)| json!({"type": kind, "status": status, "reason": reason, "message": message}))
        .collect();
    json!({"conditions": conditions})
}

pub(crate) fn decode<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

fn digest<K, D>(object: &Value) -> (Key, D)
where
    K: Resource + DeserializeOwned,
    D: for<'a> From<&'a K>,
{
    let live: K = decode(object);
    (key(&live), D::from(&live))
}

fn by_key<D>(digests: &[(Key, D)]) -> Vec<(&Key, &D)> {
    digests.iter().map(|(key, digest)| (key, digest)).collect()
}
