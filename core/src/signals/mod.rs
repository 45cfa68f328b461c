//! Queries of the built-in signals: each returns one number per model.
//!
//! Names, labels and life cycle of the series: Kthena `pkg/kthena-router/metrics/metrics.go`.

mod backlog;
mod engine;
mod history;
mod latency;
mod probe_queries;
mod router;
mod service_time;

pub use backlog::BoundedBacklog;
pub use backlog::WINDOW as ARRIVALS_WINDOW;
pub use engine::EngineSeries;
pub use history::{
    ReplicaSource, SAMPLE_WINDOW, arrival_rate, replica_sources, samples_in_window, shadow_replicas,
    start_quantile, starts,
};
pub use latency::LatencySignal;
pub use probe_queries::{
    ENGINE_OF, MODEL, STATUS_CODE, engine_gauges, engine_targets, model_names, other_shards,
    requests_elsewhere, router_labels, router_presence, router_scrapes, router_targets,
};
pub use router::{DemandScope, RouterSeries, RouterSettings, ScrapeSource, activation};
pub use service_time::{
    REQUESTS_MIN, ServiceTimeHistory, WINDOWS_MIN, duration_quantile, mean_duration, usual_duration,
};

pub use crate::domain::{ACTIVATION, Demand, Engine, Latency, Saturation, Signal};
use crate::{
    domain::{Backlog, ModelNames, ServiceTime},
    promql::Expr,
};

impl Demand {
    /// The total over the scope. The query returns one sample, 0 for an idle router, and nothing if
    /// Prometheus does not scrape the router.
    ///
    /// `None` if the router does not measure the signal for each ModelServer.
    pub fn query(self, scope: &DemandScope, router: &RouterSeries) -> Option<Expr> {
        match (self, scope) {
            (Self::ActiveRequests, DemandScope::Models(models)) => Some(router.active_requests(models)),
            (Self::ActiveRequests, DemandScope::Servers(servers)) => Some(router.upstream_requests(servers)),
            (Self::QueuedRequests, DemandScope::Models(models)) => Some(router.queued_requests(models)),
            (Self::RequestRate, DemandScope::Models(models)) => Some(router.request_rate(models)),
            (Self::OutputTokens, DemandScope::Models(models)) => Some(router.output_tokens(models)),
            (Self::QueuedRequests | Self::RequestRate | Self::OutputTokens, DemandScope::Servers(_)) => None,
        }
    }
}

/// [`Demand::ActiveRequests`] of all requests for the names, with a bounded backlog; `None` if all of the backlog counts. `engines` are
/// scraped, so that the requests that they run are known.
pub fn bounded_requests(
    models: &ModelNames,
    router: &RouterSeries,
    bound: (ServiceTime, Backlog),
    engines: Option<&EngineSeries>,
) -> Option<BoundedBacklog> {
    let running = engines.map(EngineSeries::running_requests);
    BoundedBacklog::of(router, models, bound, running)
}

impl Saturation {
    /// The total over the model's engines. The query returns one sample. Without engines it returns nothing,
    /// or 0 while Prometheus scrapes the router of [`EngineSeries::at_zero`].
    pub fn query(self, engines: &EngineSeries) -> Expr {
        match self {
            Self::Queue => engines.queue(),
            Self::Running => engines.running(),
            Self::KvCache => engines.kv_cache(),
        }
    }
}
