//! Effects of kinds that could not be read: an object of such a kind may exist.

use super::{Finding, ResolvedIntent, pod_monitor};
use crate::{
    intent::Intent,
    observed::{Observed, Ownership, Readable},
};

/// Kinds that keep every plan for the model from being applied. Those that only show conflicts keep its
/// ScaledObject from being created, and a model in shadow from nothing.
pub(super) fn inputs(observed: &Observed) -> Vec<Finding> {
    let readable = &observed.readable;
    let profiles = readable.unread_profiles();
    let profiles = profiles.map(|unread| Finding::unread(&unread, "the settings of this model are unknown"));
    let scaled_objects = readable
        .unread_scaled_objects()
        .map(|unread| Finding::unread(&unread, "it is unknown which ScaledObjects scale this model"));
    let is_creation = observed.scaled_object_ownership() == Ownership::Absent
        && scaled_objects.is_none()
        && !observed.model_serving.is_in_shadow();
    let conflicts = readable.unread_conflicts().filter(|_| is_creation);
    let conflicts = conflicts
        .map(|unread| Finding::unread(&unread, "it is unknown whether another autoscaler scales this model"));
    profiles.into_iter().chain(scaled_objects).chain(conflicts).collect()
}

/// `true` if the profile of the model may exist although it is not known.
pub(super) fn hides_profile(observed: &Observed) -> bool {
    observed.profile.is_none() && observed.readable.profiles != Readable::Yes
}

/// `true` if the ScaledObject of the model may exist although it is not known.
pub(super) fn hides_scaled_object(observed: &Observed) -> bool {
    observed.scaled_object.is_none() && observed.readable.scaled_objects != Readable::Yes
}

/// Kinds that decide which requests the model serves, and its engine.
pub(super) fn routing(observed: &Observed, intent: &Intent) -> Vec<Finding> {
    let routes = observed.readable.unread_routes();
    let servers = observed.readable.unread_servers().filter(|_| depends_on_servers(observed, intent));
    let effect = "the share of the requests that this model serves is unknown";
    routes.into_iter().chain(servers).map(|unread| Finding::unread(&unread, effect)).collect()
}

/// `true` if a ModelServer could change the plan: a route carries a name of the model, or it may set the engine.
fn depends_on_servers(observed: &Observed, intent: &Intent) -> bool {
    let needs_engine = intent.signals.iter().any(|signal| signal.source.is_of_engines())
        && (intent.engine.is_none() || intent.engine_port.is_none());
    let routing = &observed.routing;
    let is_routed = routing.is_known && routing.listed().any(|name| !name.carried_by.is_empty());
    needs_engine || is_routed
}

/// Warnings about kinds that do not change the plan.
pub(super) fn warnings(observed: &Observed, resolved: &ResolvedIntent) -> Vec<String> {
    let effect = if resolved.intent.shadow {
        "another autoscaler of this model may not be named"
    } else {
        "a conflict with another autoscaler is not detected"
    };
    let conflicts = observed.readable.unread_conflicts().map(|unread| unread.message(effect));
    let monitors = observed.readable.unread_pod_monitors().filter(|_| pod_monitor::is_needed(resolved));
    let monitors = monitors.map(|unread| unread.message("the PodMonitor of this model stays as it is"));
    conflicts.chain(monitors).collect()
}
