//! What was asked for: annotations over profile over built-in defaults, checked once.
//!
//! In: a ModelServing's annotations and the platform team's settings. Out: an [`Intent`] whose every value is valid, or all errors at once. Pure.

mod annotations;
mod parse_profile;
mod profile;

pub use annotations::{ANNOTATIONS, AnnotationError, Annotations};
pub use profile::{
    Behavior, CreateMonitors, CustomSignal, Direction, MonitorSettings, Policy, PolicyKind, Profile,
    ProfileUnavailable, PrometheusSettings, Select, SignalSource, SignalTarget,
};

use crate::{
    domain::{ModelNames, Pause, ReplicaBounds},
    signals::Engine,
};

/// The complete, validated settings of one ModelServing.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The names that clients send to the router.
    pub models: ModelNames,
    /// How many ServingGroups there may be.
    pub replicas: ReplicaBounds,
    /// Whether the upper bound stands on the ModelServing itself, so that a fleet above it may be cut on opting in.
    pub max_is_explicit: bool,
    /// What is measured, in the order of the triggers.
    pub signals: Vec<SignalTarget>,
    /// What is held back.
    pub pause: Option<Pause>,
    /// What the pods run, where that is not left to the ModelServer.
    pub engine: Option<Engine>,
    /// The port that it listens on, likewise.
    pub engine_port: Option<u16>,
    /// Everything else, which annotations cannot change.
    pub profile: Profile,
}

/// Lays annotations over a profile.
///
/// # Errors
/// When annotation and profile do not fit together, which neither can tell alone.
pub fn merge(annotations: Annotations, profile: &Profile) -> Result<Intent, AnnotationError> {
    let min = annotations.min_replicas;
    let max = annotations.max_replicas;
    let replicas =
        ReplicaBounds::new(min.unwrap_or(profile.replicas.min()), max.unwrap_or(profile.replicas.max()))
            .map_err(|error| annotations::bounds_error(min, max, &error))?;
    Ok(Intent {
        models: annotations.models,
        replicas,
        max_is_explicit: max.is_some(),
        signals: annotations.signals.unwrap_or_else(|| profile.all_signals()),
        pause: annotations.pause,
        engine: annotations.engine,
        engine_port: annotations.engine_port,
        profile: profile.clone(),
    })
}
