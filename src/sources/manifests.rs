//! Manifests as a source of [`Observed`], in place of a cluster: what `render` goes by.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::ResourceExt as _;
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::Value;

use kthena_keda_core::{
    api::{annotations::DEFAULT_PROFILE, kthena::ModelServing, profile::AutoscalingProfile},
    domain::{Key, key, names::ROUTER_SERVICE_MONITOR},
    intent::Profile,
    observed::{
        Autoscalers, HpaDigest, LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor,
        LivePolicy, LiveScaledObject, LiveServiceMonitor, MonitorDigest, Network, Observed, ObservedRouter,
        PolicyDigest, ProfileDigest, RouteDigest, RouterService, ScaledObjectDigest, ServerDigest,
    },
    plan::assumed_service,
    signals::RouterSeries,
};

/// Objects that were read, by kind; kinds that no plan depends on are left out.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The ModelServings, and where each stands.
    pub model_servings: Vec<(String, Arc<ModelServing>)>,
    scaled_objects: BTreeMap<Key, ScaledObjectDigest>,
    hpas: BTreeMap<Key, HpaDigest>,
    policies: BTreeMap<Key, PolicyDigest>,
    bindings: BTreeMap<Key, PolicyDigest>,
    services: BTreeMap<Key, RouterService>,
    profiles: BTreeMap<Key, ProfileDigest>,
    service_monitors: BTreeMap<Key, MonitorDigest>,
    pod_monitors: BTreeMap<Key, MonitorDigest>,
    routes: BTreeMap<Key, RouteDigest>,
    servers: BTreeMap<Key, ServerDigest>,
    has_route_kind: bool,
    server_addresses: BTreeMap<Key, String>,
}

impl Manifests {
    /// Those of a cluster, which has ModelRoutes or does not.
    pub fn of_cluster(has_route_kind: bool) -> Self {
        Self { has_route_kind, ..Self::default() }
    }

    /// Where the Prometheus is that KEDA asks for a model now.
    pub fn server_address(&self, namespace: &str, name: &str) -> Option<&str> {
        self.server_addresses.get(&(namespace.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// Takes one object.
    ///
    /// # Errors
    /// When it does not have the shape of its kind; says where it stands.
    pub fn add(&mut self, place: &str, object: Value) -> Result<(), String> {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group).to_owned();
        match (group.as_str(), text("kind")) {
            (ModelServing::GROUP, ModelServing::KIND) => {
                self.model_servings.push((place.to_owned(), Arc::new(decode(place, object)?)));
            }
            ("autoscaling.kthena.io", "AutoscalingProfile") => {
                insert(&mut self.profiles, &profile(place, &object)?)
            }
            ("keda.sh", "ScaledObject") => {
                let found = decode::<LiveScaledObject>(place, object)?;
                self.server_addresses
                    .extend(found.server_address().map(|address| (key(&found), address.to_owned())));
                insert(&mut self.scaled_objects, &found);
            }
            ("", "Service") => insert(&mut self.services, &decode::<Service>(place, object)?),
            ("monitoring.coreos.com", "ServiceMonitor") => {
                insert(&mut self.service_monitors, &decode::<LiveServiceMonitor>(place, object)?);
            }
            ("monitoring.coreos.com", "PodMonitor") => {
                insert(&mut self.pod_monitors, &decode::<LivePodMonitor>(place, object)?)
            }
            ("networking.serving.volcano.sh", "ModelRoute") => {
                insert(&mut self.routes, &decode::<LiveModelRoute>(place, object)?)
            }
            ("networking.serving.volcano.sh", "ModelServer") => {
                insert(&mut self.servers, &decode::<LiveModelServer>(place, object)?)
            }
            ("autoscaling", "HorizontalPodAutoscaler") => {
                insert(&mut self.hpas, &decode::<LiveHpa>(place, object)?)
            }
            (ModelServing::GROUP, "AutoscalingPolicy") => {
                insert(&mut self.policies, &decode::<LivePolicy>(place, object)?)
            }
            (ModelServing::GROUP, "AutoscalingPolicyBinding") => {
                insert(&mut self.bindings, &decode::<LiveBinding>(place, object)?)
            }
            _ => {}
        }
        Ok(())
    }

    /// What there is of a ModelServing.
    pub fn observe(&self, model_serving: &ModelServing, router: RouterSeries) -> Observed {
        let namespace = model_serving.namespace().unwrap_or_default();
        let model_servings: Vec<Arc<ModelServing>> =
            self.model_servings.iter().map(|(_, found)| found.clone()).collect();
        let (of_routes, of_servers): (Vec<_>, Vec<_>) =
            (self.routes.iter().collect(), self.servers.iter().collect());
        let (scaled_objects, hpas): (Vec<_>, Vec<_>) =
            (self.scaled_objects.iter().collect(), self.hpas.iter().collect());
        let (policies, bindings): (Vec<_>, Vec<_>) =
            (self.policies.iter().collect(), self.bindings.iter().collect());
        let autoscalers = Autoscalers {
            scaled_objects: &scaled_objects,
            hpas: &hpas,
            policies: &policies,
            bindings: &bindings,
        };
        let pod_monitor = self.pod_monitors.get(&(namespace.clone(), model_serving.pod_monitor_name()));
        Observed {
            model_serving: model_serving.clone(),
            hpa: self.hpas.get(&(namespace.clone(), model_serving.hpa_name())).cloned(),
            competing_autoscalers: autoscalers.competing_with(model_serving),
            probes: Arc::default(),
            mismatch: None,
            rejection: None,
            second_writer: None,
            scaled_object: self.scaled_objects.get(&(namespace, model_serving.scaled_object_name())).cloned(),
            pod_monitor: pod_monitor.map(|digest| digest.owned.clone()),
            router,
            routing: Network {
                are_served: self.has_route_kind,
                routes: &of_routes,
                servers: &of_servers,
                model_servings: &model_servings,
            }
            .routing(model_serving),
            profile: self.profile(model_serving.profile()).map(|digest| digest.settings.clone()),
        }
    }

    /// Whether there is any ModelRoute.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// What there is of the router in this namespace, and whether its Service had to be assumed.
    pub fn observe_router(&self, namespace: &str) -> (ObservedRouter, bool) {
        let mut services: Vec<RouterService> = self
            .services
            .iter()
            .filter(|((of, _), _)| of == namespace)
            .map(|(_, service)| service.clone())
            .collect();
        let assumed = services.is_empty();
        if assumed {
            services.push(assumed_service());
        }
        let router = ObservedRouter {
            namespace: namespace.to_owned(),
            services,
            service_monitor: self
                .service_monitors
                .get(&(namespace.to_owned(), ROUTER_SERVICE_MONITOR.to_owned()))
                .cloned(),
            service_monitors: self.service_monitors.clone().into_iter().collect(),
            pod_monitors: self.pod_monitors.clone().into_iter().collect(),
        };
        (router, assumed)
    }

    /// The profile that counts where no other is named: what it gives, or what is wrong with it.
    pub fn default_profile(&self) -> Option<Result<Profile, String>> {
        self.profile(DEFAULT_PROFILE).map(|digest| digest.settings.clone())
    }

    fn profile(&self, name: &str) -> Option<&ProfileDigest> {
        self.profiles.get(&(String::new(), name.to_owned()))
    }

    /// Whether any model asks for autoscaling.
    pub fn any_opted_in(&self) -> bool {
        self.model_servings.iter().any(|(_, model_serving)| model_serving.is_opted_in())
    }
}

/// A profile without any field that does not exist: the API server would refuse it, or drop the field.
fn profile(place: &str, object: &Value) -> Result<AutoscalingProfile, String> {
    let profile: AutoscalingProfile = decode(place, object.clone())?;
    let known = serde_json::to_value(&profile.spec).map_err(|error| format!("{place}: {error}"))?;
    let unknown = object.get("spec").map(|spec| unknown_fields("spec", spec, &known)).unwrap_or_default();
    if unknown.is_empty() {
        Ok(profile)
    } else {
        Err(format!("{place}: unknown field {}", unknown.join(", ")))
    }
}

/// The fields that were read and are not there when what was understood is written again.
fn unknown_fields(path: &str, read: &Value, written: &Value) -> Vec<String> {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => read
            .iter()
            .flat_map(|(field, value)| {
                let path = format!("{path}.{field}");
                match written.get(field) {
                    Some(written) => unknown_fields(&path, value, written),
                    None if is_empty(value) => Vec::new(),
                    None => vec![path],
                }
            })
            .collect(),
        (Value::Array(read), Value::Array(written)) => {
            read.iter().zip(written).flat_map(|(read, written)| unknown_fields(path, read, written)).collect()
        }
        _ => Vec::new(),
    }
}

/// Such values are left out when they are written.
fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// Kinds pass over what does not have its shape, since the API server refuses most of it. Nobody has refused a manifest yet: an annotation that is
/// no text, such as a bare number, would be left out without a word.
fn decode<T: DeserializeOwned>(place: &str, object: Value) -> Result<T, String> {
    let metadata = object
        .get("metadata")
        .map(ObjectMeta::deserialize)
        .transpose()
        .map_err(|error| format!("{place}: metadata: {error}"))?;
    if metadata.and_then(|metadata| metadata.name).is_none_or(|name| name.is_empty()) {
        return Err(format!("{place}: metadata.name is missing"));
    }
    if object.pointer("/spec/template/roles").is_some_and(|roles| !are_named(roles)) {
        return Err(format!("{place}: spec.template.roles is no list of roles that have a name each"));
    }
    serde_json::from_value(object).map_err(|error| format!("{place}: {error}"))
}

fn are_named(roles: &Value) -> bool {
    roles
        .as_array()
        .is_some_and(|roles| roles.iter().all(|role| role.get("name").is_some_and(Value::is_string)))
}

fn insert<K: kube::Resource, D: for<'a> From<&'a K>>(into: &mut BTreeMap<Key, D>, object: &K) {
    into.insert((object.namespace().unwrap_or_default(), object.name_any()), D::from(object));
}
