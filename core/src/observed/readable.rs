//! Readability of the objects that a plan depends on. An object that could not be read is not absent.

use std::borrow::Cow;

use kube_core::Resource;

use super::{
    LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy, LiveProfile, LiveRole,
    LiveScaledObject, LiveStandIn, LiveStandInService,
};

/// Readability of the objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readable {
    /// All objects are known, or the cluster does not serve the kind and so has none.
    #[default]
    Yes,
    /// The API server forbids listing them.
    Forbidden,
    /// They could not be listed yet, or discovery of their API has not succeeded yet.
    NotYet,
}

/// Readability of each kind that the plan for a ModelServing depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readability {
    /// AutoscalingProfiles.
    pub profiles: Readable,
    /// ScaledObjects of the namespace.
    pub scaled_objects: Readable,
    /// ModelRoutes of the namespace.
    pub routes: Readable,
    /// ModelServers of the namespace.
    pub servers: Readable,
    /// HPAs of the namespace.
    pub hpas: Readable,
    /// AutoscalingPolicies of the namespace.
    pub policies: Readable,
    /// AutoscalingPolicyBindings of the namespace.
    pub bindings: Readable,
    /// PodMonitors of the namespace.
    pub pod_monitors: Readable,
    /// Pods of the namespace that are stand-ins.
    pub stand_ins: Readable,
    /// Services of the namespace that are those of stand-ins.
    pub stand_in_services: Readable,
    /// ModelServingRoles of the namespace.
    pub roles: Readable,
}

impl Readability {
    /// The kinds that only show conflicts with other autoscalers and could not be read.
    pub fn unread_conflicts(&self) -> impl Iterator<Item = UnreadKind> {
        let policies = UnreadKind::of::<LivePolicy>(self.policies);
        let bindings = UnreadKind::of::<LiveBinding>(self.bindings);
        [self.unread_hpas(), policies, bindings].into_iter().flatten()
    }

    /// AutoscalingProfiles, if they could not be read.
    pub fn unread_profiles(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveProfile>(self.profiles)
    }

    /// ScaledObjects, if they could not be read.
    pub fn unread_scaled_objects(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveScaledObject>(self.scaled_objects)
    }

    /// ModelRoutes, if they could not be read.
    pub fn unread_routes(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveModelRoute>(self.routes)
    }

    /// ModelServers, if they could not be read.
    pub fn unread_servers(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveModelServer>(self.servers)
    }

    /// HPAs, if they could not be read.
    pub fn unread_hpas(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveHpa>(self.hpas)
    }

    /// Stand-ins and their Services, as far as they could not be read.
    pub fn unread_stand_ins(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveStandIn>(self.stand_ins)
            .or_else(|| UnreadKind::of::<LiveStandInService>(self.stand_in_services))
    }

    /// ModelServingRoles, if they could not be read.
    pub fn unread_roles(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LiveRole>(self.roles)
    }

    /// PodMonitors, if they could not be read.
    pub fn unread_pod_monitors(&self) -> Option<UnreadKind> {
        UnreadKind::of::<LivePodMonitor>(self.pod_monitors)
    }
}

/// A kind whose objects could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadKind {
    /// Plural name of the resource.
    pub plural: Cow<'static, str>,
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// `true` if the API server forbids listing them; `false` if that is only to be awaited.
    pub is_forbidden: bool,
}

impl UnreadKind {
    /// The kind `K`; `None` if it could be read.
    pub fn of<K: Resource<DynamicType = ()>>(readable: Readable) -> Option<Self> {
        let is_forbidden = match readable {
            Readable::Yes => return None,
            Readable::Forbidden => true,
            Readable::NotYet => false,
        };
        Some(Self { plural: K::plural(&()), group: K::group(&()), is_forbidden })
    }
}

impl UnreadKind {
    /// Problem, effect on one model and remedy; the effect completes "so …".
    pub fn message(&self, effect: &str) -> String {
        let Self { plural, group, is_forbidden } = self;
        let group = if group.is_empty() { "core" } else { group };
        if *is_forbidden {
            return format!(
                "no permission to list {plural}, so {effect}; grant list and watch on {plural} in the API group {group}"
            );
        }
        format!(
            "{plural} in the API group {group} could not be listed yet, so {effect}; if this lasts, check that the API server serves them"
        )
    }
}
