//! The controller of ModelServings: it owns their ScaledObjects and PodMonitors, their label selector and our condition on them.
//!
//! [`reconcile`] is the place to start.

mod apply;
mod condition_history;
mod history;
mod reconcile;
mod report;
mod roles;
mod stand_in;
mod status;

use std::{future, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use kube::{
    ResourceExt as _,
    runtime::{
        controller::{Action, Config, Controller, Error as ControllerError},
        reflector::ObjectRef,
        watcher,
    },
};
use tokio::{sync::watch, time::Instant};

use super::Context;
use crate::{
    cluster::{Class, Error, events::Events},
    runtime::{
        backoff::{self, FailureCounts, OverloadPause},
        fair_queue::FairQueue,
    },
};
pub use history::History;
use kthena_keda_core::{api::kthena::ModelServing, domain::key, observed::LocatedRouter};

/// ModelServings that are reconciled at a time.
pub const CONCURRENCY: u16 = 8;

/// Reconciles and retries that kube may have at a time. At its limit kube serves requests in no order, so it is far above [`CONCURRENCY`]:
/// a retry ends at once, in the queue.
const KUBE_CONCURRENCY: u16 = 256;

/// Time for which the first reconciles wait for the first signal probe, whose results would lead to a second one of each model.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Location of the router's series, and problems of its scraping; `None` before they are known.
pub type RouterReceiver = watch::Receiver<Option<LocatedRouter>>;

/// Dependencies and state of the controller.
pub struct ModelServingContext {
    /// Dependencies that all controllers share.
    pub shared: Context,
    /// Location of the router's series.
    pub router: RouterReceiver,
    /// Failures in a row, by uid.
    pub failures: FailureCounts,
    /// While it lasts no model is reconciled, since the API server is overloaded.
    pub overload: OverloadPause,
    /// History of each model.
    pub history: History,
    /// Write the condition.
    pub writes_conditions: bool,
    /// Publishes events.
    pub events: Events,
    /// Requests to reconcile; every reconcile waits here for its turn.
    pub queue: Arc<FairQueue>,
}

impl ModelServingContext {
    /// Drops the state of every model that a new list lacks.
    pub fn retain_listed(&self) {
        let listed = self.shared.caches.model_servings.state();
        let identities = listed.iter().map(|model_serving| uid(model_serving)).collect();
        self.shared.caches.last_reports.retain_listed(&identities);
        self.failures.retain(&identities);
        self.history.retain_listed(&identities);
        self.shared.caches.loading_times.retain_listed(&identities);
    }

    /// Drops the state of a model that is gone, or belongs to another instance now.
    pub fn forget(&self, model_serving: &ModelServing) {
        self.shared.caches.last_reports.record(model_serving, None);
        self.failures.forget(&uid(model_serving));
        self.history.forget(&uid(model_serving));
        self.shared.caches.loading_times.forget(&uid(model_serving));
    }
}

/// Queues every changed ModelServing, until the watch ends. Reading changes is a task of its own: beside the reconciles it would come to
/// its turn once for each of them, and a change would wait for all earlier ones of every namespace.
pub async fn queue_changes(
    changes: impl Stream<Item = Result<ModelServing, watcher::Error>>,
    queue: Arc<FairQueue>,
) {
    let mut changes = pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(model_serving) => queue.push(key(&model_serving)),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a change was lost; the next change requeues its ModelServing"
            ),
        }
    }
}

/// Runs until `stop` is done and the reconciles in flight are finished.
pub async fn run(stop: impl Future<Output = ()> + Send + Sync + 'static, context: Arc<ModelServingContext>) {
    context.shared.metrics.max_concurrency(CONCURRENCY);
    let config = Config::default().concurrency(KUBE_CONCURRENCY).debounce(Duration::ZERO);
    let (caches, queue) = (context.shared.caches.clone(), context.queue.clone());
    let closed = queue.clone();
    let stop = stop.map(move |()| closed.close());
    let released = async move {
        caches.model_digests.wait_synced().await;
        caches.probe_cache.wait_for_first(FIRST_PROBE).await;
        queue.released()
    };
    let released =
        released.flatten_stream().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let by_result = context.clone();
    Controller::for_stream(stream::pending(), context.shared.caches.model_servings.clone())
        .with_config(config)
        .reconcile_on(released)
        .graceful_shutdown_on(stop)
        .run(reconcile_in_turn, on_error, context)
        .for_each(|result| {
            handle_controller_error(&by_result, result.err());
            future::ready(())
        })
        .await;
}

/// Logs errors of the controller itself; those of a reconcile are logged where they happen.
fn handle_controller_error(
    context: &ModelServingContext,
    error: Option<ControllerError<Error, watcher::Error>>,
) {
    match error {
        None | Some(ControllerError::ReconcilerFailed(..)) => {}
        Some(ControllerError::ObjectNotFound(gone)) => {
            context.queue.discard(&(gone.namespace.unwrap_or_default(), gone.name));
        }
        Some(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a change was lost; the next change requeues its ModelServing"
        ),
    }
}

/// Reconciles a ModelServing that the queue released, and puts any other, such as one to be retried, into the queue.
///
/// The turn begins with the call and not when the future is polled: a later change requests another reconcile, unless this one has not
/// started yet.
fn reconcile_in_turn(
    found: Arc<ModelServing>,
    context: Arc<ModelServingContext>,
) -> impl Future<Output = Result<Action, Error>> + Send + 'static {
    let turn = context.queue.begin(key(&*found));
    async move {
        let Some(turn) = turn else {
            return Ok(Action::await_change());
        };
        let Some(_running) = turn.start().await else {
            return Ok(Action::await_change());
        };
        // It may have changed since kube read it.
        match context.shared.caches.model_serving(&key(&*found)) {
            Some(model_serving) => measured_reconcile(model_serving, &context).await,
            None => Ok(Action::await_change()),
        }
    }
}

async fn measured_reconcile(
    model_serving: Arc<ModelServing>,
    context: &Arc<ModelServingContext>,
) -> Result<Action, Error> {
    let (started, metrics) = (Instant::now(), &context.shared.metrics);
    let _in_flight = metrics.reconciling();
    let result = Box::pin(reconcile::reconcile(model_serving.clone(), context.clone())).await;
    // What it recorded came after the end of the model, which drops its state.
    if is_gone(&model_serving, context) {
        context.forget(&model_serving);
    }
    let label = match &result {
        Ok(action) if *action == Action::await_change() => "success",
        Ok(_) => "requeue_after",
        Err(_) => "error",
    };
    metrics.reconciled(label, started.elapsed());
    result
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(found: Arc<ModelServing>, error: &Error, context: Arc<ModelServingContext>) -> Action {
    // It may have been created anew since kube read it. If the error is about the old one, one more try does no harm.
    let Some(model_serving) = context.shared.caches.model_serving(&key(&*found)) else {
        return Action::await_change();
    };
    let failures = context.failures.count(&uid(&model_serving));
    let class = error.class();
    if class == Class::Unserved {
        context.shared.rediscover.notify_one();
    }
    context.shared.metrics.failed(class.as_str());
    let overload = error.overload().inspect(|pause| context.overload.extend(*pause));
    let delay = backoff::delay(failures, class.longest_delay());
    let delay = delay.max(error.retry_after()).max(overload.unwrap_or_default());
    let object = ObjectRef::from_obj(&*model_serving);
    let error = error as &dyn std::error::Error;
    match class {
        Class::Transient if failures < 3 => {
            tracing::debug!(%object, error, ?delay, "reconcile failed; retrying");
        }
        Class::Transient => tracing::warn!(%object, error, failures, ?delay, "reconcile failed; retrying"),
        Class::Denied => {
            tracing::warn!(%object, error, failures, ?delay, "a webhook rejected the object; retrying");
        }
        Class::Forbidden | Class::Rejected | Class::Unserved | Class::Bug => {
            tracing::error!(%object, error, ?class, ?delay, "reconcile failed");
        }
    }
    Action::requeue(delay)
}

/// `true` if the model was deleted, also if there is a new one of the same name.
fn is_gone(model_serving: &ModelServing, context: &ModelServingContext) -> bool {
    let found = context.shared.caches.model_serving(&key(model_serving));
    found.is_none_or(|found| found.uid() != model_serving.uid())
}

/// The uid: state of a model that was deleted does not pass to a new one of the same name.
fn uid(model_serving: &ModelServing) -> String {
    model_serving.uid().unwrap_or_default()
}
