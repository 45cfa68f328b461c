//! Who has to be looked at again when something changed.

use std::sync::Arc;

use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::sync::{Notify, mpsc};

use crate::{
    api::kthena::ModelServing,
    observed::Stores,
    plan::{pod_monitor_name, scaled_object_name},
    process::digests::Change,
};

/// What there is once for all models, and is looked at again when something that it depends on changes.
#[derive(Default)]
pub(super) struct Singletons {
    pub(super) router: Notify,
    pub(super) profiles: Notify,
    pub(super) checks: Notify,
}

impl Singletons {
    pub(super) fn wake(&self) {
        self.router.notify_one();
        self.profiles.notify_one();
    }
}

/// Has objects looked at again.
#[derive(Clone)]
pub(super) struct Wake {
    pub(super) stores: Arc<Stores>,
    pub(super) models: mpsc::UnboundedSender<ObjectRef<ModelServing>>,
    pub(super) singletons: Arc<Singletons>,
}

impl Wake {
    /// The models of which something that is generated changed.
    pub(super) fn models(&self, change: &Change) {
        let is_named = |object: &ModelServing, name: &String| scaled_object_name(object) == *name || pod_monitor_name(object) == *name;
        self.those(|object| match change {
            Change::All => true,
            Change::One((namespace, name)) => object.namespace().as_ref() == Some(namespace) && is_named(object, name),
        });
    }

    /// The models that a ScaledObject or HPA scales or scaled, whoever's it is.
    pub(super) fn scaled(&self, change: &Change) {
        self.those(|object| match change {
            Change::All => true,
            Change::One(key) => self.stores.is_scaled_by(object, key),
        });
    }

    /// The models that a change of a ModelServing concerns, itself aside.
    pub(super) fn peers(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One(key) => self.those(|object| object.is_opted_in() && self.stores.are_related(object, key)),
        }
    }

    /// Every model: who serves whose names may have changed.
    pub(super) fn opted_in(&self) {
        self.those(ModelServing::is_opted_in);
    }

    /// The models that use a profile.
    pub(super) fn users(&self, change: &Change) {
        self.those(|object| match change {
            Change::All => true,
            Change::One((_, name)) => object.profile() == *name,
        });
    }

    fn those(&self, concerned: impl Fn(&ModelServing) -> bool) {
        // Nobody listens any more only when the process is ending.
        self.stores.model_servings.state_filter(concerned).iter().for_each(|object| drop(self.models.send(ObjectRef::from_obj(&**object))));
    }
}
