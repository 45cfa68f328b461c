//! The controller of ModelServings: it owns their ScaledObjects and PodMonitors, their label selector and our condition on them.
//!
//! [`reconcile`] is the place to start.

mod apply;
mod history;
mod reconcile;
mod report;
mod status;

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
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
    runtime::backoff::{self, FailureCounts, OverloadPause},
};
pub use history::History;
use kthena_keda_core::{api::kthena::ModelServing, domain::key, observed::LocatedRouter};

/// ModelServings that are reconciled at a time.
const CONCURRENCY: u16 = 8;

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
}

impl ModelServingContext {
    /// Drops the state of every model that a new list lacks.
    pub fn retain_listed(&self) {
        let listed = self.shared.caches.model_servings.state();
        let keys: HashSet<_> = listed.iter().map(|model_serving| key(&**model_serving)).collect();
        self.shared.caches.last_reports.retain(|key| keys.contains(key));
        let identities = listed.iter().map(|model_serving| uid(model_serving)).collect();
        self.failures.retain(&identities);
        self.history.retain_listed(&identities);
    }

    /// Drops the state of a model that is gone, or belongs to another instance now.
    pub fn forget(&self, model_serving: &ModelServing) {
        self.shared.caches.last_reports.record(model_serving, None);
        self.failures.forget(&uid(model_serving));
        self.history.forget(&uid(model_serving));
    }
}

/// Runs until `stop` is done and the reconciles in flight are finished.
pub async fn run(
    changes: impl Stream<Item = Result<ModelServing, watcher::Error>> + Send + 'static,
    requeues: impl Stream<Item = ObjectRef<ModelServing>> + Send + 'static,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
    context: Arc<ModelServingContext>,
) {
    context.shared.metrics.max_concurrency(CONCURRENCY);
    let config = Config::default().concurrency(CONCURRENCY).debounce(Duration::ZERO);
    Controller::for_stream(changes, context.shared.caches.model_servings.clone())
        .with_config(config)
        .reconcile_on(requeues)
        .graceful_shutdown_on(stop)
        .run(measured_reconcile, on_error, context)
        .for_each(async |result| log_controller_error(result.err()))
        .await;
}

/// Logs errors of the controller itself; those of a reconcile are logged where they happen.
fn log_controller_error(error: Option<ControllerError<Error, watcher::Error>>) {
    match error {
        None | Some(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..)) => {}
        Some(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a change was lost; the next change requeues its ModelServing"
        ),
    }
}

async fn measured_reconcile(
    model_serving: Arc<ModelServing>,
    context: Arc<ModelServingContext>,
) -> Result<Action, Error> {
    let (started, metrics) = (Instant::now(), context.shared.metrics.clone());
    let _in_flight = metrics.reconciling();
    let result = Box::pin(reconcile::reconcile(model_serving, context)).await;
    let label = match &result {
        Ok(action) if *action == Action::await_change() => "success",
        Ok(_) => "requeue_after",
        Err(_) => "error",
    };
    metrics.reconciled(label, started.elapsed());
    result
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(model_serving: Arc<ModelServing>, error: &Error, context: Arc<ModelServingContext>) -> Action {
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

/// The uid: state of a model that was deleted does not pass to a new one of the same name.
fn uid(model_serving: &ModelServing) -> String {
    model_serving.uid().unwrap_or_default()
}
