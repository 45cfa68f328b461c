//! AutoscalingProfiles as they stand, read once when they change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_derive::Resource;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::{
    api::{
        BestEffort, LenientDe, fields,
        metadata::LeanMetadata,
        profile::{AutoscalingProfile, AutoscalingProfileSpec, AutoscalingProfileStatus},
    },
    intent::Profile,
};

/// An AutoscalingProfile as the API server sends it, whatever a newer definition lets it say.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingProfile, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveProfile {
    /// Name and identity.
    pub metadata: ObjectMeta,
    /// What it says, or why that cannot be understood.
    spec: Result<AutoscalingProfileSpec, String>,
    status: AutoscalingProfileStatus,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<IgnoredAny>,
    spec: BestEffort<Value>,
    status: BestEffort<AutoscalingProfileStatus>,
}

fields!(Wire { "metadata" => metadata, "spec" => spec, "status" => status });

impl From<LenientDe<Wire>> for LiveProfile {
    fn from(LenientDe(wire): LenientDe<Wire>) -> Self {
        let spec = serde_json::from_value(wire.spec.0.unwrap_or_default());
        Self {
            metadata: wire.metadata.into(),
            spec: spec.map_err(|error| {
                format!("it says what this release of kthena-keda does not understand: {error}")
            }),
            status: wire.status.0.unwrap_or_default(),
        }
    }
}

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

impl From<&LiveProfile> for ProfileDigest {
    fn from(live: &LiveProfile) -> Self {
        Self::new(
            &live.metadata,
            live.spec.as_ref().map_err(Clone::clone).and_then(read),
            live.status.clone(),
        )
    }
}

impl From<&AutoscalingProfile> for ProfileDigest {
    fn from(written: &AutoscalingProfile) -> Self {
        Self::new(&written.metadata, read(&written.spec), written.status.clone().unwrap_or_default())
    }
}

impl ProfileDigest {
    fn new(
        metadata: &ObjectMeta,
        settings: Result<Profile, String>,
        status: AutoscalingProfileStatus,
    ) -> Self {
        Self {
            generation: metadata.generation,
            resource_version: metadata.resource_version.clone(),
            settings,
            status,
        }
    }
}

fn read(spec: &AutoscalingProfileSpec) -> Result<Profile, String> {
    Profile::read(spec)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(object: Value) -> ProfileDigest {
        ProfileDigest::from(&serde_json::from_value::<LiveProfile>(object).unwrap())
    }

    #[test]
    fn what_a_newer_release_says_is_said_and_stops_nothing() {
        let newer = json!({"metadata": {"name": "gold"}, "spec": {"scaleUp": {"select": "Average"}}, "status": {"modelServings": 3}});
        let digest = digest(newer);
        assert!(digest.settings.unwrap_err().contains("unknown variant `Average`"));
        assert_eq!(digest.status.model_servings, 3);
    }

    #[test]
    fn what_is_no_profile_is_said() {
        for spec in [json!(null), json!(3), json!([]), json!({"signals": {}})] {
            assert!(
                digest(json!({"metadata": {"name": "odd"}, "spec": spec, "status": 3})).settings.is_err(),
                "{spec}"
            );
        }
        assert_eq!(
            digest(json!({"metadata": {"name": "default"}, "spec": {}})).settings,
            Ok(Profile::built_in())
        );
    }
}
