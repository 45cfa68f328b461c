//! The composition root: builds every task and joins them. Any task that ends ends the process.

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

/// Runs the controller manager until `stop` is done.
///
/// # Errors
/// When there is no way to a cluster, when the port is taken, and when the lease is lost. Everything else is survived.
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
    let caches = Arc::new(Caches::new(reader, &run_settings.shard, &settings.router_namespace));
    let (served_tx, served) = watch::channel(None);
    registry.register_collector(Box::new(Cluster { caches: caches.clone(), served: served.clone() }));
    registry.register_collector(Box::new(Process::started_now()));
    let readiness = Readiness::follower(caches.clone(), served.clone());
    let listener = listen.open().await.map_err(|error| Error::Listen(listen, error))?;
    tracing::info!(
        address = listener.local_addr().ok().map(tracing::field::display),
        "serves metrics and probes"
    );

    let cluster_duties = run_settings.shard.cluster_duties;
    let context = Context {
        client: clients.all,
        settings,
        cluster_duties,
        served,
        rediscover: Arc::default(),
        caches,
        metrics: metrics.clone(),
    };
    let stop = stop.shared();
    let leading =
        Manager { context, writer, served: served_tx, prometheus, run_settings, stop: stop.clone() };
    let elector = election.map(|candidate| Elector::new(clients.lease, candidate, fence));
    let leads = readiness.clone();
    tokio::select! {
        result = lead(elector, &metrics, || leads.become_leader(), leading.run(), stop) => result,
        failed = serve(listener, Arc::new(registry), readiness) => failed.map_err(|error| Error::Listen(listen, error)),
    }
}

/// Waits until it is our turn, and does the work until it ends by itself, which is when the process is told to, or the lease is lost.
async fn lead(
    elector: Option<Elector>,
    metrics: &Metrics,
    begins: impl FnOnce(),
    work: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Some(mut elector) = elector else {
        begins();
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
    begins();
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
