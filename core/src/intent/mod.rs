//! Settings of a ModelServing: annotations over profile over built-in defaults.
//!
//! The parsers check each value once and report all errors of an object together, so that an [`Intent`] holds
//! only valid values.

mod annotations;
mod parse_profile;
mod profile;
mod roles;

pub(crate) use annotations::requested_pause;
pub use annotations::{AnnotationError, Annotations};
pub use profile::{
    Behavior, CreateMonitors, CustomSignal, Direction, MonitorSettings, Policy, PolicyKind, Profile,
    ProfileUnavailable, PrometheusSettings, RouterEndpoint, Select, SignalSource, SignalTarget,
};
pub use roles::{RoleTarget, Roles};

use crate::domain::{Backlog, Engine, ModelNames, Pause, ReplicaBounds, ServiceTimeSetting};

/// The complete, validated settings of one ModelServing.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Names that clients send to the router.
    pub models: ModelNames,
    /// Bounds of the number of ServingGroups.
    pub replicas: ReplicaBounds,
    /// `true` if an annotation sets the maximum, so that opting in may reduce a number of ServingGroups above
    /// it.
    pub max_is_explicit: bool,
    /// `true` if an annotation sets the minimum.
    pub min_is_explicit: bool,
    /// Signals, in the order of the triggers.
    pub signals: Vec<SignalTarget>,
    /// Directions in which autoscaling is paused; `None` in shadow.
    pub pause: Option<Pause>,
    /// Dry run: decide, and scale nothing.
    pub shadow: bool,
    /// Bound on the waiting requests that count.
    pub backlog: Backlog,
    /// Roles that are scaled instead of ServingGroups. Then the signals are those of all roles, and the bounds of the number of
    /// ServingGroups mean nothing.
    pub roles: Option<Roles>,
    /// Inference engine of the pods; `None` leaves it to the ModelServer.
    pub engine: Option<Engine>,
    /// Port on which the engine listens; `None` leaves it to the ModelServer.
    pub engine_port: Option<u16>,
    /// Settings that annotations cannot change.
    pub profile: Profile,
}

/// Overrides a profile with annotations.
///
/// # Errors
/// If a bound of the annotations contradicts the other bound of the profile.
pub fn merge(annotations: Annotations, profile: &Profile) -> Result<Intent, AnnotationError> {
    if let Some(roles) = annotations.roles.clone().or_else(|| profile.roles.clone()) {
        return of_roles(annotations, profile, roles);
    }
    Ok(Intent {
        replicas: bounds(&annotations, profile.replicas)?,
        max_is_explicit: annotations.max_replicas.is_some(),
        min_is_explicit: annotations.min_replicas.is_some(),
        models: annotations.models,
        signals: annotations.signals.unwrap_or_else(|| profile.all_signals()),
        pause: annotations.pause.filter(|_| !annotations.shadow),
        shadow: annotations.shadow,
        backlog: Backlog {
            service_time: annotations.service_time.unwrap_or(profile.backlog.service_time),
            ..profile.backlog
        },
        roles: None,
        engine: annotations.engine,
        engine_port: annotations.engine_port,
        profile: profile.clone(),
    })
}

fn of_roles(annotations: Annotations, profile: &Profile, roles: Roles) -> Result<Intent, AnnotationError> {
    if let Some(error) = annotations::groups_beside_profile_roles(&annotations) {
        return Err(error);
    }
    Ok(Intent {
        replicas: ReplicaBounds::default(),
        max_is_explicit: false,
        min_is_explicit: false,
        models: annotations.models,
        signals: roles.iter().flat_map(|role| role.signals.iter().cloned()).collect(),
        pause: annotations.pause,
        shadow: false,
        backlog: Backlog { service_time: ServiceTimeSetting::Off, ..profile.backlog },
        roles: Some(roles),
        engine: annotations.engine,
        engine_port: annotations.engine_port,
        profile: profile.clone(),
    })
}

impl Intent {
    /// The settings of one role, as those of an object that is scaled by itself.
    #[must_use]
    pub fn of_role(&self, role: &RoleTarget) -> Self {
        Self { signals: role.signals.clone(), replicas: role.bounds, roles: None, ..self.clone() }
    }
}

fn bounds(annotations: &Annotations, profile: ReplicaBounds) -> Result<ReplicaBounds, AnnotationError> {
    let min = annotations.min_replicas.unwrap_or(profile.min());
    let max = annotations.max_replicas.unwrap_or(profile.max());
    ReplicaBounds::new(min, max).ok_or_else(|| match annotations.min_replicas {
        Some(_) => annotations::min_above_profile(min, max),
        None => annotations::max_below_profile(max, min),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn merged(min_replicas: Option<i32>, max_replicas: Option<i32>) -> Result<ReplicaBounds, String> {
        let annotations = Annotations {
            models: "m".parse().unwrap(),
            profile: None,
            min_replicas,
            max_replicas,
            signals: None,
            pause: None,
            shadow: false,
            service_time: None,
            roles: None,
            engine: None,
            engine_port: None,
        };
        let mut profile = Profile::built_in();
        profile.replicas = ReplicaBounds::new(2, 10).unwrap();
        merge(annotations, &profile).map(|intent| intent.replicas).map_err(|error| error.to_string())
    }

    #[rstest]
    #[case(None, None, (2, 10))]
    #[case(Some(0), None, (0, 10))]
    #[case(None, Some(12), (2, 12))]
    #[case(Some(11), Some(12), (11, 12))]
    fn annotations_override_the_profile(
        #[case] min: Option<i32>,
        #[case] max: Option<i32>,
        #[case] (from, to): (i32, i32),
    ) {
        assert_eq!(merged(min, max), Ok(ReplicaBounds::new(from, to).unwrap()));
    }

    #[rstest]
    #[case(
        Some(11),
        None,
        r#"invalid value "11" for autoscaling.kthena.io/min-replicas: expected an integer <= 10, the profile's spec.replicas.max; to go higher, set autoscaling.kthena.io/max-replicas"#
    )]
    #[case(
        None,
        Some(1),
        r#"invalid value "1" for autoscaling.kthena.io/max-replicas: expected an integer >= 2, the profile's spec.replicas.min; to go lower, set autoscaling.kthena.io/min-replicas"#
    )]
    fn reports_bounds_that_contradict_the_profile(
        #[case] min: Option<i32>,
        #[case] max: Option<i32>,
        #[case] message: &str,
    ) {
        assert_eq!(merged(min, max), Err(message.to_owned()));
    }
}
