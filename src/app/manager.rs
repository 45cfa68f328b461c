//! What the process does while it is its turn: every watch and every controller, joined.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _,
    future::LocalBoxFuture,
    stream::{self, FuturesUnordered},
};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Service};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, reflector::store::Writer, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::requeue::{ClusterWorkers, ReconcileTriggers};
use crate::{
    cache::{Change, Scope},
    cluster::{
        discovery::{self, ServedApis},
        events,
    },
    controllers::{
        Context,
        model_serving::{self, History},
        profile, router_monitor, signal_probe,
    },
    prometheus::Querier,
    runtime::backoff::{FailureCounts, OverloadPause},
    settings::RunSettings,
    sources::Caches,
    watch::{Gate, reflect},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    observed::{
        LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy, LiveProfile,
        LiveScaledObject, LiveServiceMonitor,
    },
};

/// How long what was begun may take to finish once the process is told to end; Kubernetes kills it after 30 s.
const DRAIN: Duration = Duration::from_secs(7);

/// What there is to work with.
pub(super) struct Manager<F> {
    /// What every controller works with.
    pub(super) context: Context,
    /// Fills the store of ModelServings.
    pub(super) writer: Writer<ModelServing>,
    /// Tells what the cluster serves.
    pub(super) served: watch::Sender<Option<ServedApis>>,
    /// Answers what is measured.
    pub(super) prometheus: Querier,
    /// What the process was told.
    pub(super) run_settings: RunSettings,
    /// Is done when the process is told to end.
    pub(super) stop: F,
}

impl<F: Future<Output = ()>> Manager<F> {
    /// Works until told to end and what was begun is finished.
    pub(super) async fn run(self) {
        let Self { context, writer, served: served_tx, prometheus, run_settings, stop } = self;
        let (client, caches, served) =
            (context.client.clone(), context.caches.clone(), context.served.clone());
        let rediscover = context.rediscover.clone();
        let (series_tx, series) = watch::channel(None);
        let gate = |is_open: fn(ServedApis) -> bool| {
            Gate::new(served.clone(), move |served: &Option<ServedApis>| served.is_some_and(is_open))
        };
        let (wake, woken) = mpsc::unbounded_channel();
        let singletons = Arc::new(ClusterWorkers::default());
        let wake = ReconcileTriggers {
            caches: caches.clone(),
            models: wake,
            singletons: singletons.clone(),
            gathered: Arc::default(),
        };

        let (events, teller) = events::events(context.metrics.clone());
        let models = Arc::new(model_serving::ModelServingContext {
            context: context.clone(),
            router: series.clone(),
            failures: FailureCounts::default(),
            truce: OverloadPause::default(),
            memory: History::default(),
            writes_conditions: run_settings.write_conditions,
            events,
        });
        let shard = &run_settings.shard;
        let model_servings = shard.scopes().iter().map(namespaced(&client)).collect();
        let selector = shard.selector.as_ref().map(ToString::to_string);
        let changes = crate::watch::watch(
            model_servings,
            selector,
            gate(|served| served.model_servings),
            caches.model_servings.clone(),
        )
        .reflect(writer);
        // Behind the reflector, so that whoever is woken finds the change in the store. A list comes in pages, of which the store shows
        // nothing before the last: then all are looked at again.
        let (on_change, known) = (wake.clone(), models.clone());
        let mut listed = BTreeSet::new();
        let changes = changes.inspect(move |event| {
            let Ok(event) = event else { return };
            if let watcher::Event::Delete(gone) = event {
                known.forget(gone);
            }
            for change in on_change.caches.model_digests.apply_event(event, &mut listed) {
                singletons.wake();
                singletons.probe_cache.notify_one();
                on_change.model_digests(&change);
            }
            if matches!(event, watcher::Event::InitDone) {
                singletons.wake();
                known.listed();
                on_change.everything();
            }
        });
        let changes = changes.touched_objects();
        let woken =
            stream::unfold(woken, |mut woken| async { woken.recv().await.map(|object| (object, woken)) });
        let (stopping_tx, stopping) = watch::channel(false);

        let router = |_: Change| wake.singletons.router.notify_one();
        let cluster_opt_ins = |_: Change| wake.singletons.wake();
        let profile = |change: Change| {
            wake.singletons.wake();
            wake.singletons.probe_cache.notify_one();
            wake.users(&change);
        };
        let model_routes = |change: Change| wake.routed(&change);
        let model_servers = |change: Change| wake.served(&change);
        let autoscaler = |change: Change| wake.concerned(&change);
        let pod_monitor = |change: Change| {
            wake.singletons.router.notify_one();
            wake.concerned(&change);
        };
        let profiles = |_: &Scope| Api::<LiveProfile>::all(client.clone());
        let all_model_servings = reflect(
            namespaced::<ModelServing>(&client),
            gate(|served| served.model_servings),
            &caches.cluster_opt_ins,
            cluster_opt_ins,
        );
        let tasks: Vec<LocalBoxFuture<'_, ()>> = vec![
            model_serving::run(changes, woken, told(stopping), models)
                .map(|()| tracing::info!("stopped"))
                .boxed_local(),
            router_monitor::run(context.clone(), series_tx, &wake.singletons.router).boxed_local(),
            profile::run(context.clone(), &wake.singletons.profiles).boxed_local(),
            signal_probe::run(
                context,
                series.clone(),
                prometheus,
                run_settings.check,
                &wake.singletons.probe_cache,
                || wake.opted_in(),
            )
            .boxed_local(),
            teller.run(client.clone()).boxed_local(),
            discovery::rediscover(client.clone(), run_settings.discovery, &rediscover, &served_tx)
                .boxed_local(),
            reflect(namespaced::<Service>(&client), gate(|_| true), &caches.services, router).boxed_local(),
            reflect(
                namespaced::<LiveServiceMonitor>(&client),
                gate(|served| served.service_monitors),
                &caches.service_monitors,
                router,
            )
            .boxed_local(),
            reflect(
                namespaced::<LivePodMonitor>(&client),
                gate(|served| served.plan.pod_monitors),
                &caches.pod_monitors,
                pod_monitor,
            )
            .boxed_local(),
            reflect(
                namespaced::<LiveScaledObject>(&client),
                gate(|served| served.plan.keda.is_some()),
                &caches.scaled_objects,
                autoscaler,
            )
            .boxed_local(),
            reflect(namespaced::<LiveHpa>(&client), gate(|_| true), &caches.hpas, autoscaler).boxed_local(),
            reflect(
                namespaced::<LivePolicy>(&client),
                gate(|served| served.policies.policies),
                &caches.policies,
                autoscaler,
            )
            .boxed_local(),
            reflect(
                namespaced::<LiveBinding>(&client),
                gate(|served| served.policies.bindings),
                &caches.bindings,
                autoscaler,
            )
            .boxed_local(),
            reflect(
                namespaced::<LiveModelRoute>(&client),
                gate(|served| served.network.routes),
                &caches.routes,
                model_routes,
            )
            .boxed_local(),
            reflect(
                namespaced::<LiveModelServer>(&client),
                gate(|served| served.network.servers),
                &caches.servers,
                model_servers,
            )
            .boxed_local(),
            reflect(profiles, gate(|served| served.profiles), &caches.profiles, profile).boxed_local(),
            all_model_servings.boxed_local(),
            wake.run().boxed_local(),
            replan(served.clone(), series, &wake).boxed_local(),
            drain(stop, &stopping_tx, &caches).boxed_local(),
        ];
        // Each is polled when it is woken itself, and not whenever any of them is.
        let _ = tasks.into_iter().collect::<FuturesUnordered<_>>().next().await;
    }
}

/// Where a kind is watched: one namespace, or all of them.
fn namespaced<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
) -> impl Fn(&Scope) -> Api<K> + use<K> {
    let client = client.clone();
    move |scope| match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Plans everything again when the cluster serves something else, or the router's series are found elsewhere.
async fn replan<S, R>(
    mut served: watch::Receiver<S>,
    mut series: watch::Receiver<R>,
    wake: &ReconcileTriggers,
) {
    loop {
        let changed = tokio::select! {
            changed = served.changed() => changed,
            changed = series.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        wake.singletons.wake();
        wake.singletons.probe_cache.notify_one();
        wake.everything();
    }
}

async fn told(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Ends a while after `stop` is done, whatever is still under way.
async fn drain(stop: impl Future<Output = ()>, stopping: &watch::Sender<bool>, caches: &Caches) {
    stop.await;
    stopping.send_replace(true);
    // A controller that has not seen its first list has begun nothing, and does not end by itself.
    if !caches.model_digests.has_synced() {
        tracing::info!("stopped");
        return;
    }
    sleep(DRAIN).await;
    tracing::warn!("stopped; something that was begun did not finish in time");
}
