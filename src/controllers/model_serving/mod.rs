//! One controller owns everything of a ModelServing: its ScaledObject, its label selector and our condition on it.
//!
//! A pass reads top to bottom as the house does: observe, plan, apply, report.

mod apply;
mod history;
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
    cluster::{Class, Error, discovery::ServedApis, events::Events},
    runtime::backoff::{self, FailureCounts, OverloadPause},
};
pub use history::History;
use kthena_keda_core::{
    api::kthena::ModelServing, domain::key, observed::Observed, plan::plan, signals::RouterSeries,
};

/// How many ModelServings are worked on at a time.
const CONCURRENCY: u16 = 8;

/// Tells how the router's series are found.
pub type Routers = watch::Receiver<Option<RouterSeries>>;

/// What every pass works with.
pub struct ModelServingContext {
    /// What every controller works with.
    pub context: Context,
    /// How the router's series are found; nothing before that is known.
    pub router: Routers,
    /// Failures in a row, by object.
    pub failures: FailureCounts,
    /// While the API server is overloaded, no model asks anything of it.
    pub truce: OverloadPause,
    /// What was told and wanted of each model.
    pub memory: History,
    /// Whether to write the condition.
    pub writes_conditions: bool,
    /// Takes what is told as events.
    pub events: Events,
}

impl ModelServingContext {
    fn observe(&self, model_serving: &ModelServing) -> Option<(Observed, ServedApis)> {
        let served = (*self.context.served.borrow())?;
        let router = self.router.borrow().clone()?;
        let mut observed = self.context.caches.observe(model_serving, served, router)?;
        observed.rejection = self.memory.refusal(&identity(model_serving));
        observed.second_writer =
            self.memory.second_writer(&identity(model_serving), &model_serving.replicas_set_by);
        Some((observed, served))
    }

    /// Forgets what a list shows to be gone.
    pub fn listed(&self) {
        let there = self.context.caches.model_servings.state();
        let keys: HashSet<_> = there.iter().map(|model_serving| key(&**model_serving)).collect();
        self.context.caches.last_reports.retain(|key| keys.contains(key));
        let identities = there.iter().map(|model_serving| identity(model_serving)).collect();
        self.failures.retain(&identities);
        self.memory.listed(&identities);
    }

    /// Forgets one that is gone, or is another instance's now.
    pub fn forget(&self, model_serving: &ModelServing) {
        self.context.caches.last_reports.take(model_serving, None);
        self.failures.forget(&identity(model_serving));
        self.memory.forget(&identity(model_serving));
    }
}

/// One pass over one ModelServing, counted.
async fn reconcile(
    model_serving: Arc<ModelServing>,
    models: Arc<ModelServingContext>,
) -> Result<Action, Error> {
    let (started, metrics) = (Instant::now(), models.context.metrics.clone());
    let _under_way = metrics.reconciling();
    let result = Box::pin(pass(model_serving, models)).await;
    let word = match &result {
        Ok(action) if *action == Action::await_change() => "success",
        Ok(_) => "requeue_after",
        Err(_) => "error",
    };
    metrics.reconciled(word, started.elapsed());
    result
}

/// One pass over one ModelServing.
async fn pass(model_serving: Arc<ModelServing>, models: Arc<ModelServingContext>) -> Result<Action, Error> {
    // What is being deleted takes its ScaledObject with it. What is not seen in full yet, or is older than our last write, comes again.
    if model_serving.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if let Some(rest) = models.truce.left() {
        return Ok(Action::requeue(rest));
    }
    if models.memory.is_stale(&model_serving) {
        return Ok(Action::await_change());
    }
    let Some((observed, served)) = models.observe(&model_serving) else {
        return Ok(Action::await_change());
    };
    let was_refused = observed.rejection.is_some();
    let plan = plan(&observed, served.plan, &models.context.settings.defaults);
    models
        .context
        .caches
        .last_reports
        .take(&model_serving, plan.explanation.as_ref().map(|explanation| &explanation.verdict));
    let held = apply::apply(&models, observed, plan, served.plan).await?;
    models.failures.forget(&identity(&model_serving));
    models.memory.accepted(&identity(&model_serving));
    // What was just accepted is no news to the watch, and the condition still speaks of the refusal.
    let again = if was_refused { Some(Duration::ZERO) } else { held };
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(model_serving: Arc<ModelServing>, error: &Error, models: Arc<ModelServingContext>) -> Action {
    let failures = models.failures.count(&identity(&model_serving));
    let class = error.class();
    if class == Class::Unserved {
        models.context.rediscover.notify_one();
    }
    models.context.metrics.failed(class.as_str());
    let overload = error.overload().inspect(|rest| models.truce.extend(*rest));
    let delay = backoff::delay(failures, class.longest_delay())
        .max(error.retry_after())
        .max(overload.unwrap_or_default());
    let object = ObjectRef::from_obj(&*model_serving);
    let chain = error as &dyn std::error::Error;
    match class {
        Class::Transient if failures < 3 => tracing::debug!(%object, error = chain, ?delay, "will try again"),
        Class::Transient => tracing::warn!(%object, error = chain, failures, ?delay, "will try again"),
        Class::Denied => {
            tracing::warn!(%object, error = chain, failures, ?delay, "a webhook refuses the ScaledObject")
        }
        Class::Forbidden | Class::Rejected | Class::Unserved | Class::Bug => {
            tracing::error!(%object, error = chain, ?class, ?delay, "failed");
        }
    }
    Action::requeue(delay)
}

fn identity(model_serving: &ModelServing) -> String {
    model_serving.uid().unwrap_or_default()
}

/// Runs until `stop` is done and what was begun is finished.
pub async fn run(
    changes: impl Stream<Item = Result<ModelServing, watcher::Error>> + Send + 'static,
    wake: impl Stream<Item = ObjectRef<ModelServing>> + Send + 'static,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
    models: Arc<ModelServingContext>,
) {
    models.context.metrics.max_concurrency(CONCURRENCY);
    let config = Config::default().concurrency(CONCURRENCY).debounce(Duration::ZERO);
    let passes = Controller::for_stream(changes, models.context.caches.model_servings.clone())
        .with_config(config)
        .reconcile_on(wake)
        .graceful_shutdown_on(stop)
        .run(reconcile, on_error, models);
    passes
        .for_each(async |pass| match pass {
            // A ModelServing that went before its turn came; and failures, which were told when they happened.
            Ok(_) | Err(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(..)) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a change was lost; the next one repairs that"
            ),
        })
        .await;
}
