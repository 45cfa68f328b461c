//! The value of the annotation `autoscaling.kthena.io/paused`.

use strum::EnumString;

/// The directions in which autoscaling is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum Pause {
    /// No scaling at all.
    #[strum(serialize = "true")]
    All,
    /// No removal of ServingGroups.
    ScaleIn,
    /// No addition of ServingGroups.
    ScaleOut,
}
