//! Caches of `run`, filled by the watches, and what is looked up in them: whether they are complete, models by a property, the users of a profile.

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
};
use crate::{
    cache::{Change, IndexKey, Scope, ScopedStore},
    cluster::discovery::ServedApis,
    settings::Shard,
};
use kthena_keda_core::{
    api::{
        annotations::DEFAULT_PROFILE,
        kthena::{Booster, Inherited, ModelServing, Unread},
    },
    domain::{Key, ServiceTimeSetting, Signal, names::scaled_object_of_hpa},
    intent::{Profile, SignalSource},
    observed::{Readable, RoleDigest},
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

    /// The opted-in models whose ServingGroups do not become ready, with the cause that was last found.
    pub fn waiting_models(&self) -> WaitingModels {
        let mut waiting = self.probe_cache.waiting();
        waiting.retain(|key, _| {
            self.model_serving(key).is_some_and(|model| model.is_opted_in() && model.lags())
        });
        waiting
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

    /// A ModelServing of this instance.
    pub fn model_serving(&self, (namespace, name): &Key) -> Option<Arc<ModelServing>> {
        let object = ObjectRef::new(name);
        self.model_servings.get(&if namespace.is_empty() { object } else { object.within(namespace) })
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

    /// The opted-in models with a `Value` metric, which the HPA multiplies by their ready pods, except those at zero, where it does not
    /// count them.
    pub fn models_with_value_metric(&self) -> Vec<Arc<ModelServing>> {
        self.model_servings.state_filter(|found| {
            found.is_opted_in() && found.replicas() > 0 && self.uses_value_metric(found)
        })
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
    use kthena_keda_core::observed::{LiveProfile, WaitingPods};

    /// Two models that name the profile `gold`.
    fn caches() -> Caches {
        caches_of(1)
    }

    fn caches_of(replicas: i32) -> Caches {
        let (store, mut writer) = reflector::store::<ModelServing>();
        let shard =
            Shard { selector: None, namespaces: Vec::new(), cluster_duties: true, stand_in_image: None };
        let caches = Caches::of_shard(store, &shard, "kthena-system");
        for namespace in ["team-a", "team-b"] {
            let annotations = json!({"kthena.io/model-name": "m", "autoscaling.kthena.io/profile": "gold"});
            let metadata = json!({"namespace": namespace, "name": "chat", "resourceVersion": "1", "annotations": annotations});
            let model = json!({"metadata": metadata, "spec": {"replicas": replicas}});
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
    fn the_pods_of_a_model_at_zero_are_not_counted() {
        let awake = |replicas| {
            let caches = caches_of(replicas);
            record(&caches, &["*"]);
            caches.models_with_value_metric().len()
        };
        assert_eq!((awake(1), awake(0)), (2, 0));
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
