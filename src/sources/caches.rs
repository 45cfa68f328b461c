//! Caches of `run`, filled by the watches; and the one place where an [`Observed`] is put together, from whatever source.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    LastReported, LastReports, LoadingTimes, ModelServingDigest, OptIn, ProbeCache, ShadowCache,
    WaitingModels, index_keys,
    kinds::{Area, KindVisitor, Stores, WatchedKind, visit_all},
    model_digest::ResolvedProfile,
    related::borrowed,
};
use crate::{
    cache::{Change, IndexKey, Scope, ScopedStore},
    cluster::discovery::ServedApis,
    runtime::delays::KEDA_REPORT,
    settings::Shard,
};
use k8s_openapi::{api::core::v1::Service, jiff::Timestamp};
use kthena_keda_core::{
    api::{
        annotations::DEFAULT_PROFILE,
        kthena::{Booster, Inherited, ModelServing, Unread},
    },
    domain::{
        Key, ServiceTimeSetting, Signal, key,
        names::{ROUTER_SERVICE_MONITOR, hpa, role as role_name, scaled_object_of_hpa},
    },
    intent::{Profile, SignalSource},
    observed::{
        Autoscalers, CompetingAutoscaler, LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer,
        LivePodMonitor, LivePolicy, LiveProfile, LiveRole, LiveScaledObject, LiveServiceMonitor, LiveStandIn,
        LiveStandInService, LocatedRouter, Observed, ObservedRole, ObservedRouter, ObservedStandIn,
        Readability, Readable, RoleDigest, ScrapeEvidence, ShadowState, UnreadKind, WaitingPods,
    },
};

/// Settings whose history is measured. The built-in defaults have none.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    service_time: bool,
    latency: bool,
}

impl Measured {
    fn of(profile: &Profile) -> Self {
        Self {
            service_time: profile.backlog.service_time != ServiceTimeSetting::Off,
            latency: profile.signals.iter().any(|signal| matches!(signal.source, SignalSource::Latency(_))),
        }
    }

    /// With the annotations of a model, valid or not.
    fn overridden_by(self, model: &ModelServing) -> Self {
        let is_latency = |signal: &Signal| matches!(signal, Signal::Latency(_));
        let has_latency =
            |signals: &str| Signal::all().filter(is_latency).any(|signal| signals.contains(signal.name()));
        Self {
            service_time: model.service_time().map_or(self.service_time, |setting| setting != "off"),
            latency: model.signals().map_or(self.latency, has_latency),
        }
    }

    const fn is_any(self) -> bool {
        self.service_time || self.latency
    }
}

/// Everything that the operator knows of the cluster and of Prometheus.
#[derive(Debug)]
pub struct Caches {
    /// The ModelServings of this instance, opted in or not.
    ///
    /// Only their controller waits until the store is ready, since kube wakes only one of several waiters (kube-runtime
    /// `utils/delayed_init.rs`); every other task waits for [`Self::model_digests`].
    pub model_servings: Store<ModelServing>,
    /// Digests of the same ModelServings, indexed by what other objects refer to.
    pub model_digests: ScopedStore<ModelServingDigest>,
    /// Digests of the kinds of the [table](super::kinds).
    pub stores: Stores,
    /// The status and reason of each model's last plan, for metrics.
    pub last_reports: LastReports,
    /// Loading times of each model, for metrics.
    pub loading_times: LoadingTimes,
    /// The results of the last signal probe.
    pub probe_cache: ProbeCache,
    /// Numbers of the models in shadow.
    pub shadows: ShadowCache,
}

impl Caches {
    /// Empty caches for what one instance watches.
    pub fn of_shard(model_servings: Store<ModelServing>, shard: &Shard, router_namespace: &str) -> Self {
        Self::new(model_servings, |area| match area {
            Area::Models => shard.scopes(),
            Area::ModelsAndRouter => shard.scopes_with(router_namespace),
            Area::ModelsOrClusterDuties => shard.booster_scopes(),
            Area::Router => vec![Some(router_namespace.to_owned())],
            Area::Cluster => vec![None],
            Area::StandIns => shard.stand_in_scopes(),
            Area::ClusterDuties => shard.cluster_opt_ins(),
        })
    }

    /// Empty caches that take every object of every namespace.
    pub(super) fn of_everything(model_servings: Store<ModelServing>) -> Self {
        Self::new(model_servings, |area| match area {
            Area::ClusterDuties | Area::StandIns => Vec::new(),
            Area::Models
            | Area::ModelsAndRouter
            | Area::ModelsOrClusterDuties
            | Area::Router
            | Area::Cluster => vec![None],
        })
    }

    fn new(model_servings: Store<ModelServing>, scopes: impl Fn(Area) -> Vec<Scope>) -> Self {
        Self {
            model_servings,
            model_digests: ScopedStore::default(),
            stores: Stores::new(scopes),
            last_reports: LastReports::default(),
            loading_times: LoadingTimes::default(),
            probe_cache: ProbeCache::default(),
            shadows: ShadowCache::default(),
        }
    }

    /// Everything that a plan for a ModelServing depends on, from what is cached now.
    pub fn observe(
        &self,
        model_serving: &ModelServing,
        served: &ServedApis,
        router: LocatedRouter,
    ) -> Observed {
        let (namespace, stores) = (model_serving.namespace().unwrap_or_default(), &self.stores);
        let pod_monitor = stores.pod_monitors.get(&namespace, &model_serving.pod_monitor_name());
        let scaled_object = stores.scaled_objects.get(&namespace, &model_serving.scaled_object_name());
        let silence = scaled_object.as_ref().and_then(|found| found.silence(Timestamp::now()));
        Observed {
            keda_is_silent: silence.is_some_and(|silence| silence >= KEDA_REPORT),
            scaled_object,
            hpa: stores.hpas.get(&namespace, &model_serving.hpa_name()),
            competing_autoscalers: self
                .autoscalers_of(model_serving, |all| all.competing_with(model_serving)),
            role_autoscalers: self.autoscalers_of(model_serving, |all| all.scaling_roles_of(model_serving)),
            roles: self.roles_of(model_serving),
            pod_monitor: pod_monitor.map(|digest| digest.owned),
            routing: self.routing(model_serving, served),
            profile: stores.profiles.get("", model_serving.profile()).map(|digest| digest.settings),
            waiting: self.waiting(model_serving),
            measured: self.probe_cache.measured(&key(model_serving)),
            shadow: self.shadow(model_serving),
            stand_in: self.stand_in(model_serving),
            mismatch: self.probe_cache.mismatch(&(namespace, model_serving.name_any())),
            probes: self.probe_cache.last(),
            readable: self.readability(model_serving, served),
            ..Observed::of(model_serving.clone(), router)
        }
    }

    /// The cause for which ServingGroups of a model do not become ready; `None` once they are, although the next check is due later.
    fn waiting(&self, model_serving: &ModelServing) -> Option<WaitingPods> {
        self.probe_cache.waiting_of(&key(model_serving)).filter(|_| model_serving.lags())
    }

    /// The opted-in models whose ServingGroups do not become ready, with the cause that was last found.
    pub fn waiting_models(&self) -> WaitingModels {
        let mut waiting = self.probe_cache.waiting();
        waiting.retain(|key, _| {
            self.model_serving(key).is_some_and(|model| model.is_opted_in() && model.lags())
        });
        waiting
    }

    /// The stand-in of a model, without what only the controller knows.
    fn stand_in(&self, model_serving: &ModelServing) -> ObservedStandIn {
        let (namespace, name) =
            (model_serving.namespace().unwrap_or_default(), model_serving.stand_in_name());
        let pod = self.stores.stand_ins.get(&namespace, &name);
        let time_to_go = pod.as_ref().and_then(|pod| pod.time_to_go(Timestamp::now()));
        ObservedStandIn {
            is_over: time_to_go.is_some_and(|left| left.is_zero()),
            pod,
            service: self.stores.stand_in_services.get(&namespace, &name).map(|found| found.0),
            ..ObservedStandIn::default()
        }
    }

    /// State of the dry run of a model. What its condition says counts until this process has looked at it, so that a restart writes
    /// nothing.
    fn shadow(&self, model_serving: &ModelServing) -> ShadowState {
        if !model_serving.is_in_shadow() {
            return ShadowState::default();
        }
        let known = self.shadows.state(&key(model_serving));
        known.or_else(|| ShadowState::reported(model_serving)).unwrap_or_default()
    }

    /// The models in shadow.
    pub fn models_in_shadow(&self) -> Vec<Arc<ModelServing>> {
        let keys = self.model_digests.keys(index_keys::in_shadow(), usize::MAX, |_, _| true);
        keys.iter().filter_map(|key| self.model_serving(key)).collect()
    }

    /// The opted-in models with fewer available ServingGroups than they ask for.
    pub fn lagging_models(&self) -> Vec<Arc<ModelServing>> {
        self.model_servings.state_filter(|found| found.is_opted_in() && found.lags())
    }

    fn readability(&self, model_serving: &ModelServing, served: &ServedApis) -> Readability {
        let namespace = model_serving.namespace().unwrap_or_default();
        let (stores, local) = (&self.stores, Some(namespace.as_str()));
        Readability {
            profiles: LiveProfile::readable(stores, served, None),
            scaled_objects: LiveScaledObject::readable(stores, served, local),
            routes: LiveModelRoute::readable(stores, served, local),
            servers: LiveModelServer::readable(stores, served, local),
            hpas: LiveHpa::readable(stores, served, local),
            policies: LivePolicy::readable(stores, served, local),
            bindings: LiveBinding::readable(stores, served, local),
            pod_monitors: LivePodMonitor::readable(stores, served, local),
            stand_ins: LiveStandIn::readable(stores, served, local),
            stand_in_services: LiveStandInService::readable(stores, served, local),
            roles: LiveRole::readable(stores, served, local),
        }
    }

    /// `true` once no kind that plans need is still being listed: a plan from half of the objects would be undone.
    pub fn has_synced(&self, served: &ServedApis) -> bool {
        served.is_confirmed && self.unsynced_inputs(served).is_empty()
    }

    /// The kinds whose initial list is awaited for readiness.
    pub fn waiting_for(&self, served: &ServedApis) -> Vec<String> {
        let mut kinds = self.unsynced_inputs(served);
        if !served.is_confirmed {
            kinds.push("served APIs".to_owned());
        }
        if ModelServing::is_served(served) && !self.model_digests.has_synced() {
            kinds.push(ModelServing::PLURAL.to_owned());
        }
        kinds
    }

    fn unsynced_inputs(&self, served: &ServedApis) -> Vec<String> {
        struct Unsynced<'a> {
            stores: &'a Stores,
            served: &'a ServedApis,
            kinds: Vec<String>,
        }
        impl KindVisitor for Unsynced<'_> {
            fn visit<K: WatchedKind>(&mut self) {
                if K::ROW.is_input_of_plans && !K::has_synced(self.stores, self.served) {
                    self.kinds.push(K::plural(&()).into_owned());
                }
            }
        }
        let mut unsynced = Unsynced { stores: &self.stores, served, kinds: Vec::new() };
        visit_all(&mut unsynced);
        unsynced.kinds
    }

    /// The roles that are scaled, or were: those that a scale target names, and all roles of a model that asks for it.
    fn roles_of(&self, model_serving: &ModelServing) -> Vec<ObservedRole> {
        let namespace = model_serving.namespace().unwrap_or_default();
        let target = [index_keys::model_serving(&namespace, model_serving.name())];
        let found = self.stores.roles.matching(&target, &[]);
        let mut names: BTreeMap<String, String> =
            found.iter().map(|(key, digest)| (key.1.clone(), digest.role.clone())).collect();
        if self.asks_for_roles(model_serving) {
            let roles = model_serving.spec.template.roles.iter();
            names.extend(roles.map(|role| (role_name(model_serving.name(), &role.name), role.name.clone())));
        }
        names.into_iter().map(|(object, role)| self.observe_role(&namespace, role, object)).collect()
    }

    fn asks_for_roles(&self, model_serving: &ModelServing) -> bool {
        let profile = || self.stores.profiles.get("", model_serving.profile());
        model_serving.has_roles_annotation()
            || (model_serving.is_opted_in()
                && profile().is_some_and(|found| found.settings.is_ok_and(|profile| profile.roles.is_some())))
    }

    fn observe_role(&self, namespace: &str, name: String, object_name: String) -> ObservedRole {
        let Stores { roles, scaled_objects, hpas, .. } = &self.stores;
        let scaled_object = scaled_objects.get(namespace, &object_name);
        let silence = scaled_object.as_ref().and_then(|found| found.silence(Timestamp::now()));
        ObservedRole {
            name,
            object: roles.get(namespace, &object_name),
            hpa: hpas.get(namespace, &hpa(&object_name)),
            keda_is_silent: silence.is_some_and(|silence| silence >= KEDA_REPORT),
            scaled_object,
            object_name,
        }
    }

    /// Numbers of the scaled roles of a model, by state.
    pub fn role_replicas(&self, model_serving: &ModelServing) -> Vec<(String, Vec<(&'static str, i32)>)> {
        let target = [index_keys::model_serving(
            &model_serving.namespace().unwrap_or_default(),
            &model_serving.name_any(),
        )];
        let numbers = |found: &RoleDigest| {
            let (_, count) = model_serving.spec.template.role(&found.role)?;
            let asked = found.replicas.map(|asked| ("asked", asked));
            let others = [("spec", count.replicas), ("total", found.status.replicas)];
            Some((found.role.clone(), asked.into_iter().chain(others).collect()))
        };
        self.stores.roles.matching(&target, &[]).iter().filter_map(|(_, found)| numbers(found)).collect()
    }

    /// Index key of the model whose role has a ScaledObject or an HPA of this name.
    pub fn model_of_role(&self, namespace: &str, name: &str) -> Option<IndexKey> {
        let name = scaled_object_of_hpa(name).unwrap_or(name);
        let found = self.stores.roles.get(namespace, name)?;
        Some(index_keys::model_serving(namespace, &found.model_serving))
    }

    fn autoscalers_of(
        &self,
        model_serving: &ModelServing,
        read: impl FnOnce(&Autoscalers<'_>) -> Vec<CompetingAutoscaler>,
    ) -> Vec<CompetingAutoscaler> {
        let namespace = model_serving.namespace().unwrap_or_default();
        let target = [index_keys::model_serving(&namespace, &model_serving.name_any())];
        let Stores { scaled_objects, hpas, policies, bindings, .. } = &self.stores;
        let (scaled_objects, hpas) = (scaled_objects.matching(&target, &[]), hpas.matching(&target, &[]));
        let bindings = bindings.matching(&target, &[]);
        let of_bindings: Vec<Key> =
            bindings.iter().filter_map(|(_, binding)| binding.policy()).cloned().collect();
        let policies = policies.matching(&target, &of_bindings);
        let all = Autoscalers {
            scaled_objects: &borrowed(&scaled_objects),
            hpas: &borrowed(&hpas),
            policies: &borrowed(&policies),
            bindings: &borrowed(&bindings),
        };
        read(&all)
    }

    /// A ModelServing of this instance.
    pub fn model_serving(&self, (namespace, name): &Key) -> Option<Arc<ModelServing>> {
        let object = ObjectRef::new(name);
        self.model_servings.get(&if namespace.is_empty() { object } else { object.within(namespace) })
    }

    /// Everything that the plan for the router's ServiceMonitor depends on; `None` before the initial lists are complete.
    pub fn observe_synced_router(&self, namespace: &str, served: &ServedApis) -> Option<ObservedRouter> {
        let has_synced = served.is_confirmed
            && (self.stores.opt_ins.is_disabled() || ModelServing::has_synced(&self.stores, served))
            && Service::has_synced(&self.stores, served)
            && LiveProfile::has_synced(&self.stores, served)
            && LiveServiceMonitor::has_synced(&self.stores, served)
            && LivePodMonitor::has_synced(&self.stores, served);
        has_synced.then(|| ObservedRouter {
            unread: self.unread_by_router(served),
            ..self.observe_router(namespace)
        })
    }

    fn unread_by_router(&self, served: &ServedApis) -> Vec<UnreadKind> {
        let unread = [
            UnreadKind::of::<Service>(Service::readable(&self.stores, served, None)),
            UnreadKind::of::<LiveProfile>(LiveProfile::readable(&self.stores, served, None)),
            UnreadKind::of::<LiveServiceMonitor>(LiveServiceMonitor::readable(&self.stores, served, None)),
            UnreadKind::of::<LivePodMonitor>(LivePodMonitor::readable(&self.stores, served, None)),
            UnreadKind::of::<ModelServing>(ModelServing::readable(&self.stores, served, None)),
        ];
        unread.into_iter().flatten().collect()
    }

    /// Everything that the plan for the router's ServiceMonitor depends on, from what is cached now.
    pub fn observe_router(&self, namespace: &str) -> ObservedRouter {
        let Stores { services, service_monitors, pod_monitors, .. } = &self.stores;
        let services = services.all().into_iter().filter(|((of, _), _)| of == namespace);
        ObservedRouter {
            namespace: namespace.to_owned(),
            services: services.map(|(_, service)| service).collect(),
            service_monitor: service_monitors.get(namespace, ROUTER_SERVICE_MONITOR),
            service_monitors: service_monitors.all(),
            pod_monitors: pod_monitors.all(),
            evidence: ScrapeEvidence::Awaited,
            unread: Vec::new(),
        }
    }

    /// The profile named `default`: its settings, or what is wrong with it.
    pub fn default_profile(&self) -> Option<Result<Profile, String>> {
        self.stores.profiles.get("", DEFAULT_PROFILE).map(|digest| digest.settings)
    }

    /// The settings of all opted-in models, each once.
    pub fn profiles_in_use(&self, defaults: &Profile) -> Vec<Profile> {
        let models = self.model_servings.state_filter(ModelServing::is_opted_in);
        let mut namespaces: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for model in &models {
            let namespace = model.metadata.namespace.as_deref().unwrap_or_default();
            namespaces.entry(model.profile()).or_default().insert(namespace);
        }
        namespaces
            .into_iter()
            .filter_map(|(name, users)| self.resolve_profile(name, &users, defaults))
            .collect()
    }

    /// The settings of a profile, if any of these namespaces may use it.
    fn resolve_profile(&self, name: &str, users: &BTreeSet<&str>, defaults: &Profile) -> Option<Profile> {
        let found = self.stores.profiles.get("", name).map(|digest| digest.settings);
        let resolve = |user: &&str| Profile::resolve(name, user, found.as_ref(), defaults).ok();
        let profile = users.iter().find_map(resolve)?;
        Some(profile.clone().with_flag_defaults(defaults))
    }

    /// The opted-in models with a `Value` metric, which the HPA multiplies by their ready pods.
    pub fn models_with_value_metric(&self) -> Vec<Arc<ModelServing>> {
        self.model_servings.state_filter(|found| found.is_opted_in() && self.uses_value_metric(found))
    }

    fn uses_value_metric(&self, model: &ModelServing) -> bool {
        let namespace = model.metadata.namespace.as_deref().unwrap_or_default();
        let has_value_metric = |profile: &Profile| profile.uses_value_metric() && profile.allows(namespace);
        let digest = self.stores.profiles.get("", model.profile());
        digest.is_some_and(|digest| digest.settings.as_ref().is_ok_and(has_value_metric))
    }

    /// The opted-in models with a service time or a latency signal.
    pub fn models_to_measure(&self) -> Vec<Arc<ModelServing>> {
        let profiles: BTreeMap<String, Measured> = self
            .stores
            .profiles
            .all()
            .into_iter()
            .filter_map(|((_, name), digest)| Some((name, Measured::of(&digest.settings.ok()?))))
            .collect();
        self.model_servings.state_filter(|found| {
            let of_profile = profiles.get(found.profile()).copied().unwrap_or_default();
            found.is_opted_in() && of_profile.overridden_by(found).is_any()
        })
    }

    /// Number of opted-in models in the cluster that use this profile and may do so; `None` before it is known.
    pub fn users(&self, name: &str, profile: Option<&Profile>) -> Option<i32> {
        let may_use = |key: &Key| profile.is_none_or(|profile| profile.allows(&key.0));
        let (known, unread) = self.opt_ins_by(index_keys::profile(name), may_use)?;
        let users = unread.iter().filter(|found| found.as_ref().is_ok_and(|of| of.as_deref() == Some(name)));
        Some(i32::try_from(known + users.count()).unwrap_or(i32::MAX))
    }

    /// `true` if any model of the cluster is opted in; `None` before it is known.
    pub fn any_opted_in(&self) -> Option<bool> {
        let (known, unread) = self.opt_ins_by(index_keys::opted_in(), |_| true)?;
        let is_any = known > 0 || unread.iter().any(|found| matches!(found, Ok(Some(_))));
        let is_known = is_any || unread.iter().all(Result::is_ok);
        is_known.then_some(is_any)
    }

    /// Number of opted-in models of the cluster with an index key, and the profile of each model whose ModelBooster was not read when
    /// its digest was made, both of the models that `filter` accepts; `None` before the initial lists are complete.
    fn opt_ins_by(
        &self,
        index_key: IndexKey,
        filter: impl Fn(&Key) -> bool + Copy,
    ) -> Option<(usize, Vec<ResolvedProfile>)> {
        let resolve = |key: &Key, digest: &OptIn| {
            filter(key).then(|| digest.resolve(|booster| self.booster(&key.0, booster)))
        };
        let opt_ins = &self.stores.opt_ins;
        if opt_ins.is_disabled() {
            let unread = self.model_digests.matching(index_keys::unread_booster());
            let resolved = unread.iter().filter_map(|(key, digest)| resolve(key, &digest.opt_in));
            return Some((self.model_digests.count(index_key, filter), resolved.collect()));
        }
        let unread = opt_ins.matching(&[index_keys::unread_booster()], &[]);
        let known = (opt_ins.readable() == Readable::Yes).then(|| opt_ins.count(index_key, filter))?;
        Some((known, unread.iter().filter_map(|(key, digest)| resolve(key, digest)).collect()))
    }

    /// The operator's annotations on a ModelBooster of a namespace.
    fn booster(&self, namespace: &str, booster: &Booster) -> Result<Inherited, Unread> {
        let boosters = &self.stores.boosters;
        match boosters.get(namespace, &booster.name) {
            Some(found) if found.uid == booster.uid => Ok(found.inherited),
            _ => Err(match boosters.readable_in(namespace) {
                Readable::Yes => Unread::Absent,
                Readable::Forbidden => Unread::Forbidden,
                Readable::NotYet => Unread::NotListed,
            }),
        }
    }

    /// Gives a ModelServing the annotations of the ModelBooster that controls it. This is the one place where they are merged: every
    /// ModelServing goes through it before it is stored, indexed or planned.
    pub fn inherit(&self, model_serving: &mut ModelServing) {
        let namespace = model_serving.namespace().unwrap_or_default();
        model_serving.inherit(|booster| self.booster(&namespace, booster));
    }

    /// The ModelServings that the ModelBoosters of a change control, as far as their annotations differ now.
    pub fn inheritors(&self, change: &Change) -> Vec<ModelServing> {
        let index_key = match change {
            Change::Object((namespace, name), _) => index_keys::booster(namespace, name),
            Change::Resync => index_keys::boosted(),
        };
        let keys = self.model_digests.keys(index_key, usize::MAX, |_, _| true);
        let models = keys.iter().filter_map(|key| self.model_serving(key));
        let renewed = models.map(|before| {
            let mut model = (*before).clone();
            self.inherit(&mut model);
            (model.booster != before.booster).then_some(model)
        });
        renewed.flatten().collect()
    }

    /// The last report of each opted-in model.
    pub fn reported(&self) -> Vec<(Arc<ModelServing>, LastReported)> {
        let models = self.model_servings.state_filter(ModelServing::is_managed);
        models
            .into_iter()
            .filter_map(|model| self.last_reports.get(&model).map(|found| (model, found)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;

    /// Two models that name the profile `gold`, which allows the namespace of one.
    fn caches() -> Caches {
        let (store, mut writer) = reflector::store::<ModelServing>();
        let shard =
            Shard { selector: None, namespaces: Vec::new(), cluster_duties: true, stand_in_image: None };
        let caches = Caches::of_shard(store, &shard, "kthena-system");
        for namespace in ["team-a", "team-b"] {
            let annotations = json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/profile": "gold"});
            let model = json!({"metadata": {"namespace": namespace, "name": "chat", "resourceVersion": "1", "annotations": annotations}});
            let event = Event::Apply(serde_json::from_value::<ModelServing>(model).unwrap());
            writer.apply_watcher_event(&event);
            caches.model_digests.apply_event(&event, &mut BTreeSet::new());
        }
        caches
    }

    fn record(caches: &Caches, allowed: &[&str]) -> Profile {
        let latency = json!({"name": "latency", "query": "max(l)", "target": "1", "metricType": "Value"});
        let spec = json!({"allowedNamespaces": allowed, "customSignals": [latency], "prometheus": {"url": "http://secret"}});
        let profile =
            json!({"metadata": {"name": "gold", "resourceVersion": allowed.len().to_string()}, "spec": spec});
        caches.stores.record::<LiveProfile, LiveProfile>(&serde_json::from_value(profile).unwrap());
        caches.stores.profiles.get("", "gold").unwrap().settings.unwrap()
    }

    #[test]
    fn a_model_that_is_gone_no_longer_waits() {
        let caches = caches();
        let key = |name: &str| ("team-a".to_owned(), name.to_owned());
        let waiting = [key("chat"), key("gone")].map(|key| (key, WaitingPods::NotReady));
        caches.probe_cache.record_waiting(waiting.into());
        assert_eq!(caches.waiting_models().into_keys().collect::<Vec<_>>(), [key("chat")]);
    }

    #[test]
    fn only_models_of_allowed_namespaces_use_a_profile() {
        let caches = caches();
        for (allowed, users) in [(&["team-c"][..], 0), (&["team-c", "team-b*"], 1), (&["a", "b", "*"], 2)] {
            let profile = record(&caches, allowed);
            assert_eq!(caches.users("gold", Some(&profile)), Some(users), "{allowed:?}");
            let probed = caches.profiles_in_use(&Profile::built_in());
            assert_eq!(probed.len(), usize::from(users > 0), "{allowed:?}");
            assert_eq!(
                caches.models_with_value_metric().len(),
                usize::try_from(users).unwrap(),
                "{allowed:?}"
            );
        }
    }
}
