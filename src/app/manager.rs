//! The work of the leader: every watch and every controller, joined.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::{self, LocalBoxFuture},
    stream::{self, FuturesUnordered},
};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt as _, reflector::store::Writer, watcher};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::requeue::Requeuer;
use crate::{
    cache::Change,
    cluster::{
        discovery::{self, ServedApis},
        events,
    },
    controllers::{
        Context, keda_silence, measurements,
        model_serving::{self, History, ModelServingContext},
        profile,
        router_monitor::{self, RouterMonitor},
        shadow, signal_probe,
    },
    prometheus::Querier,
    runtime::{
        backoff::{FailureCounts, OverloadPause},
        fair_queue::FairQueue,
    },
    settings::{RunSettings, Shard},
    sources::{
        Caches,
        kinds::{KindVisitor, WatchScope, WatchedKind, optional_apis, visit_all},
    },
    watch::{Gate, Withdrawal, reflect, watch},
};
use kthena_keda_core::{api::kthena::ModelServing, observed::LiveScaledObject};

/// Time for reconciles in flight to finish after the stop signal; with the chart Kubernetes kills the process after 15 s.
const DRAIN: Duration = Duration::from_secs(7);

/// A task of the leader. If one returns, the process exits.
type Task<'a> = LocalBoxFuture<'a, ()>;

/// Dependencies of the leader's work.
pub(super) struct Manager<F> {
    /// Dependencies that all controllers share.
    pub(super) context: Context,
    /// Fills the store of ModelServings.
    pub(super) writer: Writer<ModelServing>,
    /// Receives what discovery finds.
    pub(super) served: watch::Sender<Option<ServedApis>>,
    /// Queries Prometheus for the signal probe.
    pub(super) prometheus: Querier,
    /// Settings of the process.
    pub(super) run_settings: RunSettings,
    /// Completes when the process is asked to stop.
    pub(super) stop: F,
}

impl<F: Future<Output = ()>> Manager<F> {
    /// Runs until `stop` completes and the reconciles in flight are finished.
    pub(super) async fn run(self) {
        let Self { context, writer, served, prometheus, run_settings, stop } = self;
        let (client, caches) = (context.client.clone(), context.caches.clone());
        let queue = Arc::new(FairQueue::new(model_serving::CONCURRENCY));
        let (boosters, changed_boosters) = mpsc::unbounded_channel();
        let requeuer = Requeuer::new(caches.clone(), queue.clone(), boosters);
        let (router_sender, router) = watch::channel(None);
        let (stopping_sender, stopping) = watch::channel(false);
        let (events, publisher) = events::events(context.metrics.clone());
        let models = Arc::new(ModelServingContext {
            shared: context.clone(),
            router: router.clone(),
            failures: FailureCounts::default(),
            overload: OverloadPause::default(),
            history: History::default(),
            writes_conditions: run_settings.write_conditions,
            events,
            queue: queue.clone(),
        });
        let router_monitor = RouterMonitor {
            router: router_sender,
            prometheus: prometheus.clone(),
            check_interval: run_settings.probe_interval,
        };
        let changes = model_serving_changes(
            &run_settings.shard,
            writer,
            models.clone(),
            requeuer.clone(),
            received(changed_boosters),
        );
        let rediscover = context.rediscover.clone();
        let workers = &requeuer.workers;

        let mut tasks: Vec<Task<'_>> = vec![
            model_serving::run(stop_requested(stopping), models)
                .map(|()| tracing::info!("stopped"))
                .boxed_local(),
            model_serving::queue_changes(changes, queue.clone()).boxed_local(),
            router_monitor::run(context.clone(), router_monitor, &workers.router_monitor).boxed_local(),
            profile::run(context.clone(), &workers.profiles).boxed_local(),
            signal_probe::run(
                context.clone(),
                router.clone(),
                prometheus.clone(),
                run_settings.probe_interval,
                &workers.signal_probe,
                || requeuer.requeue_opted_in(),
            )
            .boxed_local(),
            measurements::run(
                context.clone(),
                router.clone(),
                prometheus.clone(),
                run_settings.probe_interval,
                |key| queue.push(key),
            )
            .boxed_local(),
            shadow::run(context.clone(), router.clone(), prometheus, run_settings.shadow, |key| {
                queue.push(key);
            })
            .boxed_local(),
            publisher.run(client.clone()).boxed_local(),
            discovery::rediscover(client, optional_apis(), run_settings.discovery, &rediscover, &served)
                .boxed_local(),
            keda_silence::run(&caches, |change| {
                requeuer.requeue_dependents::<LiveScaledObject>(change);
            })
            .boxed_local(),
            requeuer.run().boxed_local(),
            requeue_on_discovery(context.served.clone(), router, &requeuer).boxed_local(),
            drain(stop, &stopping_sender, &caches).boxed_local(),
        ];
        let mut reflectors = Reflectors { context: &context, requeuer: &requeuer, tasks: Vec::new() };
        visit_all(&mut reflectors);
        tasks.extend(reflectors.tasks);
        // Each task is polled when it is woken itself, and not whenever any of them is.
        let _ = tasks.into_iter().collect::<FuturesUnordered<_>>().next().await;
    }
}

/// Starts a reflector for every kind of the table.
struct Reflectors<'a> {
    context: &'a Context,
    requeuer: &'a Requeuer,
    tasks: Vec<Task<'a>>,
}

impl KindVisitor for Reflectors<'_> {
    fn visit<K: WatchedKind>(&mut self) {
        let (context, requeuer) = (self.context, self.requeuer);
        let api = |scope: &_| K::Scope::api(&context.client, scope);
        let store = K::store(&context.caches.stores);
        let withdrawal = if K::ROW.outlives_its_api { Withdrawal::Keep } else { Withdrawal::Forget };
        self.tasks.push(
            reflect(api, K::ROW.label, gate::<K>(context), store, withdrawal, &context.metrics, |change| {
                requeuer.requeue_dependents::<K>(&change);
            })
            .boxed_local(),
        );
    }
}

/// A gate that is open while the cluster serves `K`.
fn gate<K: WatchedKind>(context: &Context) -> Gate<Option<ServedApis>> {
    Gate::new(context.served.clone(), |served: &Option<ServedApis>| served.as_ref().is_some_and(K::is_served))
}

/// Changes of this instance's ModelServings, after the reflector and the digests have taken them.
///
/// A list comes in pages, of which the store shows none before the last; then everything is requeued.
fn model_serving_changes<B>(
    shard: &Shard,
    writer: Writer<ModelServing>,
    models: Arc<ModelServingContext>,
    requeuer: Requeuer,
    boosters: B,
) -> impl Stream<Item = Result<ModelServing, watcher::Error>> + Send + use<B>
where
    B: Stream<Item = Change> + Send + 'static,
{
    let context = &models.shared;
    let apis =
        shard.scopes().iter().map(|scope| NamespaceResourceScope::api(&context.client, scope)).collect();
    let selector = shard.selector.as_ref().map(ToString::to_string);
    let store = context.caches.model_servings.clone();
    let mut listed = BTreeSet::new();
    let watched = watch(apis, selector, gate::<ModelServing>(context), store, context.metrics.clone());
    inheriting(watched, boosters, context.clone())
        .reflect(writer)
        .inspect(move |event| {
            let Ok(event) = event else { return };
            match event {
                watcher::Event::Delete(gone) => models.forget(gone),
                // Here and not in the reconcile, which sees only the last of several changes.
                watcher::Event::Apply(changed) | watcher::Event::InitApply(changed) => {
                    models.shared.caches.loading_times.record(changed);
                }
                watcher::Event::Init | watcher::Event::InitDone => {}
            }
            for change in models.shared.caches.model_digests.apply_event(event, &mut listed) {
                requeuer.workers.notify_all();
                requeuer.requeue_related(&change);
            }
            if matches!(event, watcher::Event::InitDone) {
                requeuer.workers.notify_writers();
                models.retain_listed();
                // A ModelBooster may have changed since the first page of the list.
                requeuer.renew_controlled(Change::Resync);
                requeuer.requeue_all();
            }
        })
        .touched_objects()
}

/// An event of the watch of ModelServings.
type ModelServingEvent = Result<watcher::Event<ModelServing>, watcher::Error>;

/// The events of the watch with the annotations of ModelBoosters, and an event for each ModelServing whose ModelBooster has changed.
///
/// Both are one stream before the reflector, so that the store, the digests and every reader of them see the same annotations. The
/// stream ends with the watch.
fn inheriting(
    watched: impl Stream<Item = ModelServingEvent> + Send,
    boosters: impl Stream<Item = Change> + Send,
    context: Context,
) -> impl Stream<Item = ModelServingEvent> + Send {
    let by_watch = context.clone();
    let watched = watched.map(move |event| Some(vec![inherit(&by_watch, event)]));
    let watched = watched.chain(stream::once(future::ready(None)));
    let renewed = boosters.map(move |change| {
        let inheritors = context.caches.inheritors(&change);
        Some(inheritors.into_iter().map(|object| Ok(watcher::Event::Apply(object))).collect())
    });
    stream::select(watched, renewed)
        .take_while(|events| future::ready(events.is_some()))
        .flat_map(|events| stream::iter(events.unwrap_or_default()))
}

fn inherit(context: &Context, mut event: ModelServingEvent) -> ModelServingEvent {
    if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = &mut event {
        context.caches.inherit(object);
        object.drop_unread_text();
    }
    event
}

fn received<T>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

/// Requeues everything when the cluster serves other APIs, or the location of the router's series changes.
async fn requeue_on_discovery<S, R>(
    mut served: watch::Receiver<S>,
    mut series: watch::Receiver<R>,
    requeuer: &Requeuer,
) {
    loop {
        let changed = tokio::select! {
            changed = served.changed() => changed,
            changed = series.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        requeuer.workers.notify_all();
        requeuer.requeue_all();
    }
}

async fn stop_requested(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Ends some time after `stop`, whether or not the reconciles in flight have finished.
async fn drain(stop: impl Future<Output = ()>, stopping: &watch::Sender<bool>, caches: &Caches) {
    stop.await;
    stopping.send_replace(true);
    // A controller whose first list is not complete has no reconcile in flight, and does not end by itself.
    if !caches.model_digests.has_synced() {
        tracing::info!("stopped");
        return;
    }
    sleep(DRAIN).await;
    tracing::warn!(timeout = ?DRAIN, "stopped before every reconcile in flight finished");
}
