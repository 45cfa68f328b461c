//! Keys of the annotations on a ModelServing.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

/// Opts a ModelServing in to autoscaling; the value is one or more model names.
pub const MODEL_NAME: &str = "kthena.io/model-name";
/// Prefix of every other annotation.
pub const PREFIX: &str = "autoscaling.kthena.io/";
/// Names the AutoscalingProfile.
pub const PROFILE: &str = "autoscaling.kthena.io/profile";
/// The AutoscalingProfile of a ModelServing without [`PROFILE`].
pub const DEFAULT_PROFILE: &str = "default";

/// The part of an annotation's key after [`PREFIX`]; displayed as the whole key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum AnnotationKey {
    /// Name of the AutoscalingProfile.
    Profile,
    /// Minimum number of ServingGroups.
    MinReplicas,
    /// Maximum number of ServingGroups.
    MaxReplicas,
    /// Signals and their targets.
    Signals,
    /// Directions in which autoscaling is paused.
    Paused,
    /// Inference engine of the pods.
    Engine,
    /// Port on which the engine listens.
    EnginePort,
}

impl AnnotationKey {
    /// The key without [`PREFIX`].
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for AnnotationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_the_whole_key() {
        assert_eq!(AnnotationKey::Profile.to_string(), PROFILE);
        assert_eq!(AnnotationKey::MinReplicas.to_string(), "autoscaling.kthena.io/min-replicas");
    }
}
