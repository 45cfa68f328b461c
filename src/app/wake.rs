//! Who has to be looked at again when something changed.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    api::kthena::ModelServing,
    observed::{Stores, topics},
    process::{
        digests::{Change, Key, key},
        index::Topic,
    },
};

/// How long what concerns many models is gathered: it comes in crowds, and each of a crowd may concern the same models. At a start it is all of
/// them, once for each kind.
const GATHER: Duration = Duration::from_millis(100);

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
    pub(super) gathered: Arc<Gathered>,
}

/// What changed that many models may have in common.
#[derive(Default)]
pub(super) struct Gathered {
    concerned: Mutex<Concerned>,
    any: Notify,
}

#[derive(Default)]
struct Concerned {
    /// Every model, opted in or not.
    all: bool,
    /// Those that ask for autoscaling and speak of one of these.
    about: BTreeSet<Topic>,
}

impl Wake {
    /// The models that an object of this name is generated for, whoever's it is, and those that it speaks of or spoke of.
    pub(super) fn concerned(&self, change: &Change) {
        match change {
            Change::All => self.everything(),
            Change::One((namespace, name), topics) => {
                let named = topics::generated(namespace, name);
                topics.iter().chain([&named]).for_each(|topic| self.about(*topic, |_| true));
            }
        }
    }

    /// The models that have or had something in common with a ModelServing that changed; itself is among them.
    pub(super) fn peers(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One(_, topics) => self.gather(self.stores.shared_by(topics)),
        }
    }

    /// The models whose names a ModelRoute carries or carried.
    pub(super) fn routed(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One(_, topics) => self.gather(topics.iter().copied().filter(|topic| topic.is_of(topics::MODEL_NAME))),
        }
    }

    /// The models that a ModelServer selects or selected, and those whose names are led to it.
    pub(super) fn served(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One(key, topics) => self.gather(topics.iter().copied().chain(self.stores.led_to(key))),
        }
    }

    /// Every model that asks for autoscaling.
    pub(super) fn opted_in(&self) {
        self.gather([topics::opted_in()]);
    }

    /// The models that use a profile.
    pub(super) fn users(&self, change: &Change) {
        match change {
            Change::All => self.opted_in(),
            Change::One((_, name), _) => self.gather([topics::profile(name)]),
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
            let Concerned { all, about } = mem::take(&mut *self.gathered.concerned.lock().unwrap_or_else(PoisonError::into_inner));
            if all {
                self.stores.model_servings.state().iter().for_each(|object| self.wake(&key(&**object)));
                continue;
            }
            let is_opted_in = |key: &Key| self.stores.model_serving(key).is_some_and(|found| found.is_opted_in());
            for topic in about {
                self.about(topic, is_opted_in);
            }
        }
    }

    fn gather(&self, topics: impl IntoIterator<Item = Topic>) {
        self.concerned_later(|concerned| concerned.about.extend(topics));
    }

    fn concerned_later(&self, add: impl FnOnce(&mut Concerned)) {
        add(&mut self.gathered.concerned.lock().unwrap_or_else(PoisonError::into_inner));
        self.gathered.any.notify_one();
    }

    fn about(&self, topic: Topic, counts: impl Fn(&Key) -> bool) {
        self.stores.peers.first(topic, usize::MAX, |key, _| counts(key)).iter().for_each(|key| self.wake(key));
    }

    fn wake(&self, (namespace, name): &Key) {
        // Nobody listens any more only when the process is ending.
        drop(self.models.send(ObjectRef::new(name).within(namespace)));
    }
}
