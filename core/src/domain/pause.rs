//! The value of the annotation `autoscaling.kthena.io/paused`.

use strum::{EnumString, IntoStaticStr};

/// The directions in which autoscaling is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
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

impl Pause {
    /// Every pause.
    pub const ALL: [Self; 3] = [Self::All, Self::ScaleIn, Self::ScaleOut];
}
