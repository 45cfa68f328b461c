//! Keeps the router's ServiceMonitor, one for all models, and tells the models how the router's series are found.

use std::time::Duration;

use kube::Api;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::Context;
use crate::{
    cluster::{Class, Error, discovery::ServedApis, server_side_apply},
    runtime::backoff,
};
use kthena_keda_core::{
    api::monitoring::ServiceMonitor,
    domain::names::ROUTER_SERVICE_MONITOR,
    observed::{LiveServiceMonitor, ObservedRouter},
    plan::{Desired, RouterPlan, plan_router},
    signals::RouterSeries,
};

fn observe(context: &Context) -> Option<(ObservedRouter, ServedApis)> {
    let served = (*context.served.borrow())?;
    Some((context.caches.observe_router(&context.settings.router_namespace, served)?, served))
}

/// Runs for life: a pass whenever `wake` is notified, and again after a failure. `series` is where the models look.
pub async fn run(context: Context, series: watch::Sender<Option<RouterSeries>>, wake: &Notify) {
    context.caches.model_digests.wait_synced().await;
    let (mut failures, mut told) = (0, None);
    loop {
        let pause = match pass(&context, &series, &mut told).await {
            Ok(()) => {
                failures = 0;
                Duration::MAX
            }
            Err(error) => {
                failures += 1;
                fail(&context, &error, failures)
            }
        };
        // Either way it is time for a pass.
        let _ = timeout(pause, wake.notified()).await;
    }
}

fn fail(context: &Context, error: &Error, failures: u32) -> Duration {
    let class = error.class();
    if class == Class::Unserved {
        context.rediscover.notify_one();
    }
    let delay = backoff::delay(failures, class.longest_delay());
    tracing::warn!(
        error = error as &dyn std::error::Error,
        ?class,
        failures,
        ?delay,
        "cannot keep the router's ServiceMonitor; will try again"
    );
    delay
}

async fn pass(
    context: &Context,
    known: &watch::Sender<Option<RouterSeries>>,
    told: &mut Option<String>,
) -> Result<(), Error> {
    let Some((observed, served)) = observe(context) else {
        return Ok(());
    };
    let Some(any_opted_in) = context.caches.any_opted_in() else { return Ok(()) };
    let profile = context.caches.default_profile();
    let RouterPlan { service_monitor, series, problem } =
        plan_router(&observed, profile.as_ref(), &context.settings.defaults, any_opted_in);
    known.send_if_modified(|known| {
        let news = known.as_ref() != Some(&series);
        *known = Some(series);
        news
    });
    if !context.cluster_duties {
        return Ok(());
    }
    tell_once(problem, told);
    let api: Api<LiveServiceMonitor> = Api::namespaced(context.client.clone(), &observed.namespace);
    match service_monitor {
        Desired::Apply(wanted) if served.service_monitors => write(context, &api, &observed, *wanted).await,
        Desired::Remove => remove(&api, &observed).await,
        Desired::Apply(_) | Desired::Keep => Ok(()),
    }
}

fn tell_once(problem: Option<String>, told: &mut Option<String>) {
    if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != told.as_ref()) {
        tracing::warn!(problem, "the router is not scraped by us");
    }
    *told = problem;
}

async fn write(
    context: &Context,
    api: &Api<LiveServiceMonitor>,
    observed: &ObservedRouter,
    wanted: ServiceMonitor,
) -> Result<(), Error> {
    let fingerprint = wanted.fingerprint();
    let found = observed.service_monitor.as_ref().map(|digest| &digest.owned);
    if let Some(live) =
        server_side_apply::apply_if_changed(api, observed.ownership(), found, wanted, fingerprint).await?
    {
        context.caches.service_monitors.record_write(&live);
        tracing::info!(
            namespace = observed.namespace,
            name = ROUTER_SERVICE_MONITOR,
            "applied the router's ServiceMonitor"
        );
    }
    Ok(())
}

async fn remove(api: &Api<LiveServiceMonitor>, observed: &ObservedRouter) -> Result<(), Error> {
    let Some(digest) = &observed.service_monitor else {
        return Ok(());
    };
    server_side_apply::delete(api, ROUTER_SERVICE_MONITOR, &digest.owned.uid).await?;
    tracing::info!(
        namespace = observed.namespace,
        name = ROUTER_SERVICE_MONITOR,
        "removed the router's ServiceMonitor"
    );
    Ok(())
}
