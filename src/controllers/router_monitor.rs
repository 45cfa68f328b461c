//! The router's ServiceMonitor, one for all models; and the location of the router's series, which every plan needs.

use std::time::Duration;

use kube::Api;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    Context,
    foreign_fields::{ForeignFields, listed},
};
use crate::{
    cluster::{
        Class, Error,
        server_side_apply::{self, Generated as _},
    },
    runtime::backoff,
    sources::kinds::WatchedKind as _,
};
use kthena_keda_core::{
    api::monitoring::ServiceMonitor,
    domain::names::ROUTER_SERVICE_MONITOR,
    observed::{LiveObject as _, LiveServiceMonitor, ObservedRouter},
    plan::{Desired, RouterPlan, plan_router},
    signals::RouterSeries,
};

/// Runs for the life of the process: reconciles whenever `wake` is notified, and again after a failure.
///
/// `series` receives the location of the router's series.
pub async fn run(context: Context, series: watch::Sender<Option<RouterSeries>>, wake: &Notify) {
    context.caches.model_digests.wait_synced().await;
    let (mut failures, mut logged, mut foreign) = (0, None, ForeignFields::default());
    loop {
        let pause = match reconcile(&context, &series, &mut logged, &mut foreign).await {
            Ok(()) => {
                failures = 0;
                Duration::MAX
            }
            Err(error) => {
                failures += 1;
                retry_delay(&context, &error, failures)
            }
        };
        // A notification and the end of the pause both lead to a reconcile.
        let _ = timeout(pause, wake.notified()).await;
    }
}

fn retry_delay(context: &Context, error: &Error, failures: u32) -> Duration {
    let class = error.class();
    if class == Class::Unserved {
        context.rediscover.notify_one();
    }
    let delay = backoff::delay(failures, class.longest_delay());
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, ?class, failures, ?delay, "cannot reconcile the router's ServiceMonitor; retrying");
    delay
}

async fn reconcile(
    context: &Context,
    series: &watch::Sender<Option<RouterSeries>>,
    logged: &mut Option<String>,
    foreign: &mut ForeignFields,
) -> Result<(), Error> {
    let Some(observed) = observe(context) else { return Ok(()) };
    let Some(any_opted_in) = context.caches.any_opted_in() else { return Ok(()) };
    let profile = context.caches.default_profile();
    let plan = plan_router(&observed, profile.as_ref(), &context.settings.defaults, any_opted_in);
    publish(series, plan.series.clone());
    if !context.cluster_duties {
        return Ok(());
    }
    log_once(plan.problem.clone(), logged);
    apply(context, &observed, plan, foreign).await
}

/// Everything that the plan depends on; `None` before the initial lists are complete.
fn observe(context: &Context) -> Option<ObservedRouter> {
    let served = context.served.borrow().clone()?;
    context.caches.observe_synced_router(&context.settings.router_namespace, &served)
}

fn publish(sender: &watch::Sender<Option<RouterSeries>>, series: RouterSeries) {
    sender.send_if_modified(|known| {
        let has_changed = known.as_ref() != Some(&series);
        *known = Some(series);
        has_changed
    });
}

fn log_once(problem: Option<String>, logged: &mut Option<String>) {
    if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != logged.as_ref()) {
        tracing::warn!(problem, "the operator cannot have the router scraped");
    }
    *logged = problem;
}

async fn apply(
    context: &Context,
    observed: &ObservedRouter,
    plan: RouterPlan,
    foreign: &mut ForeignFields,
) -> Result<(), Error> {
    let is_served = context.served.borrow().as_ref().is_some_and(LiveServiceMonitor::is_served);
    let api: Api<LiveServiceMonitor> = Api::namespaced(context.client.clone(), &observed.namespace);
    match plan.service_monitor {
        Desired::Apply(desired) if is_served => write(context, &api, observed, *desired, foreign).await,
        Desired::Remove => remove(&api, observed).await,
        Desired::Apply(_) | Desired::Keep => Ok(()),
    }
}

async fn write(
    context: &Context,
    api: &Api<LiveServiceMonitor>,
    observed: &ObservedRouter,
    desired: ServiceMonitor,
    foreign: &mut ForeignFields,
) -> Result<(), Error> {
    let found = observed.service_monitor.as_ref().map(|digest| &digest.owned);
    let fingerprint = desired.fingerprint();
    if found.is_some_and(|found| foreign.accepts(fingerprint, found.fingerprint)) {
        return Ok(());
    }
    let (ownership, left_alone) = (observed.ownership(), foreign.persistent());
    let written =
        server_side_apply::apply_if_changed(api, ownership, found, desired, fingerprint, &left_alone).await?;
    let Some(written) = written else { return Ok(()) };
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
    Ok(())
}

async fn remove(api: &Api<LiveServiceMonitor>, observed: &ObservedRouter) -> Result<(), Error> {
    let Some(digest) = &observed.service_monitor else { return Ok(()) };
    server_side_apply::delete(api, ROUTER_SERVICE_MONITOR, &digest.owned.uid).await?;
    let (namespace, name) = (&observed.namespace, ROUTER_SERVICE_MONITOR);
    tracing::info!(namespace, name, "removed the router's ServiceMonitor");
    Ok(())
}
