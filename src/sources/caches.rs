//! What the watches of `run` have seen: the source of every [`Observed`].

use std::{collections::BTreeSet, sync::Arc};

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};

use super::{LastReported, LastReports, ModelServingDigest, OptIn, ProbeCache, index_keys};
use crate::{
    cache::{DigestStore, ScopedStore},
    cluster::discovery::ServedApis,
    settings::Shard,
};
use kthena_keda_core::{
    api::{annotations::DEFAULT_PROFILE, kthena::ModelServing},
    domain::{Key, names::ROUTER_SERVICE_MONITOR},
    intent::Profile,
    observed::{
        Autoscalers, CompetingAutoscaler, HpaDigest, MonitorDigest, Observed, ObservedRouter, PolicyDigest,
        ProfileDigest, RouteDigest, RouterService, ScaledObjectDigest, ServerDigest,
    },
    signals::RouterSeries,
};

/// Everything that is watched.
#[derive(Debug)]
pub struct Caches {
    /// The ModelServings that are this instance's, opted in or not.
    ///
    /// Only its controller waits until it is ready, since kube wakes one of all that wait (kube-runtime `utils/delayed_init.rs`); whoever else
    /// wants to know asks `peers`.
    pub model_servings: Store<ModelServing>,
    /// What of ModelServings matters to other ones.
    pub model_digests: ScopedStore<ModelServingDigest>,
    /// What the ModelServings of the whole cluster ask for; of nothing where this instance's are all of them, or are all that it has to know.
    pub cluster_opt_ins: DigestStore<OptIn>,
    /// The cluster's ScaledObjects.
    pub scaled_objects: DigestStore<ScaledObjectDigest>,
    /// The cluster's HPAs.
    pub hpas: DigestStore<HpaDigest>,
    /// The cluster's AutoscalingPolicies.
    pub policies: DigestStore<PolicyDigest>,
    /// The cluster's AutoscalingPolicyBindings.
    pub bindings: DigestStore<PolicyDigest>,
    /// The cluster's AutoscalingProfiles; they have no namespace.
    pub profiles: DigestStore<ProfileDigest>,
    /// The Services of the router's namespace.
    pub services: DigestStore<RouterService>,
    /// The cluster's ServiceMonitors.
    pub service_monitors: DigestStore<MonitorDigest>,
    /// The cluster's PodMonitors.
    pub pod_monitors: DigestStore<MonitorDigest>,
    /// The reason that each model's last plan led to.
    pub last_reports: LastReports,
    /// What Prometheus showed last.
    pub probe_cache: ProbeCache,
    /// The cluster's ModelRoutes.
    pub routes: DigestStore<RouteDigest>,
    /// The cluster's ModelServers.
    pub servers: DigestStore<ServerDigest>,
}

impl Caches {
    /// Nothing seen yet of what one instance watches. `router` is the router's namespace.
    pub fn new(model_servings: Store<ModelServing>, shard: &Shard, router: &str) -> Self {
        Self {
            model_servings,
            model_digests: ScopedStore::default(),
            cluster_opt_ins: DigestStore::of(shard.cluster_opt_ins()),
            scaled_objects: DigestStore::of(shard.scopes()),
            hpas: DigestStore::of(shard.scopes()),
            policies: DigestStore::of(shard.scopes()),
            bindings: DigestStore::of(shard.scopes()),
            profiles: DigestStore::default(),
            services: DigestStore::of([Some(router.to_owned())]),
            service_monitors: DigestStore::of(shard.scopes_with(router)),
            pod_monitors: DigestStore::of(shard.scopes_with(router)),
            last_reports: LastReports::default(),
            probe_cache: ProbeCache::default(),
            routes: DigestStore::of(shard.scopes()),
            servers: DigestStore::of(shard.scopes()),
        }
    }

    /// What is there of a ModelServing; `None` while not everything has been seen, since a plan on half of it would be undone.
    pub fn observe(
        &self,
        model_serving: &ModelServing,
        served: ServedApis,
        router: RouterSeries,
    ) -> Option<Observed> {
        if !self.has_synced(served) {
            return None;
        }
        let namespace = model_serving.namespace()?;
        Some(Observed {
            model_serving: model_serving.clone(),
            scaled_object: self.scaled_objects.get(&namespace, &model_serving.scaled_object_name()),
            hpa: self.hpas.get(&namespace, &model_serving.hpa_name()),
            competing_autoscalers: self.competing_with(model_serving),
            probes: self.probe_cache.last(),
            rejection: None,
            second_writer: None,
            mismatch: self.probe_cache.mismatch(&(namespace.clone(), model_serving.name_any())),
            pod_monitor: self
                .pod_monitors
                .get(&namespace, &model_serving.pod_monitor_name())
                .map(|digest| digest.owned),
            router,
            routing: self.routing(model_serving, served),
            profile: self.profiles.get("", model_serving.profile()).map(|digest| digest.settings),
        })
    }

    fn has_synced(&self, served: ServedApis) -> bool {
        self.needed(served).into_iter().all(|(_, is_seen)| is_seen)
    }

    /// What plans need and the cluster serves, and whether it has been seen.
    fn needed(&self, served: ServedApis) -> impl IntoIterator<Item = (&'static str, bool)> {
        let ServedApis { model_servings: _, profiles, service_monitors: _, network, policies, plan } = served;
        [
            ("scaledobjects", plan.keda.is_none() || self.scaled_objects.has_synced()),
            ("autoscalingprofiles", !profiles || self.profiles.has_synced()),
            ("podmonitors", !plan.pod_monitors || self.pod_monitors.has_synced()),
            ("modelroutes", !network.routes || self.routes.has_synced()),
            ("modelservers", !network.servers || self.servers.has_synced()),
            ("horizontalpodautoscalers", self.hpas.has_synced()),
            ("autoscalingpolicies", !policies.policies || self.policies.has_synced()),
            ("autoscalingpolicybindings", !policies.bindings || self.bindings.has_synced()),
        ]
    }

    /// What has not been seen in full yet of what is served.
    pub fn unsynced(&self, served: ServedApis) -> Vec<&'static str> {
        let model_servings = !served.model_servings || self.model_digests.has_synced();
        let all = self.needed(served).into_iter().chain([("modelservings", model_servings)]);
        all.filter(|(_, is_seen)| !is_seen).map(|(kind, _)| kind).collect()
    }

    fn competing_with(&self, model_serving: &ModelServing) -> Vec<CompetingAutoscaler> {
        let about = [index_keys::model_serving(
            &model_serving.namespace().unwrap_or_default(),
            &model_serving.name_any(),
        )];
        self.scaled_objects.with_matching(&about, &[], |scaled_objects| {
            self.hpas.with_matching(&about, &[], |hpas| {
                self.policies.with_matching(&about, &[], |policies| {
                    self.bindings.with_matching(&about, &[], |bindings| {
                        Autoscalers { scaled_objects, hpas, policies, bindings }.competing_with(model_serving)
                    })
                })
            })
        })
    }

    /// A ModelServing of this instance.
    pub fn model_serving(&self, (namespace, name): &Key) -> Option<Arc<ModelServing>> {
        self.model_servings.get(&ObjectRef::new(name).within(namespace))
    }

    /// What is there of the router; `None` while not everything has been seen.
    pub fn observe_router(&self, namespace: &str, served: ServedApis) -> Option<ObservedRouter> {
        let complete = self.services.has_synced()
            && (!served.profiles || self.profiles.has_synced())
            && (!served.service_monitors || self.service_monitors.has_synced())
            && (!served.plan.pod_monitors || self.pod_monitors.has_synced());
        complete.then(|| ObservedRouter {
            namespace: namespace.to_owned(),
            services: self.services.all().into_iter().map(|(_, service)| service).collect(),
            service_monitor: self.service_monitors.get(namespace, ROUTER_SERVICE_MONITOR),
            service_monitors: self.service_monitors.all(),
            pod_monitors: self.pod_monitors.all(),
        })
    }

    /// The profile that counts where no other is named: what it gives, or what is wrong with it.
    pub fn default_profile(&self) -> Option<Result<Profile, String>> {
        self.profiles.get("", DEFAULT_PROFILE).map(|digest| digest.settings)
    }

    /// The settings that opted-in models are scaled by, each once.
    pub fn profiles_in_use(&self, defaults: &Profile) -> Vec<Profile> {
        let models = self.model_servings.state_filter(ModelServing::is_opted_in);
        let names: BTreeSet<&str> = models.iter().map(|found| found.profile()).collect();
        let of = |name: &str| {
            let found = self.profiles.get("", name).map(|digest| digest.settings);
            Profile::resolve(name, found.as_ref(), defaults)
                .ok()
                .map(|profile| profile.clone().with_fallback(defaults))
        };
        names.into_iter().filter_map(of).collect()
    }

    /// The opted-in models that are scaled by a level, which the HPA multiplies their pods by.
    pub fn models_with_value_metric(&self) -> Vec<Arc<ModelServing>> {
        let uses_levels = |found: &ModelServing| {
            let profile = self.profiles.get("", found.profile());
            found.is_opted_in()
                && profile
                    .is_some_and(|digest| digest.settings.as_ref().is_ok_and(Profile::uses_value_metric))
        };
        self.model_servings.state_filter(uses_levels)
    }

    /// How many opted-in models of the cluster use this profile; nothing while that is not known.
    pub fn users(&self, profile: &str) -> Option<i32> {
        let users = if self.cluster_opt_ins.is_disabled() {
            self.model_digests.count(index_keys::profile(profile))
        } else {
            self.cluster_opt_ins
                .has_synced()
                .then(|| self.cluster_opt_ins.count(index_keys::profile(profile)))?
        };
        Some(i32::try_from(users).unwrap_or(i32::MAX))
    }

    /// Whether any model of the cluster asks for autoscaling; nothing while that is not known.
    pub fn any_opted_in(&self) -> Option<bool> {
        if self.cluster_opt_ins.is_disabled() {
            return Some(self.model_digests.any(index_keys::opted_in()));
        }
        self.cluster_opt_ins.has_synced().then(|| self.cluster_opt_ins.any(index_keys::opted_in()))
    }

    /// What is said of each opted-in model.
    pub fn said(&self) -> Vec<(Arc<ModelServing>, LastReported)> {
        let said = |found: Arc<ModelServing>| self.last_reports.of(&found).map(|said| (found, said));
        self.model_servings.state_filter(ModelServing::is_opted_in).into_iter().filter_map(said).collect()
    }
}
