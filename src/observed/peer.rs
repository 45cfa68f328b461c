//! What of a ModelServing matters to others.

use std::sync::Arc;

use super::topics;
use crate::{
    api::kthena::{ModelServing, Role},
    plan::generated_names,
    process::{
        digests::Key,
        index::{Digest, Topic},
    },
};

/// What a ModelServing asks for, of whichever instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The profile that it uses, if it is opted in.
    profile: Option<String>,
    is_leaving: bool,
}

impl From<&ModelServing> for Wish {
    fn from(found: &ModelServing) -> Self {
        Self { profile: found.is_opted_in().then(|| found.profile().to_owned()), is_leaving: found.metadata.deletion_timestamp.is_some() }
    }
}

impl Digest for Wish {
    fn topics(&self, _: &Key) -> Vec<Topic> {
        let counts = self.profile.is_some() && !self.is_leaving;
        self.profile.iter().map(|profile| topics::profile(profile)).chain(counts.then(topics::opted_in)).collect()
    }
}

/// What of a ModelServing matters to other ones and to what there is once for all: what it asks for, the names that it claims, and the
/// labels of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    wish: Wish,
    names: Box<[String]>,
    roles: Arc<[Role]>,
}

impl Peer {
    pub(super) fn stays(&self) -> bool {
        !self.wish.is_leaving
    }
}

impl Digest for Peer {
    fn topics(&self, key: &Key) -> Vec<Topic> {
        let (namespace, name) = key;
        let generated = generated_names(name).map(|name| topics::generated(namespace, &name));
        let names = self.names.iter().map(|name| topics::model_name(name));
        self.wish.topics(key).into_iter().chain(generated).chain(names).chain(selecting(namespace, name, &self.roles)).collect()
    }
}

/// What ModelServers speak of that may select a ModelServing.
pub(super) fn selecting(namespace: &str, name: &str, roles: &[Role]) -> Vec<Topic> {
    let labels = roles.iter().flat_map(|role| &role.labels).map(|(key, value)| topics::label(namespace, key, value));
    labels.chain([topics::model_serving(namespace, name), topics::namespace(namespace)]).collect()
}

impl From<&ModelServing> for Peer {
    fn from(found: &ModelServing) -> Self {
        Self { wish: Wish::from(found), names: found.model_names().map(str::to_owned).collect(), roles: found.spec.template.roles.clone() }
    }
}
