//! ModelBoosters, of which only the metadata is read.

use std::borrow::Cow;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube_core::Resource;
use serde::{Deserialize, de::IgnoredAny};

use crate::api::{
    LenientDe,
    annotations::is_own,
    fields,
    kthena::{Inherited, ModelBooster},
    metadata::LeanMetadata,
};

/// Metadata of a ModelBooster as the API server sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "LenientDe<Wire>")]
pub struct LiveBooster {
    /// Name and identity.
    pub metadata: ObjectMeta,
    inherited: Inherited,
}

#[derive(Default)]
struct Wire {
    metadata: LeanMetadata<IgnoredAny>,
}

fields!(Wire { "metadata" => metadata });

impl From<LenientDe<Wire>> for LiveBooster {
    fn from(LenientDe(mut wire): LenientDe<Wire>) -> Self {
        let (kept, are_oversized) = wire.metadata.take_annotations();
        let annotations = kept.into_iter().filter(|(key, _)| is_own(key)).collect();
        Self { metadata: wire.metadata.into(), inherited: Inherited { annotations, are_oversized } }
    }
}

impl Resource for LiveBooster {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ModelBooster::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ModelBooster::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ModelBooster::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ModelBooster::plural(&())
    }

    /// The API server sends the metadata alone: a spec has the pod templates of all workers.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Digest of a ModelBooster: its identity and the operator's annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoosterDigest {
    /// UID, which the owner references of its ModelServings carry.
    pub uid: String,
    /// The operator's annotations.
    pub inherited: Inherited,
}

impl From<&LiveBooster> for BoosterDigest {
    fn from(live: &LiveBooster) -> Self {
        Self { uid: live.metadata.uid.clone().unwrap_or_default(), inherited: live.inherited.clone() }
    }
}
