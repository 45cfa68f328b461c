//! The router's ServiceMonitor, one for all models; and the location of the router's series, which every plan needs.

use std::{collections::BTreeSet, time::Duration};

use kube::Api;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Context,
    foreign_fields::{ForeignFields, listed},
    throttle::Throttle,
};
use crate::{
    cluster::{
        Class, Error,
        server_side_apply::{self, Generated as _},
    },
    prometheus::Querier,
    runtime::backoff,
    sources::kinds::WatchedKind as _,
};
use kthena_keda_core::{
    api::monitoring::ServiceMonitor,
    domain::names::ROUTER_SERVICE_MONITOR,
    intent::{Profile, PrometheusSettings},
    observed::{
        Fingerprint, LiveObject as _, LiveServiceMonitor, LocatedRouter, ObservedRouter, RouterProblem,
        ScrapeEvidence,
    },
    plan::{Desired, RouterPlan, plan_router},
    signals,
};

/// Time for which Prometheus may fail to show that a foreign monitor scrapes the router, before the operator
/// creates its own.
const UNPROVEN_BEFORE_CREATION: Duration = Duration::from_mins(3);
/// Checks within that time at least, where they are more frequent than every minute.
const CHECKS_BEFORE_CREATION: u32 = 3;

/// Time for which notifications are collected: every change of a ModelServing or a monitor is one.
const COLLECT: Duration = Duration::from_millis(100);

/// Inputs and outputs of the controller beside the [`Context`].
pub struct RouterMonitor {
    /// Receives the location of the router's series.
    pub router: watch::Sender<Option<LocatedRouter>>,
    /// Asked whether it uses a foreign monitor.
    pub prometheus: Querier,
    /// Interval of the question, while the plan depends on its answer.
    pub check_interval: Duration,
}

/// State between two reconciles.
#[derive(Default)]
struct History {
    /// The last problem in the log.
    logged: Option<RouterProblem>,
    /// The last answer of Prometheus.
    evidence: Option<ScrapeEvidence>,
    /// Fields that other clients added to the ServiceMonitor.
    foreign: ForeignFields,
    /// Writes of the desired ServiceMonitor with this fingerprint.
    writes: Option<(Fingerprint, Throttle)>,
    /// Start of the time in which Prometheus shows no foreign monitor that is enough.
    unproven_since: Option<Instant>,
}

/// Runs for the life of the process: reconciles whenever `wake` is notified, while the plan depends on
/// Prometheus at each interval, and again after a failure.
pub async fn run(context: Context, monitor: RouterMonitor, wake: &Notify) {
    context.caches.model_digests.wait_synced().await;
    let (mut failures, mut history) = (0, History::default());
    loop {
        let pause = match reconcile(&context, &monitor, &mut history).await {
            Ok(pause) => {
                failures = 0;
                pause
            }
            Err(error) => {
                failures += 1;
                retry_delay(&context, &error, failures)
            }
        };
        // A notification and the end of the pause both lead to a reconcile.
        let _ = timeout(pause, wake.notified()).await;
        sleep(COLLECT).await;
    }
}

fn retry_delay(context: &Context, error: &Error, failures: u32) -> Duration {
    let class = error.class();
    context.metrics.error(class.as_str());
    if class == Class::Unserved {
        context.rediscover.notify_one();
    }
    let delay = backoff::delay(failures, class.longest_delay());
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, ?class, failures, ?delay, "cannot reconcile the router's ServiceMonitor; retrying");
    delay
}

/// Returns the time until the next reconcile without a notification.
async fn reconcile(
    context: &Context,
    monitor: &RouterMonitor,
    history: &mut History,
) -> Result<Duration, Error> {
    let Some(observed) = observe(context) else { return Ok(Duration::MAX) };
    let found = context.caches.any_opted_in();
    let any_opted_in = found.unwrap_or(true);
    let inputs = Inputs { profile: context.caches.default_profile(), any_opted_in, observed };
    let (inputs, plan) = plan_with_evidence(context, monitor, inputs, history).await;
    publish(&monitor.router, plan.router.clone());
    let pause = if plan.needs_evidence { monitor.check_interval } else { Duration::MAX };
    // Not known while the opt-ins or the ModelBooster of a ModelServing could not be read: the ServiceMonitor stays as it is.
    if context.cluster_duties {
        log_once(plan.router.problem.as_ref(), &mut history.logged);
    }
    if !context.cluster_duties || found.is_none() {
        return Ok(pause);
    }
    let delay = apply(context, &inputs.observed, plan, history).await?;
    Ok(delay.map_or(pause, |delay| delay.min(pause)))
}

/// Inputs of the plan.
struct Inputs {
    observed: ObservedRouter,
    profile: Option<Result<Profile, String>>,
    any_opted_in: bool,
}

impl Inputs {
    fn plan(&self, context: &Context) -> RouterPlan {
        plan_router(&self.observed, self.profile.as_ref(), &context.settings.defaults, self.any_opted_in)
    }

    /// The Prometheus that shows who scrapes the router: the one of the profile named `default`.
    fn prometheus(&self, context: &Context) -> Option<PrometheusSettings> {
        let defaults = &context.settings.defaults;
        match &self.profile {
            Some(Ok(profile)) => profile.clone().with_flag_defaults(defaults).prometheus,
            Some(Err(_)) | None => defaults.prometheus.clone(),
        }
    }
}

/// Plans, and asks Prometheus if the plan depends on it. The monitor is not created beside a foreign one before
/// Prometheus had some time to show it, since both may be new.
async fn plan_with_evidence(
    context: &Context,
    monitor: &RouterMonitor,
    mut inputs: Inputs,
    history: &mut History,
) -> (Inputs, RouterPlan) {
    let plan = inputs.plan(context);
    if !plan.needs_evidence {
        history.unproven_since = None;
        return (inputs, plan);
    }
    let Some(prometheus) = inputs.prometheus(context) else {
        inputs.observed.evidence = ScrapeEvidence::Known(BTreeSet::new());
        let plan = inputs.plan(context);
        return (inputs, plan);
    };
    inputs.observed.evidence = evidence(monitor, &prometheus, &inputs.observed.namespace, history).await;
    let mut plan = inputs.plan(context);
    if plan.beside.is_none() {
        history.unproven_since = None;
    } else if history.unproven_since.get_or_insert_with(Instant::now).elapsed()
        < UNPROVEN_BEFORE_CREATION.min(monitor.check_interval * CHECKS_BEFORE_CREATION)
    {
        inputs.observed.evidence = ScrapeEvidence::Awaited;
        plan = inputs.plan(context);
    }
    (inputs, plan)
}

/// The answer of Prometheus, or the last one while it does not answer.
async fn evidence(
    monitor: &RouterMonitor,
    prometheus: &PrometheusSettings,
    namespace: &str,
    history: &mut History,
) -> ScrapeEvidence {
    match monitor
        .prometheus
        .query(prometheus, &signals::router_scrapes(namespace, &prometheus.matchers))
        .await
    {
        Ok(samples) => history.evidence = Some(ScrapeEvidence::read(samples)),
        Err(error) => tracing::debug!(error, "cannot ask Prometheus who scrapes the router"),
    }
    history.evidence.clone().unwrap_or_else(|| ScrapeEvidence::Known(BTreeSet::new()))
}

/// Everything that the plan depends on; `None` before the initial lists are complete.
fn observe(context: &Context) -> Option<ObservedRouter> {
    let served = context.served.borrow().clone()?;
    context.caches.observe_synced_router(&context.settings.router_namespace, &served)
}

fn publish(sender: &watch::Sender<Option<LocatedRouter>>, router: LocatedRouter) {
    sender.send_if_modified(|known| {
        let has_changed = known.as_ref() != Some(&router);
        *known = Some(router);
        has_changed
    });
}

fn log_once(problem: Option<&RouterProblem>, logged: &mut Option<RouterProblem>) {
    if let Some(found) = problem.filter(|found| Some(*found) != logged.as_ref()) {
        tracing::warn!(problem = found.message(), "the router may not be scraped as the signals need it");
    }
    *logged = problem.cloned();
}

/// Returns how long a write has to wait where another client undoes it again and again.
async fn apply(
    context: &Context,
    observed: &ObservedRouter,
    plan: RouterPlan,
    history: &mut History,
) -> Result<Option<Duration>, Error> {
    if let (Some(reason), Desired::Apply(_)) = (&plan.beside, &plan.service_monitor) {
        tracing::info!(reason, "creating the router's ServiceMonitor beside another monitor");
    }
    let is_served = context.served.borrow().as_ref().is_some_and(LiveServiceMonitor::is_served);
    let api: Api<LiveServiceMonitor> = Api::namespaced(context.client.clone(), &observed.namespace);
    match plan.service_monitor {
        Desired::Apply(desired) if is_served => write(context, &api, observed, &desired, history).await,
        Desired::Remove => remove(&api, observed).await.map(|()| None),
        Desired::Apply(_) | Desired::Keep => Ok(None),
    }
}

async fn write(
    context: &Context,
    api: &Api<LiveServiceMonitor>,
    observed: &ObservedRouter,
    desired: &ServiceMonitor,
    history: &mut History,
) -> Result<Option<Duration>, Error> {
    let found = observed.service_monitor.as_ref().map(|digest| &digest.owned);
    let fingerprint = desired.fingerprint();
    let History { foreign, writes, .. } = history;
    if found.is_some_and(|found| foreign.accepts(fingerprint, found.fingerprint)) {
        return Ok(None);
    }
    writes.take_if(|(written, _)| *written != fingerprint);
    let (_, throttle) = writes.get_or_insert_with(|| (fingerprint, Throttle::default()));
    if let Some(delay) = throttle.remaining_delay() {
        return Ok(Some(delay));
    }
    let (ownership, left_alone) = (observed.ownership(), foreign.persistent());
    let written =
        server_side_apply::apply_if_changed(api, ownership, found, desired, fingerprint, &left_alone).await?;
    let Some(written) = written else { return Ok(None) };
    throttle.record();
    foreign.record(fingerprint, &written);
    context.caches.stores.record::<LiveServiceMonitor, _>(&written.live);
    let (namespace, name, removed) = (&observed.namespace, ROUTER_SERVICE_MONITOR, listed(&written.removed));
    tracing::info!(namespace, name, removed, "applied the router's ServiceMonitor");
    if !written.rest.is_empty() {
        let fields = listed(foreign.left_alone(written.live.owned_object().fingerprint));
        tracing::warn!(
            namespace,
            name,
            fields,
            "fields of the router's ServiceMonitor are set again after each write, so they are left alone"
        );
    }
    Ok(None)
}

async fn remove(api: &Api<LiveServiceMonitor>, observed: &ObservedRouter) -> Result<(), Error> {
    let Some(digest) = &observed.service_monitor else { return Ok(()) };
    server_side_apply::delete(api, ROUTER_SERVICE_MONITOR, &digest.owned.uid).await?;
    let (namespace, name) = (&observed.namespace, ROUTER_SERVICE_MONITOR);
    tracing::info!(namespace, name, "removed the router's ServiceMonitor");
    Ok(())
}
