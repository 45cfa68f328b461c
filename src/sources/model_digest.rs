//! Digests of ModelServings, by which other models and cluster workers find them.

use std::sync::Arc;

use super::index_keys;
use crate::cache::{Digest, IndexKey};
use kthena_keda_core::{
    api::{
        annotations::{DEFAULT_PROFILE, MODEL_NAME, PROFILE},
        kthena::{Booster, Inherited, ModelServing, Role, Unread},
    },
    domain::{Key, names},
};

/// The opt-in of a ModelServing, of this instance or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptIn {
    /// The profile that it uses, if it is opted in as far as its annotations were read.
    profile: Option<String>,
    is_deleting: bool,
    /// A ModelBooster that controls it and was not read when the digest was made.
    unread: Option<Box<Unresolved>>,
}

/// The profile of a ModelServing if it is opted in, or the cause for which that is not known.
pub(super) type ResolvedProfile = Result<Option<String>, Unread>;

/// Parts that decide on the opt-in of a ModelServing while its ModelBooster is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unresolved {
    booster: Booster,
    has_model_name: bool,
    profile: Option<String>,
}

impl OptIn {
    /// The profile that a ModelServing of this digest uses, if it is opted in.
    ///
    /// # Errors
    /// If it has no annotation of its own, and its ModelBooster cannot be read now either.
    pub(super) fn resolve(
        &self,
        read: impl FnOnce(&Booster) -> Result<Inherited, Unread>,
    ) -> ResolvedProfile {
        let Some(unresolved) = &self.unread else { return Ok(self.profile.clone()) };
        let inherited = match read(&unresolved.booster) {
            Ok(inherited) => inherited,
            Err(_) if unresolved.has_model_name => return Ok(self.profile.clone()),
            Err(cause) => return Err(cause),
        };
        let is_opted_in = unresolved.has_model_name || inherited.get(MODEL_NAME).is_some();
        let profile = unresolved.profile.clone();
        let profile = profile.or_else(|| inherited.get(PROFILE).map(str::to_owned));
        Ok(is_opted_in.then(|| profile.unwrap_or_else(|| DEFAULT_PROFILE.to_owned())))
    }

    pub(super) const fn is_deleting(&self) -> bool {
        self.is_deleting
    }
}

impl From<&ModelServing> for OptIn {
    fn from(found: &ModelServing) -> Self {
        let own =
            |key: &str| found.annotations.iter().find(|(of, _)| of == key).map(|(_, value)| value.clone());
        let unread = found.booster.as_deref().filter(|booster| booster.annotations.is_err());
        Self {
            profile: found.is_opted_in().then(|| found.profile().to_owned()),
            is_deleting: found.metadata.deletion_timestamp.is_some(),
            unread: unread.map(|booster| {
                Box::new(Unresolved {
                    booster: booster.clone(),
                    has_model_name: found.has_own_model_name(),
                    profile: own(PROFILE),
                })
            }),
        }
    }
}

impl Digest for OptIn {
    fn index_keys(&self, _: &Key) -> Vec<IndexKey> {
        let is_opted_in = self.profile.is_some() && !self.is_deleting;
        let profile = self.profile.iter().filter(|_| self.unread.is_none());
        let unread = self.unread.iter().map(|_| index_keys::unread_booster());
        profile
            .map(|profile| index_keys::profile(profile))
            .chain(is_opted_in.then(index_keys::opted_in))
            .chain(unread)
            .collect()
    }
}

/// Index keys of a ModelServing: its opt-in, the names that it claims, and the labels of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelServingDigest {
    pub(super) opt_in: OptIn,
    names: Box<[String]>,
    roles: Arc<[Role]>,
    /// Name of the ModelBooster that controls it.
    booster: Option<Box<str>>,
    is_in_shadow: bool,
}

impl ModelServingDigest {
    pub(super) fn is_deleting(&self) -> bool {
        self.opt_in.is_deleting()
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
            .chain(
                self.booster
                    .iter()
                    .flat_map(|booster| [index_keys::booster(namespace, booster), index_keys::boosted()]),
            )
            .chain((self.is_in_shadow && !self.is_deleting()).then(index_keys::in_shadow))
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
            booster: found.booster.as_deref().map(|booster| booster.name.as_str().into()),
            is_in_shadow: found.is_in_shadow(),
        }
    }
}
