//! What the watches of `run` have seen: the source of every [`Observed`].

use kube::{ResourceExt as _, runtime::reflector::Store};

use super::{Generated, MonitorDigest, Observed, ObservedRouter, ProfileDigest, RouterService};
use crate::{
    api::kthena::ModelServing,
    cluster::capabilities::Served,
    intent::{DEFAULT_PROFILE, Profile},
    plan::{SERVICE_MONITOR, scaled_object_name},
    process::follow::Digests,
    signals::RouterSeries,
};

/// Everything that is watched.
#[derive(Debug)]
pub struct Stores {
    /// The cluster's ModelServings, opted in or not.
    pub model_servings: Store<ModelServing>,
    /// The cluster's ScaledObjects.
    pub scaled_objects: Digests<Generated>,
    /// The cluster's AutoscalingProfiles; they have no namespace.
    pub profiles: Digests<ProfileDigest>,
    /// The Services of the router's namespace.
    pub services: Digests<RouterService>,
    /// The cluster's ServiceMonitors.
    pub service_monitors: Digests<MonitorDigest>,
    /// The cluster's PodMonitors.
    pub pod_monitors: Digests<MonitorDigest>,
}

impl Stores {
    /// Nothing seen yet.
    pub fn new(model_servings: Store<ModelServing>) -> Self {
        Self {
            model_servings,
            scaled_objects: Digests::default(),
            profiles: Digests::default(),
            services: Digests::default(),
            service_monitors: Digests::default(),
            pod_monitors: Digests::default(),
        }
    }

    /// What is there of a ModelServing; `None` while not everything has been seen, since a plan on half of it would be undone.
    pub fn observe(&self, model_serving: &ModelServing, served: Served, router: RouterSeries) -> Option<Observed> {
        let complete =
            (served.plan.keda.is_none() || self.scaled_objects.is_complete()) && (!served.profiles || self.profiles.is_complete());
        if !complete {
            return None;
        }
        let profile = self.profiles.get("", model_serving.profile()).map(|digest| digest.settings);
        let scaled_object = self.scaled_objects.get(&model_serving.namespace()?, &scaled_object_name(model_serving));
        Some(Observed { model_serving: model_serving.clone(), scaled_object, router, profile })
    }

    /// What is there of the router; `None` while not everything has been seen.
    pub fn observe_router(&self, namespace: &str, served: Served) -> Option<ObservedRouter> {
        let complete = self.services.is_complete()
            && (!served.profiles || self.profiles.is_complete())
            && (!served.monitors.service || self.service_monitors.is_complete())
            && (!served.monitors.pod || self.pod_monitors.is_complete());
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

    /// How many opted-in models use this profile.
    pub fn users(&self, profile: &str) -> i32 {
        let uses = |found: &ModelServing| found.is_opted_in() && found.profile() == profile;
        i32::try_from(self.model_servings.state_filter(uses).len()).unwrap_or(i32::MAX)
    }

    /// Whether any model asks for autoscaling.
    pub fn any_opted_in(&self) -> bool {
        self.model_servings.find(|found| found.is_opted_in() && found.metadata.deletion_timestamp.is_none()).is_some()
    }
}
