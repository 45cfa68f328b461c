//! AutoscalingProfiles, parsed once when they change.

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

/// An AutoscalingProfile as the API server sends it, including values that only a newer CRD accepts.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = AutoscalingProfile, crates(kube_core = "::kube_core"))]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveProfile {
    /// Name and identity.
    pub metadata: ObjectMeta,
    /// Spec, or the error of a spec that this release cannot decode.
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
            spec: spec
                .map_err(|error| format!("this release of kthena-keda does not understand it: {error}")),
            status: wire.status.0.unwrap_or_default(),
        }
    }
}

/// Digest of a profile.
#[derive(Clone, Debug)]
pub struct ProfileDigest {
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Resource version, the precondition of a status write.
    pub resource_version: Option<String>,
    /// Settings, or all errors.
    pub settings: Result<Profile, String>,
    /// Status as last written.
    pub status: AutoscalingProfileStatus,
}

impl PartialEq for ProfileDigest {
    /// Ignores the status: a change of it requeues no model.
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
    fn reports_values_of_a_newer_release() {
        let newer = json!({"metadata": {"name": "gold"}, "spec": {"scaleUp": {"select": "Average"}}, "status": {"modelServings": 3}});
        let digest = digest(newer);
        assert!(digest.settings.unwrap_err().contains("unknown variant `Average`"));
        assert_eq!(digest.status.model_servings, 3);
    }

    #[test]
    fn reports_malformed_specs() {
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
