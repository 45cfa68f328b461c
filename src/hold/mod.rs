//! The stand-in of a model that sleeps: an endpoint of kthena-router that holds requests and hands them over to the first
//! engine that is ready.
//!
//! A request takes this way:
//!
//! ```text
//! admission → body → queue → dispatcher (engines, pace) → delivery → response
//! ```
//!
//! The limits of [`Limits`] bound its memory. A request of which an engine has received a byte is never sent again.

mod admission;
mod body;
mod delivery;
mod dispatcher;
mod engines;
mod metrics;
mod pace;
mod queue;
mod refusal;
mod resolve;
mod server;
mod service;
mod stream;

use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

pub use admission::Limits;

use crate::telemetry::server::{Listen, Readiness, serve};
use admission::Admission;
use dispatcher::Dispatcher;
use metrics::Metrics;
use queue::Queue;
use resolve::Dns;
use service::Service;

/// Settings of a stand-in.
#[derive(Clone, Debug)]
pub struct HoldSettings {
    /// Address on which it receives requests; all by default.
    pub address: Option<IpAddr>,
    /// Ports on which it receives requests. Each request is forwarded to the same port of an engine.
    pub ports: Vec<u16>,
    /// DNS name of the headless Service that has the ready engines, and nothing else.
    pub engines: String,
    /// Model names that requests may have; empty for all.
    pub models: BTreeSet<String>,
    /// Longest time that a request is held.
    pub timeout: Duration,
    /// Bounds of the memory.
    pub limits: Limits,
    /// Time without an answer after which a stream gets comments that keep its connection open; `None` for never.
    pub keep_alive_after: Option<Duration>,
    /// Address of probes and metrics.
    pub probe: Listen,
}

/// The listeners are open before the server of the probes answers.
#[derive(Clone)]
struct Listening;

impl Readiness for Listening {
    fn missing(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Raises the number of files that this process may open to what it is allowed: each held request is a connection, and some container
/// runtimes allow 1,024 at first.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "cannot raise the limit of open files, so fewer requests may be held");
    }
}

/// Holds requests until `stop` completes, and then until each has its answer.
///
/// After `stop`, requests still go to a ready engine; without one, those that wait are refused.
///
/// # Errors
/// If a port is taken, or the server of the probes fails.
pub async fn run(settings: HoldSettings, stop: impl Future<Output = ()>) -> io::Result<()> {
    raise_file_limit();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let listeners = server::bind(settings.address, &settings.ports).await?;
    let probe = settings.probe.open().await?;
    let (stopping, stopped) = watch::channel(false);
    let queue = Arc::new(Queue::default());
    let max_requests = settings.limits.max_requests;
    tracing::info!(ports = ?settings.ports, engines = settings.engines, max_requests, "holding requests");
    let mut dispatcher = Dispatcher::new(Dns::new(settings.engines.clone()), queue.clone(), stopped.clone());
    let admission = Admission::new(settings.limits, metrics.clone());
    let service = Arc::new(Service::new(settings, admission, queue, metrics));
    let serving = server::Serving::start(listeners, &service, max_requests, &stopped);
    tokio::select! {
        () = stop => {}
        result = serve(probe, Arc::new(registry), Listening) => return result,
        () = dispatcher.run() => {}
    }
    tracing::info!("stopping; requests that wait for an engine are refused");
    stopping.send_replace(true);
    tokio::select! {
        () = serving.finish() => {}
        () = dispatcher.run() => {}
    }
    Ok(())
}
