//! Keys of the annotations on a ModelServing.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

use crate::domain::is_misspelling;

/// Opts a ModelServing in to autoscaling; the value is one or more model names.
pub const MODEL_NAME: &str = "kthena.io/model-name";
/// Prefix of every other annotation.
pub const PREFIX: &str = "autoscaling.kthena.io/";
/// Names the AutoscalingProfile.
pub const PROFILE: &str = "autoscaling.kthena.io/profile";
/// Has the roles of each ServingGroup scaled.
pub const ROLES: &str = "autoscaling.kthena.io/roles";
/// The AutoscalingProfile of a ModelServing without [`PROFILE`].
pub const DEFAULT_PROFILE: &str = "default";

/// On a ScaledObject: the measured service time in its query.
pub const MEASURED_SERVICE_TIME: &str = "autoscaling.kthena.io/measured-service-time";

/// Maximum size of all of the operator's annotations of one object, keys and values together, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// `true` for the key of an annotation of the operator, known or not.
pub fn is_own(key: &str) -> bool {
    key == MODEL_NAME || key.starts_with(PREFIX)
}

/// `true` for a key that is probably meant to be [`MODEL_NAME`], such as `kthena.io/modelName`.
pub fn resembles_model_name(key: &str) -> bool {
    let Some(name) = key.strip_prefix("kthena.io/").filter(|_| key != MODEL_NAME) else { return false };
    let letters: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(16).collect();
    matches!(letters.as_str(), "model" | "models") || is_misspelling(&letters, "modelname")
}

/// `true` if the operator's annotations among these hold more than [`MAX_BYTES`].
pub fn are_too_large<'a>(annotations: impl IntoIterator<Item = (&'a String, &'a String)>) -> bool {
    let own = annotations.into_iter().filter(|(key, _)| is_own(key));
    own.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_BYTES
}

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
    /// Dry run: decide, and scale nothing.
    Shadow,
    /// Time for one request, which bounds the backlog.
    ServiceTime,
    /// Roles that are scaled instead of ServingGroups.
    Roles,
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

    #[rstest::rstest]
    #[case("kthena.io/modelName", true)]
    #[case("kthena.io/model_name", true)]
    #[case("kthena.io/model", true)]
    #[case("kthena.io/Model-Names", true)]
    #[case("kthena.io/model-name", false)]
    #[case("kthena.io/model-nam", true)]
    #[case("kthena.io/modle-name", true)]
    #[case("kthena.io/model-uid", false)]
    #[case("kthena.io/mode", false)]
    #[case("example.com/model-name", false)]
    fn finds_mistyped_opt_ins(#[case] key: &str, #[case] resembles: bool) {
        assert_eq!(resembles_model_name(key), resembles);
    }

    #[test]
    fn displays_the_whole_key() {
        assert_eq!(AnnotationKey::Profile.to_string(), PROFILE);
        assert_eq!(AnnotationKey::Roles.to_string(), ROLES);
        assert_eq!(AnnotationKey::MinReplicas.to_string(), "autoscaling.kthena.io/min-replicas");
    }
}
