//! Digests of ModelServings, by which other models and cluster workers find them.

use std::sync::Arc;

use super::index_keys;
use crate::cache::{Digest, IndexKey};
use kthena_keda_core::{
    api::kthena::{ModelServing, Role},
    domain::{Key, names},
};

/// The opt-in of a ModelServing, of this instance or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptIn {
    /// The profile that it uses, if it is opted in.
    profile: Option<String>,
    is_deleting: bool,
}

impl From<&ModelServing> for OptIn {
    fn from(found: &ModelServing) -> Self {
        Self {
            profile: found.is_opted_in().then(|| found.profile().to_owned()),
            is_deleting: found.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Digest for OptIn {
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        let is_opted_in = self.profile.is_some() && !self.is_deleting;
        self.profile
            .iter()
            .map(|profile| index_keys::profile(profile))
            .chain(is_opted_in.then(index_keys::opted_in))
            .collect()
    }
}

/// Index keys of a ModelServing: its opt-in, the names that it claims, and the labels of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelServingDigest {
    opt_in: OptIn,
    names: Box<[String]>,
    roles: Arc<[Role]>,
}

impl ModelServingDigest {
    pub(super) fn is_deleting(&self) -> bool {
        self.opt_in.is_deleting
    }
}

impl Digest for ModelServingDigest {
    fn index_keys(&self, key: &Key) -> Vec<IndexKey> {
        let (namespace, name) = key;
        let generated = names::generated(name).map(|name| index_keys::generated(namespace, &name));
        let names = self.names.iter().map(|name| index_keys::model_name(name));
        self.opt_in
            .index_keys(key)
            .into_iter()
            .chain(generated)
            .chain(names)
            .chain(selecting(namespace, name, &self.roles))
            .collect()
    }
}

/// Index keys of the ModelServers that may select a ModelServing.
pub(super) fn selecting(namespace: &str, name: &str, roles: &[Role]) -> Vec<IndexKey> {
    let labels = roles
        .iter()
        .flat_map(|role| &role.labels)
        .map(|(key, value)| index_keys::label(namespace, key, value));
    labels.chain([index_keys::model_serving(namespace, name), index_keys::namespace(namespace)]).collect()
}

impl From<&ModelServing> for ModelServingDigest {
    fn from(found: &ModelServing) -> Self {
        Self {
            opt_in: OptIn::from(found),
            names: found.model_names().map(str::to_owned).collect(),
            roles: found.spec.template.roles.clone(),
        }
    }
}
