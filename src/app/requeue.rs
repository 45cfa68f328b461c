//! Who has to be looked at again when something changed.

use parking_lot::Mutex;
use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    cache::{Change, IndexKey},
    sources::{Caches, index_keys},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::{Key, key},
};

/// How long what concerns many models is gathered: it comes in crowds, and each of a crowd may concern the same models. At a start it is all of
/// them, once for each kind.
const GATHER: Duration = Duration::from_millis(100);

/// What there is once for all models, and is looked at again when something that it depends on changes.
#[derive(Default)]
pub(super) struct ClusterWorkers {
    pub(super) router: Notify,
    pub(super) profiles: Notify,
    pub(super) probe_cache: Notify,
}

impl ClusterWorkers {
    pub(super) fn wake(&self) {
        self.router.notify_one();
        self.profiles.notify_one();
    }
}

/// Has objects looked at again.
#[derive(Clone)]
pub(super) struct ReconcileTriggers {
    pub(super) caches: Arc<Caches>,
    pub(super) models: mpsc::UnboundedSender<ObjectRef<ModelServing>>,
    pub(super) singletons: Arc<ClusterWorkers>,
    pub(super) gathered: Arc<PendingRequeues>,
}

/// What changed that many models may have in common.
#[derive(Default)]
pub(super) struct PendingRequeues {
    concerned: Mutex<Pending>,
    any: Notify,
}

#[derive(Default)]
struct Pending {
    /// Every model, opted in or not.
    all: bool,
    /// Those that ask for autoscaling and speak of one of these.
    about: BTreeSet<IndexKey>,
}

impl ReconcileTriggers {
    /// The models that an object of this name is generated for, whoever's it is, and those that it speaks of or spoke of.
    pub(super) fn concerned(&self, change: &Change) {
        match change {
            Change::Resync => self.everything(),
            Change::Object((namespace, name), topics) => {
                let named = index_keys::generated(namespace, name);
                topics.iter().chain([&named]).for_each(|topic| self.about(*topic, |_| true));
            }
        }
    }

    /// The models that have or had something in common with a ModelServing that changed; itself is among them.
    pub(super) fn model_digests(&self, change: &Change) {
        match change {
            Change::Resync => self.opted_in(),
            Change::Object(_, topics) => self.gather(self.caches.shared_by(topics)),
        }
    }

    /// The models whose names a ModelRoute carries or carried.
    pub(super) fn routed(&self, change: &Change) {
        match change {
            Change::Resync => self.opted_in(),
            Change::Object(_, topics) => {
                self.gather(topics.iter().copied().filter(|topic| topic.is_of(index_keys::MODEL_NAME)))
            }
        }
    }

    /// The models that a ModelServer selects or selected, and those whose names are led to it.
    pub(super) fn served(&self, change: &Change) {
        match change {
            Change::Resync => self.opted_in(),
            Change::Object(key, topics) => self.gather(topics.iter().copied().chain(self.caches.led_to(key))),
        }
    }

    /// Every model that asks for autoscaling.
    pub(super) fn opted_in(&self) {
        self.gather([index_keys::opted_in()]);
    }

    /// The models that use a profile.
    pub(super) fn users(&self, change: &Change) {
        match change {
            Change::Resync => self.opted_in(),
            Change::Object((_, name), _) => self.gather([index_keys::profile(name)]),
        }
    }

    /// Every model, opted in or not.
    pub(super) fn everything(&self) {
        self.concerned_later(|concerned| concerned.all = true);
    }

    /// Runs for life: has those looked at that what was gathered concerns.
    pub(super) async fn run(&self) {
        loop {
            self.gathered.any.notified().await;
            sleep(GATHER).await;
            let Pending { all, about } = mem::take(&mut *self.gathered.concerned.lock());
            if all {
                self.caches.model_servings.state().iter().for_each(|object| self.wake(&key(&**object)));
                continue;
            }
            let is_opted_in =
                |key: &Key| self.caches.model_serving(key).is_some_and(|found| found.is_opted_in());
            for topic in about {
                self.about(topic, is_opted_in);
            }
        }
    }

    fn gather(&self, topics: impl IntoIterator<Item = IndexKey>) {
        self.concerned_later(|concerned| concerned.about.extend(topics));
    }

    fn concerned_later(&self, add: impl FnOnce(&mut Pending)) {
        add(&mut self.gathered.concerned.lock());
        self.gathered.any.notify_one();
    }

    fn about(&self, topic: IndexKey, counts: impl Fn(&Key) -> bool) {
        self.caches
            .model_digests
            .keys(topic, usize::MAX, |key, _| counts(key))
            .iter()
            .for_each(|key| self.wake(key));
    }

    fn wake(&self, (namespace, name): &Key) {
        // Nobody listens any more only when the process is ending.
        drop(self.models.send(ObjectRef::new(name).within(namespace)));
    }
}
