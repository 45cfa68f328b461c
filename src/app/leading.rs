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

use super::wake::{Singletons, Wake};
use crate::{
    api::kthena::ModelServing,
    cluster::{
        capabilities::{self, Served},
        events,
    },
    controllers::{
        Context,
        model_serving::{self, Memory},
        profile, router_monitor, signals_check,
    },
    observed::{
        LiveBinding, LiveHpa, LiveModelRoute, LiveModelServer, LivePodMonitor, LivePolicy, LiveProfile, LiveScaledObject,
        LiveServiceMonitor, Stores,
    },
    process::{
        backoff::{Failures, Truce},
        digests::{Change, Scope},
        follow::follow,
        gate::{self, Gate},
    },
    prometheus::Asker,
    settings::RunSettings,
};

/// How long what was begun may take to finish once the process is told to end; Kubernetes kills it after 30 s.
const DRAIN: Duration = Duration::from_secs(7);

/// What there is to work with.
pub(super) struct Leading<F> {
    /// What every controller works with.
    pub(super) context: Context,
    /// Fills the store of ModelServings.
    pub(super) writer: Writer<ModelServing>,
    /// Tells what the cluster serves.
    pub(super) served: watch::Sender<Option<Served>>,
    /// Answers what is measured.
    pub(super) prometheus: Asker,
    /// What the process was told.
    pub(super) run_settings: RunSettings,
    /// Is done when the process is told to end.
    pub(super) stop: F,
}

impl<F: Future<Output = ()>> Leading<F> {
    /// Works until told to end and what was begun is finished.
    pub(super) async fn run(self) {
        let Self { context, writer, served: served_tx, prometheus, run_settings, stop } = self;
        let (client, stores, served) = (context.client.clone(), context.stores.clone(), context.served.clone());
        let rediscover = context.rediscover.clone();
        let (series_tx, series) = watch::channel(None);
        let gate = |is_open: fn(Served) -> bool| Gate::new(served.clone(), move |served: &Option<Served>| served.is_some_and(is_open));
        let (wake, woken) = mpsc::unbounded_channel();
        let singletons = Arc::new(Singletons::default());
        let wake = Wake { stores: stores.clone(), models: wake, singletons: singletons.clone(), gathered: Arc::default() };

        let (events, teller) = events::events(context.metrics.clone());
        let models = Arc::new(model_serving::Models {
            context: context.clone(),
            router: series.clone(),
            failures: Failures::default(),
            truce: Truce::default(),
            memory: Memory::default(),
            writes_conditions: run_settings.write_conditions,
            events,
        });
        let share = &run_settings.share;
        let model_servings = share.scopes().iter().map(namespaced(&client)).collect();
        let selector = share.selector.as_ref().map(ToString::to_string);
        let changes =
            gate::watch(model_servings, selector, gate(|served| served.model_servings), stores.model_servings.clone()).reflect(writer);
        // Behind the reflector, so that whoever is woken finds the change in the store. A list comes in pages, of which the store shows
        // nothing before the last: then all are looked at again.
        let (on_change, known) = (wake.clone(), models.clone());
        let mut listed = BTreeSet::new();
        let changes = changes.inspect(move |event| {
            let Ok(event) = event else { return };
            if let watcher::Event::Delete(gone) = event {
                known.forget(gone);
            }
            for change in on_change.stores.peers.take(event, &mut listed) {
                singletons.wake();
                singletons.checks.notify_one();
                on_change.peers(&change);
            }
            if matches!(event, watcher::Event::InitDone) {
                singletons.wake();
                known.listed();
                on_change.everything();
            }
        });
        let changes = changes.touched_objects();
        let woken = stream::unfold(woken, |mut woken| async { woken.recv().await.map(|object| (object, woken)) });
        let (stopping_tx, stopping) = watch::channel(false);

        let router = |_: Change| wake.singletons.router.notify_one();
        let census = |_: Change| wake.singletons.wake();
        let profile = |change: Change| {
            wake.singletons.wake();
            wake.singletons.checks.notify_one();
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
        let all_model_servings = follow(namespaced::<ModelServing>(&client), gate(|served| served.model_servings), &stores.census, census);
        let tasks: Vec<LocalBoxFuture<'_, ()>> = vec![
            model_serving::run(changes, woken, told(stopping), models).map(|()| tracing::info!("stopped")).boxed_local(),
            router_monitor::run(context.clone(), series_tx, &wake.singletons.router).boxed_local(),
            profile::run(context.clone(), &wake.singletons.profiles).boxed_local(),
            signals_check::run(context, series.clone(), prometheus, run_settings.check, &wake.singletons.checks, || wake.opted_in())
                .boxed_local(),
            teller.run(client.clone()).boxed_local(),
            capabilities::follow(client.clone(), run_settings.discovery, &rediscover, &served_tx).boxed_local(),
            follow(namespaced::<Service>(&client), gate(|_| true), &stores.services, router).boxed_local(),
            follow(namespaced::<LiveServiceMonitor>(&client), gate(|served| served.service_monitors), &stores.service_monitors, router)
                .boxed_local(),
            follow(namespaced::<LivePodMonitor>(&client), gate(|served| served.plan.pod_monitors), &stores.pod_monitors, pod_monitor)
                .boxed_local(),
            follow(namespaced::<LiveScaledObject>(&client), gate(|served| served.plan.keda.is_some()), &stores.scaled_objects, autoscaler)
                .boxed_local(),
            follow(namespaced::<LiveHpa>(&client), gate(|_| true), &stores.hpas, autoscaler).boxed_local(),
            follow(namespaced::<LivePolicy>(&client), gate(|served| served.policies.policies), &stores.policies, autoscaler).boxed_local(),
            follow(namespaced::<LiveBinding>(&client), gate(|served| served.policies.bindings), &stores.bindings, autoscaler).boxed_local(),
            follow(namespaced::<LiveModelRoute>(&client), gate(|served| served.network.routes), &stores.routes, model_routes).boxed_local(),
            follow(namespaced::<LiveModelServer>(&client), gate(|served| served.network.servers), &stores.servers, model_servers)
                .boxed_local(),
            follow(profiles, gate(|served| served.profiles), &stores.profiles, profile).boxed_local(),
            all_model_servings.boxed_local(),
            wake.run().boxed_local(),
            replan(served.clone(), series, &wake).boxed_local(),
            drain(stop, &stopping_tx, &stores).boxed_local(),
        ];
        // Each is polled when it is woken itself, and not whenever any of them is.
        let _ = tasks.into_iter().collect::<FuturesUnordered<_>>().next().await;
    }
}

/// Where a kind is watched: one namespace, or all of them.
fn namespaced<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client) -> impl Fn(&Scope) -> Api<K> + use<K> {
    let client = client.clone();
    move |scope| match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Plans everything again when the cluster serves something else, or the router's series are found elsewhere.
async fn replan<S, R>(mut served: watch::Receiver<S>, mut series: watch::Receiver<R>, wake: &Wake) {
    loop {
        let changed = tokio::select! {
            changed = served.changed() => changed,
            changed = series.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        wake.singletons.wake();
        wake.singletons.checks.notify_one();
        wake.everything();
    }
}

async fn told(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Ends a while after `stop` is done, whatever is still under way.
async fn drain(stop: impl Future<Output = ()>, stopping: &watch::Sender<bool>, stores: &Stores) {
    stop.await;
    stopping.send_replace(true);
    // A controller that has not seen its first list has begun nothing, and does not end by itself.
    if !stores.peers.is_complete() {
        tracing::info!("stopped");
        return;
    }
    sleep(DRAIN).await;
    tracing::warn!("stopped; something that was begun did not finish in time");
}
