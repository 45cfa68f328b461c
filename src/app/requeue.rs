//! Requeues after a change: the ModelServings and the cluster workers that depend on the changed object.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    cache::{Change, IndexKey},
    runtime::fair_queue::FairQueue,
    sources::{
        Caches, index_keys,
        kinds::{Requeues, WatchedKind},
    },
};
use kthena_keda_core::domain::{Key, key};

/// Time for which requeues of many models are collected. Changes come in bursts that affect the same models; at the start of the process
/// each kind requeues all of them.
const COLLECT: Duration = Duration::from_millis(100);

/// Notifies the workers that exist once for all models.
#[derive(Default)]
pub(super) struct ClusterWorkers {
    pub(super) router_monitor: Notify,
    pub(super) profiles: Notify,
    pub(super) signal_probe: Notify,
}

impl ClusterWorkers {
    /// Notifies the workers that write.
    pub(super) fn notify_writers(&self) {
        self.router_monitor.notify_one();
        self.profiles.notify_one();
    }

    /// Notifies every worker.
    pub(super) fn notify_all(&self) {
        self.notify_writers();
        self.signal_probe.notify_one();
    }
}

/// Requeues ModelServings and wakes cluster workers.
#[derive(Clone)]
pub(super) struct Requeuer {
    caches: Arc<Caches>,
    queue: Arc<FairQueue>,
    /// Changes of ModelBoosters, for the stream of ModelServings.
    boosters: mpsc::UnboundedSender<Change>,
    pub(super) workers: Arc<ClusterWorkers>,
    pending: Arc<PendingRequeues>,
}

/// Requeues that are being collected.
#[derive(Default)]
struct PendingRequeues {
    requeues: Mutex<Pending>,
    any: Notify,
}

/// Changes are kept as they are, and the models that they concern are found once for all of them: each search takes as long as there
/// are routes of a name, which a tenant may create by the thousand.
#[derive(Default)]
struct Pending {
    /// Every model, opted in or not.
    everything: bool,
    /// The opted-in models with any of these index keys.
    index_keys: BTreeSet<IndexKey>,
    /// Index keys of changed ModelServings.
    model_servings: BTreeSet<IndexKey>,
    /// Index keys of changed ModelRoutes.
    routes: BTreeSet<IndexKey>,
    /// Changed ModelServers.
    servers: BTreeSet<Key>,
}

impl Pending {
    /// Index keys of the models that the changes concern.
    fn index_keys(self, caches: &Caches) -> BTreeSet<IndexKey> {
        let Self { everything: _, mut index_keys, model_servings, routes, servers } = self;
        index_keys.extend(caches.shared_index_keys(&Vec::from_iter(model_servings)));
        index_keys.extend(caches.index_keys_of_routes(&Vec::from_iter(routes)));
        index_keys.extend(caches.index_keys_routed_to(&servers));
        index_keys
    }
}

impl Requeuer {
    /// A requeuer that adds ModelServings to `queue`, and changes of ModelBoosters to `boosters`.
    pub(super) fn new(
        caches: Arc<Caches>,
        queue: Arc<FairQueue>,
        boosters: mpsc::UnboundedSender<Change>,
    ) -> Self {
        Self { caches, queue, boosters, workers: Arc::default(), pending: Arc::default() }
    }

    /// Requeues what depends on an object of kind `K`.
    pub(super) fn requeue_dependents<K: WatchedKind>(&self, change: &Change) {
        // Every plan has waited for the list, also that of a model which is not opted in and may have objects to remove.
        if K::ROW.is_input_of_plans && matches!(change, Change::Resync) {
            self.requeue_all();
        }
        match K::ROW.requeues {
            Requeues::Targets => self.requeue_targets(change),
            Requeues::PolicyTargets => {
                self.requeue_targets(change);
                self.requeue_targets_of_bindings(change);
            }
            Requeues::TargetsAndRouterMonitor => {
                self.workers.router_monitor.notify_one();
                self.requeue_targets(change);
            }
            Requeues::RouterMonitor => self.workers.router_monitor.notify_one(),
            Requeues::ClusterWriters => self.workers.notify_writers(),
            Requeues::ProfileUsers => {
                self.workers.notify_all();
                self.requeue_profile_users(change);
            }
            Requeues::Controlled => {
                self.workers.notify_all();
                self.renew_controlled(change.clone());
            }
            Requeues::RouteUsers => self.requeue_route_users(change),
            Requeues::ModelServerUsers => self.requeue_model_server_users(change),
        }
    }

    /// Requeues the models that share a name or a ModelServer with a changed ModelServing, itself included.
    pub(super) fn requeue_related(&self, change: &Change) {
        match change {
            Change::Resync => self.requeue_opted_in(),
            Change::Object(_, index_keys) => {
                self.collect(|pending| pending.model_servings.extend(index_keys));
            }
        }
    }

    /// Has the ModelServings that a ModelBooster controls take its annotations.
    pub(super) fn renew_controlled(&self, change: Change) {
        // The receiver is gone only while the process ends.
        drop(self.boosters.send(change));
    }

    /// Requeues every opted-in model.
    pub(super) fn requeue_opted_in(&self) {
        self.collect_index_keys([index_keys::opted_in()]);
    }

    /// Requeues every model, opted in or not.
    pub(super) fn requeue_all(&self) {
        self.collect(|pending| pending.everything = true);
    }

    /// The models that the object scales or scaled, and the one for which an object of this name is generated.
    fn requeue_targets(&self, change: &Change) {
        match change {
            Change::Resync => self.requeue_all(),
            Change::Object((namespace, name), index_keys) => {
                let generated = index_keys::generated(namespace, name);
                let of_role = self.caches.model_of_role(namespace, name);
                for index_key in index_keys.iter().chain([&generated]).chain(&of_role) {
                    self.requeue_now(*index_key, |_| true);
                }
            }
        }
    }

    fn requeue_targets_of_bindings(&self, change: &Change) {
        if let Change::Object(_, index_keys) = change {
            for index_key in self.caches.index_keys_of_bindings(index_keys) {
                self.requeue_now(index_key, |_| true);
            }
        }
    }

    fn requeue_route_users(&self, change: &Change) {
        match change {
            Change::Resync => self.requeue_opted_in(),
            Change::Object(_, index_keys) => {
                self.collect(|pending| pending.routes.extend(index_keys));
            }
        }
    }

    fn requeue_model_server_users(&self, change: &Change) {
        match change {
            Change::Resync => self.requeue_opted_in(),
            Change::Object(key, index_keys) => {
                self.collect(|pending| {
                    pending.index_keys.extend(index_keys);
                    pending.servers.insert(key.clone());
                });
            }
        }
    }

    fn requeue_profile_users(&self, change: &Change) {
        match change {
            Change::Resync => self.requeue_opted_in(),
            Change::Object((_, name), _) => self.collect_index_keys([index_keys::profile(name)]),
        }
    }

    /// Queues the collected requeues, for the life of the process.
    pub(super) async fn run(&self) {
        loop {
            self.pending.any.notified().await;
            sleep(COLLECT).await;
            let pending = mem::take(&mut *self.pending.requeues.lock());
            if pending.everything {
                self.caches.model_servings.state().iter().for_each(|model| self.queue.push(key(&**model)));
                continue;
            }
            let is_opted_in =
                |key: &Key| self.caches.model_serving(key).is_some_and(|found| found.is_opted_in());
            for index_key in pending.index_keys(&self.caches) {
                self.requeue_now(index_key, is_opted_in);
            }
        }
    }

    fn collect_index_keys(&self, index_keys: impl IntoIterator<Item = IndexKey>) {
        self.collect(|pending| pending.index_keys.extend(index_keys));
    }

    fn collect(&self, add: impl FnOnce(&mut Pending)) {
        add(&mut self.pending.requeues.lock());
        self.pending.any.notify_one();
    }

    fn requeue_now(&self, index_key: IndexKey, filter: impl Fn(&Key) -> bool) {
        let keys = self.caches.model_digests.keys(index_key, usize::MAX, |key, _| filter(key));
        for key in keys {
            self.queue.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use kthena_keda_core::api::kthena::ModelServing;
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::settings::Shard;

    /// A tenant creates thousands of routes of one name: the models of the name are searched and requeued once.
    #[tokio::test(start_paused = true)]
    async fn a_burst_of_routes_requeues_the_models_of_their_name_once() {
        let (store, mut writer) = reflector::store::<ModelServing>();
        let shard =
            Shard { selector: None, namespaces: Vec::new(), cluster_duties: true, stand_in_image: None };
        let caches = Arc::new(Caches::of_shard(store, &shard, "kthena-system"));
        let metadata =
            json!({"namespace": "models", "name": "chat", "annotations": {"kthena.io/model-name": "llama"}});
        let event =
            Event::Apply(serde_json::from_value::<ModelServing>(json!({"metadata": metadata})).unwrap());
        writer.apply_watcher_event(&event);
        caches.model_digests.apply_event(&event, &mut BTreeSet::new());
        let queue = Arc::new(FairQueue::new(8));
        let requeuer = Requeuer::new(caches, queue.clone(), mpsc::unbounded_channel().0);
        for i in 0..5000 {
            let changed = ("tenant".to_owned(), format!("route-{i}"));
            requeuer.requeue_route_users(&Change::Object(changed, vec![index_keys::model_name("llama")]));
        }
        assert_eq!(requeuer.pending.requeues.lock().routes.len(), 1);
        tokio::select! {
            () = requeuer.run() => {}
            () = sleep(10 * COLLECT) => {}
        }
        let mut released = Box::pin(queue.released());
        assert_eq!(released.next().now_or_never().flatten(), Some(("models".to_owned(), "chat".to_owned())));
        assert_eq!(released.next().now_or_never(), None);
    }
}
