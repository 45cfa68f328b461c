//! Manifests as a source of [`Observed`], in place of a cluster, for `render`; and what `explain` read of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    sync::Arc,
};

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    runtime::{
        reflector::{self, store::Writer},
        watcher::Event,
    },
};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Caches,
    kinds::{KindVisitor, WatchedKind, optional_apis, visit_all},
};
use crate::{
    cache::SyncState,
    cluster::discovery::{Presence, ServedApis},
};
use kthena_keda_core::{
    api::{
        kthena::{Inherited, ModelServing},
        profile::AutoscalingProfile,
    },
    domain::{Capabilities, Key, key, quoted, shortened},
    intent::Profile,
    observed::{LiveProfile, LiveScaledObject, LocatedRouter, Observed, ObservedRouter, Readable},
    plan::assumed_service,
};

/// Objects by kind, from files or from one read of a cluster; kinds that no plan depends on are left out.
pub struct Manifests {
    /// The ModelServings, each with the place that it was read from.
    pub model_servings: Vec<(String, Arc<ModelServing>)>,
    caches: Caches,
    writer: Writer<ModelServing>,
    served: ServedApis,
    scaled_objects: BTreeMap<Key, LiveScaledObject>,
    /// The objects are a part of a cluster: the router's Service is assumed, and a ModelBooster that is not among them has no annotations,
    /// instead of being unread.
    is_partial: bool,
}

impl fmt::Debug for Manifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifests").field("caches", &self.caches).finish_non_exhaustive()
    }
}

impl Default for Manifests {
    /// Manifests without ModelRoutes, so that a missing route is not reported.
    fn default() -> Self {
        Self::of_newest_cluster(false)
    }
}

impl Manifests {
    /// The objects of a cluster that serves every API, ModelRoutes only if `serves_routes`.
    pub fn of_newest_cluster(serves_routes: bool) -> Self {
        let apis = optional_apis().into_iter().map(|api| {
            let is_absent = !serves_routes && api.plural == "modelroutes";
            (api, if is_absent { Presence::Absent } else { Presence::Served })
        });
        Self { is_partial: true, ..Self::of_cluster(ServedApis::new(apis, Capabilities::NEWEST)) }
    }

    /// The objects of a cluster that serves these APIs.
    pub fn of_cluster(served: ServedApis) -> Self {
        let (reader, writer) = reflector::store();
        let caches = Caches::of_everything(reader);
        visit_all(&mut SetSync { caches: &caches, plural: None, state: SyncState::Complete });
        let (model_servings, scaled_objects) = (Vec::new(), BTreeMap::new());
        Self { model_servings, caches, writer, served, scaled_objects, is_partial: false }
    }

    /// A ScaledObject as it is now.
    pub fn scaled_object(&self, namespace: &str, name: &str) -> Option<&LiveScaledObject> {
        self.scaled_objects.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Records that the objects of a kind, by its plural name, could not be read.
    pub fn record_unread(&self, plural: &str, is_forbidden: bool) {
        let state = if is_forbidden { SyncState::Forbidden } else { SyncState::Failing };
        visit_all(&mut SetSync { caches: &self.caches, plural: Some(plural), state });
    }

    /// Adds one object.
    ///
    /// # Errors
    /// When it does not have the shape of its kind, with `place`.
    pub fn add(&mut self, place: &str, object: Value) -> Result<(), String> {
        if let Some(problem) = unquoted_annotation(&object) {
            return Err(format!("{place}: {problem}"));
        }
        let (group, kind) = group_and_kind(&object);
        if is_kind::<ModelServing>(&group, &kind) {
            self.add_model_serving(place.to_owned(), decode(place, object)?);
            return Ok(());
        }
        if is_kind::<LiveProfile>(&group, &kind) {
            self.caches.stores.record::<LiveProfile, _>(&profile(place, &object)?);
            return Ok(());
        }
        if is_kind::<LiveScaledObject>(&group, &kind) {
            let found: LiveScaledObject = decode(place, object.clone())?;
            self.scaled_objects.insert(key(&found), found);
        }
        let mut insert =
            Insert { caches: &self.caches, place, group, kind, object: Some(object), result: Ok(()) };
        visit_all(&mut insert);
        insert.result
    }

    /// Ends the list of objects: gives every ModelServing the annotations of the ModelBooster that controls it. Returns a note for each
    /// ModelBooster that is assumed.
    pub fn complete(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        for (place, model_serving) in mem::take(&mut self.model_servings) {
            let mut model_serving = (*model_serving).clone();
            self.caches.inherit(&mut model_serving);
            if self.is_partial {
                notes.extend(assume_booster(&place, &mut model_serving));
            }
            self.add_model_serving(place, model_serving);
        }
        notes
    }

    fn add_model_serving(&mut self, place: String, model_serving: ModelServing) {
        let event = Event::Apply(model_serving.clone());
        self.writer.apply_watcher_event(&event);
        self.caches.model_digests.apply_event(&event, &mut BTreeSet::new());
        self.model_servings.push((place, Arc::new(model_serving)));
    }

    /// Everything that a plan for a ModelServing depends on.
    pub fn observe(&self, model_serving: &ModelServing, router: impl Into<LocatedRouter>) -> Observed {
        self.caches.observe(model_serving, &self.served, router.into())
    }

    /// `true` if there is any ModelRoute.
    pub fn has_routes(&self) -> bool {
        !self.caches.stores.routes.all().is_empty()
    }

    /// Everything that the plan for the router in this namespace depends on, and `true` if its Service was assumed.
    pub fn observe_router(&self, namespace: &str) -> (ObservedRouter, bool) {
        let mut router = self.caches.observe_router(namespace);
        let services = Service::readable(&self.caches.stores, &self.served, None);
        let is_assumed = router.services.is_empty() && (self.is_partial || services != Readable::Yes);
        if is_assumed {
            router.services.push(assumed_service());
        }
        (router, is_assumed)
    }

    /// The profile named `default`: its settings, or what is wrong with it.
    pub fn default_profile(&self) -> Option<Result<Profile, String>> {
        self.caches.default_profile()
    }

    /// `true` if any model is opted in.
    pub fn any_opted_in(&self) -> bool {
        self.model_servings.iter().any(|(_, model_serving)| model_serving.is_opted_in())
    }
}

/// Assumes that a ModelBooster that is not among the objects has no annotations.
fn assume_booster(place: &str, model_serving: &mut ModelServing) -> Option<String> {
    let (booster, _) = model_serving.unread_booster()?;
    let note = format!(
        "{place}: the ModelBooster {}, which controls this ModelServing, is not given; assuming that it has no annotations",
        quoted(booster)
    );
    model_serving.inherit(|_| Ok(Inherited::default()));
    Some(note)
}

/// Sets the progress of one kind, or of every kind without a plural name.
struct SetSync<'a> {
    caches: &'a Caches,
    plural: Option<&'a str>,
    state: SyncState,
}

impl KindVisitor for SetSync<'_> {
    fn visit<K: WatchedKind>(&mut self) {
        if self.plural.is_none_or(|plural| K::plural(&()) == plural) {
            K::store(&self.caches.stores).set_sync(self.state);
        }
    }
}

/// Adds an object to the store of its kind.
struct Insert<'a> {
    caches: &'a Caches,
    place: &'a str,
    group: String,
    kind: String,
    object: Option<Value>,
    result: Result<(), String>,
}

impl KindVisitor for Insert<'_> {
    fn visit<K: WatchedKind>(&mut self) {
        if !is_kind::<K>(&self.group, &self.kind) {
            return;
        }
        let Some(object) = self.object.take() else { return };
        self.result =
            decode::<K>(self.place, object).map(|object| self.caches.stores.record::<K, _>(&object));
    }
}

/// An annotation whose value YAML reads as something else than a string, which the API server rejects without its name.
fn unquoted_annotation(object: &Value) -> Option<String> {
    let annotations = object.pointer("/metadata/annotations")?.as_object()?;
    let (key, value) = annotations.iter().find(|(_, value)| !value.is_string() && !value.is_null())?;
    let value = shortened(&value.to_string());
    Some(format!("invalid value {value} for {}: expected a string; put it in quotes", shortened(key)))
}

fn group_and_kind(object: &Value) -> (String, String) {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    (group.to_owned(), text("kind").to_owned())
}

fn is_kind<K: Resource<DynamicType = ()>>(group: &str, kind: &str) -> bool {
    K::group(&()) == group && K::kind(&()) == kind
}

/// Decodes a profile and rejects unknown fields: the API server would reject them, or drop them.
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

/// Paths of fields in `read` that are missing in `written`.
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

/// `true` for values that serialization leaves out.
fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// Decodes an object, with the checks that the API server makes for the objects of a cluster: kinds are decoded leniently, so that an
/// annotation that is no string, such as a bare number, would otherwise be dropped silently.
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
        return Err(format!("{place}: spec.template.roles must be a list of roles with a name each"));
    }
    serde_json::from_value(object).map_err(|error| format!("{place}: {error}"))
}

fn are_named(roles: &Value) -> bool {
    roles
        .as_array()
        .is_some_and(|roles| roles.iter().all(|role| role.get("name").is_some_and(Value::is_string)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assumes_a_service_of_the_router_only_where_none_could_be_read() {
        let is_assumed = |manifests: &Manifests| manifests.observe_router("kthena-system").1;
        assert!(is_assumed(&Manifests::of_newest_cluster(true)));
        let cluster = Manifests::of_cluster(ServedApis::new([], Capabilities::NEWEST));
        assert!(!is_assumed(&cluster));
        cluster.record_unread("services", true);
        assert!(is_assumed(&cluster));
    }
}
