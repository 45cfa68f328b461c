//! Features of the cluster's API that plans depend on.

/// Features of the cluster's API that plans depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Fields that the installed KEDA knows; `None` without KEDA.
    pub keda: Option<Keda>,
    /// ModelServings have the scale subresource (Kthena 0.3 or later).
    pub scale: bool,
    /// The API server serves PodMonitors.
    pub pod_monitors: bool,
    /// The API server serves ModelServingRoles and their scale subresource.
    pub roles: bool,
}

/// Fields of the installed KEDA's ScaledObject, by the release that added them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keda {
    /// `initialCooldownPeriod`, since 2.14.
    pub initial_cooldown: bool,
    /// `fallback.behavior`, since 2.17.
    pub fallback_behavior: bool,
    /// The annotations `paused-scale-in` and `paused-scale-out`, since 2.18.
    pub directional_pause: bool,
}

impl Capabilities {
    /// Capabilities of a cluster with the newest releases.
    pub const NEWEST: Self = Self {
        keda: Some(Keda { initial_cooldown: true, fallback_behavior: true, directional_pause: true }),
        scale: true,
        pod_monitors: true,
        roles: true,
    };
}
