//! What the watches of `run` have seen: the source of every [`Observed`].

use std::{collections::BTreeSet, sync::Arc};

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    Autoscalers, Checks, HpaDigest, MonitorDigest, Observed, ObservedRouter, Peer, PolicyDigest, ProfileDigest, Reasons, Rival,
    RouteDigest, RouterService, Said, ScaledObjectDigest, ServerDigest, Wish, topics,
};
use crate::{
    api::kthena::ModelServing,
    cluster::capabilities::Served,
    intent::{DEFAULT_PROFILE, Profile},
    plan::{SERVICE_MONITOR, hpa_name, pod_monitor_name, scaled_object_name},
    process::digests::{Digests, Key, Part},
    settings::Share,
    signals::RouterSeries,
};

/// Everything that is watched.
#[derive(Debug)]
pub struct Stores {
    /// The ModelServings that are this instance's, opted in or not.
    ///
    /// Only its controller waits until it is ready, since kube wakes one of all that wait (kube-runtime `utils/delayed_init.rs`); whoever else
    /// wants to know asks `peers`.
    pub model_servings: Store<ModelServing>,
    /// What of ModelServings matters to other ones.
    pub peers: Part<Peer>,
    /// What the ModelServings of the whole cluster ask for; of nothing where this instance's are all of them, or are all that it has to know.
    pub census: Digests<Wish>,
    /// The cluster's ScaledObjects.
    pub scaled_objects: Digests<ScaledObjectDigest>,
    /// The cluster's HPAs.
    pub hpas: Digests<HpaDigest>,
    /// The cluster's AutoscalingPolicies.
    pub policies: Digests<PolicyDigest>,
    /// The cluster's AutoscalingPolicyBindings.
    pub bindings: Digests<PolicyDigest>,
    /// The cluster's AutoscalingProfiles; they have no namespace.
    pub profiles: Digests<ProfileDigest>,
    /// The Services of the router's namespace.
    pub services: Digests<RouterService>,
    /// The cluster's ServiceMonitors.
    pub service_monitors: Digests<MonitorDigest>,
    /// The cluster's PodMonitors.
    pub pod_monitors: Digests<MonitorDigest>,
    /// The reason that each model's last plan led to.
    pub reasons: Reasons,
    /// What Prometheus showed last.
    pub checks: Checks,
    /// The cluster's ModelRoutes.
    pub routes: Digests<RouteDigest>,
    /// The cluster's ModelServers.
    pub servers: Digests<ServerDigest>,
}

impl Stores {
    /// Nothing seen yet of what one instance watches. `router` is the router's namespace.
    pub fn new(model_servings: Store<ModelServing>, share: &Share, router: &str) -> Self {
        Self {
            model_servings,
            peers: Part::default(),
            census: Digests::of(share.census()),
            scaled_objects: Digests::of(share.scopes()),
            hpas: Digests::of(share.scopes()),
            policies: Digests::of(share.scopes()),
            bindings: Digests::of(share.scopes()),
            profiles: Digests::default(),
            services: Digests::of([Some(router.to_owned())]),
            service_monitors: Digests::of(share.scopes_with(router)),
            pod_monitors: Digests::of(share.scopes_with(router)),
            reasons: Reasons::default(),
            checks: Checks::default(),
            routes: Digests::of(share.scopes()),
            servers: Digests::of(share.scopes()),
        }
    }

    /// What is there of a ModelServing; `None` while not everything has been seen, since a plan on half of it would be undone.
    pub fn observe(&self, model_serving: &ModelServing, served: Served, router: RouterSeries) -> Option<Observed> {
        if !self.is_complete(served) {
            return None;
        }
        let namespace = model_serving.namespace()?;
        Some(Observed {
            model_serving: model_serving.clone(),
            scaled_object: self.scaled_objects.get(&namespace, &scaled_object_name(model_serving)),
            hpa: self.hpas.get(&namespace, &hpa_name(model_serving)),
            rivals: self.rivals(model_serving),
            sights: self.checks.last(),
            refusal: None,
            second_writer: None,
            mismatch: self.checks.mismatch(&(namespace.clone(), model_serving.name_any())),
            pod_monitor: self.pod_monitors.get(&namespace, &pod_monitor_name(model_serving)).map(|digest| digest.generated),
            router,
            routing: self.routing(model_serving, served),
            profile: self.profiles.get("", model_serving.profile()).map(|digest| digest.settings),
        })
    }

    fn is_complete(&self, served: Served) -> bool {
        self.needed(served).into_iter().all(|(_, is_seen)| is_seen)
    }

    /// What plans need and the cluster serves, and whether it has been seen.
    fn needed(&self, served: Served) -> impl IntoIterator<Item = (&'static str, bool)> {
        let Served { model_servings: _, profiles, service_monitors: _, network, policies, plan } = served;
        [
            ("scaledobjects", plan.keda.is_none() || self.scaled_objects.is_complete()),
            ("autoscalingprofiles", !profiles || self.profiles.is_complete()),
            ("podmonitors", !plan.pod_monitors || self.pod_monitors.is_complete()),
            ("modelroutes", !network.routes || self.routes.is_complete()),
            ("modelservers", !network.servers || self.servers.is_complete()),
            ("horizontalpodautoscalers", self.hpas.is_complete()),
            ("autoscalingpolicies", !policies.policies || self.policies.is_complete()),
            ("autoscalingpolicybindings", !policies.bindings || self.bindings.is_complete()),
        ]
    }

    /// What has not been seen in full yet of what is served.
    pub fn unseen(&self, served: Served) -> Vec<&'static str> {
        let model_servings = !served.model_servings || self.peers.is_complete();
        let all = self.needed(served).into_iter().chain([("modelservings", model_servings)]);
        all.filter(|(_, is_seen)| !is_seen).map(|(kind, _)| kind).collect()
    }

    fn rivals(&self, model_serving: &ModelServing) -> Vec<Rival> {
        let about = [topics::model_serving(&model_serving.namespace().unwrap_or_default(), &model_serving.name_any())];
        self.scaled_objects.pick(&about, &[], |scaled_objects| {
            self.hpas.pick(&about, &[], |hpas| {
                self.policies.pick(&about, &[], |policies| {
                    self.bindings
                        .pick(&about, &[], |bindings| Autoscalers { scaled_objects, hpas, policies, bindings }.rivals(model_serving))
                })
            })
        })
    }

    /// A ModelServing of this instance.
    pub fn model_serving(&self, (namespace, name): &Key) -> Option<Arc<ModelServing>> {
        self.model_servings.get(&ObjectRef::new(name).within(namespace))
    }

    /// What is there of the router; `None` while not everything has been seen.
    pub fn observe_router(&self, namespace: &str, served: Served) -> Option<ObservedRouter> {
        let complete = self.services.is_complete()
            && (!served.profiles || self.profiles.is_complete())
            && (!served.service_monitors || self.service_monitors.is_complete())
            && (!served.plan.pod_monitors || self.pod_monitors.is_complete());
        complete.then(|| ObservedRouter {
            namespace: namespace.to_owned(),
            services: self.services.all().into_iter().map(|(_, service)| service).collect(),
            service_monitor: self.service_monitors.get(namespace, SERVICE_MONITOR),
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
            Profile::that_counts(name, found.as_ref(), defaults).ok().map(|profile| profile.clone().or(defaults))
        };
        names.into_iter().filter_map(of).collect()
    }

    /// The opted-in models that are scaled by a level, which the HPA multiplies their pods by.
    pub fn scaled_by_levels(&self) -> Vec<Arc<ModelServing>> {
        let uses_levels = |found: &ModelServing| {
            let profile = self.profiles.get("", found.profile());
            found.is_opted_in() && profile.is_some_and(|digest| digest.settings.as_ref().is_ok_and(Profile::has_levels))
        };
        self.model_servings.state_filter(uses_levels)
    }

    /// How many opted-in models of the cluster use this profile; nothing while that is not known.
    pub fn users(&self, profile: &str) -> Option<i32> {
        let users = if self.census.is_of_nothing() {
            self.peers.count(topics::profile(profile))
        } else {
            self.census.is_complete().then(|| self.census.count(topics::profile(profile)))?
        };
        Some(i32::try_from(users).unwrap_or(i32::MAX))
    }

    /// Whether any model of the cluster asks for autoscaling; nothing while that is not known.
    pub fn any_opted_in(&self) -> Option<bool> {
        if self.census.is_of_nothing() {
            return Some(self.peers.any(topics::opted_in()));
        }
        self.census.is_complete().then(|| self.census.any(topics::opted_in()))
    }

    /// What is said of each opted-in model.
    pub fn said(&self) -> Vec<(Arc<ModelServing>, Said)> {
        let said = |found: Arc<ModelServing>| self.reasons.of(&found).map(|said| (found, said));
        self.model_servings.state_filter(ModelServing::is_opted_in).into_iter().filter_map(said).collect()
    }
}
