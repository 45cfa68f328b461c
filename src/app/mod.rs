//! The composition root: builds every task and joins them. If any task returns, the process exits.

mod collectors;
mod manager;
mod readiness;
mod requeue;

use std::sync::Arc;

use futures::FutureExt as _;
use kube::runtime::reflector;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{
    cluster::{Clients, Error},
    controllers::Context,
    prometheus::{Prometheus, Querier},
    runtime::lease::{Elector, WriteFence},
    settings::{RunSettings, Settings},
    sources::Caches,
    telemetry::{metrics::Metrics, server::serve},
};
use collectors::{Cluster, Process};
use manager::Manager;
use readiness::Readiness;

/// Runs the controller manager until `stop` completes.
///
/// # Errors
/// When no cluster is configured, the port is taken, or the lease is lost. Every other failure is retried.
pub async fn run(
    settings: Settings,
    run_settings: RunSettings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let RunSettings { listen, election, .. } = run_settings.clone();
    let prometheus = Querier::Direct(Prometheus::new(run_settings.prometheus_client.clone())?);
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let fence = if election.is_some() { WriteFence::by_election() } else { WriteFence::for_life() };
    let clients = Clients::connect(fence.clone(), &metrics, election.as_ref()).await?;
    let (reader, writer) = reflector::store();
    let caches = Arc::new(Caches::of_shard(reader, &run_settings.shard, &settings.router_namespace));
    let (served_sender, served) = watch::channel(None);
    registry.register_collector(Box::new(Cluster {
        caches: caches.clone(),
        served: served.clone(),
        exports_models: run_settings.model_metrics,
    }));
    registry.register_collector(Box::new(Process::started_now()));
    let readiness = Readiness::follower(caches.clone(), served.clone());
    let listener = listen.open().await.map_err(|error| Error::Listen(listen, error))?;
    let address = listener.local_addr().ok().map(tracing::field::display);
    tracing::info!(address, "serving metrics and probes");

    let context = Context {
        client: clients.all,
        settings,
        cluster_duties: run_settings.shard.cluster_duties,
        stand_in_image: run_settings.shard.stand_in_image.clone(),
        served,
        rediscover: Arc::default(),
        caches,
        metrics: metrics.clone(),
    };
    let stop = stop.shared();
    let manager =
        Manager { context, writer, served: served_sender, prometheus, run_settings, stop: stop.clone() };
    let elector = election.map(|candidate| Elector::new(clients.lease, candidate, fence));
    let started = readiness.clone();
    tokio::select! {
        result = lead(elector, &metrics, || started.become_leader(), manager.run(), stop) => result,
        failed = serve(listener, Arc::new(registry), readiness) => {
            failed.map_err(|error| Error::Listen(listen, error))
        }
    }
}

/// Waits for the lease, then runs `work` until it ends, which is after `stop`, or until the lease is lost.
async fn lead(
    elector: Option<Elector>,
    metrics: &Metrics,
    on_start: impl FnOnce(),
    work: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Some(mut elector) = elector else {
        on_start();
        work.await;
        return Ok(());
    };
    let lease = elector.lease().to_owned();
    metrics.leader(&lease, false);
    tokio::select! {
        () = elector.acquire() => {}
        () = stop => return Ok(()),
    }
    metrics.leader(&lease, true);
    on_start();
    let is_lost = tokio::select! {
        () = work => false,
        () = elector.keep_renewing() => true,
    };
    metrics.leader(&lease, false);
    if is_lost {
        return Err(Error::LeaseLost(lease));
    }
    elector.release().await;
    Ok(())
}
