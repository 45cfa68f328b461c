//! AutoscalingProfiles as they stand, read once when they change.

use kube::{Resource as _, ResourceExt as _};

use crate::{
    api::profile::{AutoscalingProfile, AutoscalingProfileStatus},
    intent::Profile,
};

/// What matters of a profile.
#[derive(Clone, Debug)]
pub struct ProfileDigest {
    /// Which version of the profile this is.
    pub generation: Option<i64>,
    /// Guards writes of its status.
    pub resource_version: Option<String>,
    /// What it gives, or what is wrong with it.
    pub settings: Result<Profile, String>,
    /// What was last said of it.
    pub status: AutoscalingProfileStatus,
}

impl PartialEq for ProfileDigest {
    /// What is said of a profile changes nothing of it: models are not to be planned again for that.
    fn eq(&self, other: &Self) -> bool {
        (self.generation, &self.settings) == (other.generation, &other.settings)
    }
}

impl From<&AutoscalingProfile> for ProfileDigest {
    fn from(live: &AutoscalingProfile) -> Self {
        let settings = Profile::read(&live.spec);
        Self {
            generation: live.meta().generation,
            resource_version: live.resource_version(),
            settings: settings.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
            status: live.status.clone().unwrap_or_default(),
        }
    }
}
