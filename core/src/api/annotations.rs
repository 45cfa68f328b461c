//! Keys of the annotations on a ModelServing.

/// Opts a ModelServing in.
pub const MODEL_NAME: &str = "kthena.io/model-name";
/// Prefix of every other annotation.
pub const PREFIX: &str = "autoscaling.kthena.io/";
/// Names the AutoscalingProfile.
pub const PROFILE: &str = "autoscaling.kthena.io/profile";
/// The profile of every ModelServing that names no other.
pub const DEFAULT_PROFILE: &str = "default";
