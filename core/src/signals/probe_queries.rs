//! Queries of the operator itself: a few for all models at once, about the existence of series rather than
//! their values.

use super::{RouterSeries, ScrapeSource, engine::MODEL_SERVING, router::WINDOW};
use crate::promql::{Expr, Selector};

/// Metrics that have a model's name as a label after the router's first request for it.
const METRICS_BY_MODEL: &[&str] = &[
    "kthena_router_active_downstream_requests",
    "kthena_router_requests_total",
    "kthena_router_tokens_total",
];

/// Label with the name of a model.
pub const MODEL: &str = "model";
/// Label with the status code of the responses, on the metrics that count them.
pub const STATUS_CODE: &str = "status_code";
/// Label with the ModelServing of an engine.
pub const ENGINE_OF: &str = MODEL_SERVING;

/// Samples that exist while Prometheus scrapes the router.
pub fn router_presence(router: &RouterSeries) -> Expr {
    Expr::Or(router.presence())
}

/// One sample if Prometheus has a target of the router, whether or not its scrapes succeed. `None` if the
/// platform team wrote the query for the presence of the router.
pub fn router_targets(router: &RouterSeries) -> Option<Expr> {
    let up = Selector::metric("up").with("namespace", &router.namespace);
    let up = match &router.source {
        ScrapeSource::Service(name) => up.with("service", name),
        ScrapeSource::Job(job) => up.with("job", job),
        ScrapeSource::Query(_) => return None,
    };
    Some(Expr::max(Expr::Series(up)))
}

/// One sample for each namespace and model name of the requests that other routers have served since their
/// start.
pub fn requests_elsewhere(router: &RouterSeries) -> Expr {
    let served = Selector::metric("kthena_router_requests_total")
        .with_not("namespace", &router.namespace)
        .with_not(STATUS_CODE, "404");
    Expr::max_by(&["namespace", MODEL], Expr::Series(served))
}

/// One sample for each model name and status code of the router's requests since its start.
pub fn model_names(router: &RouterSeries) -> Expr {
    let named = Selector::families(METRICS_BY_MODEL).with("namespace", &router.namespace);
    Expr::max_by(&[MODEL, STATUS_CODE], Expr::Series(named))
}

/// One sample for each ModelServing with scrape targets for its engines: 1 if at least one scrape succeeds.
pub fn engine_targets() -> Expr {
    Expr::max_by(&["namespace", ENGINE_OF], Expr::Series(Selector::metric("up").with_some(ENGINE_OF)))
}

/// Successful scrapes of each target in the router's namespace within two minutes, by the labels that name its
/// monitor. Without the label `pod` the queries could not tell two routers apart, so such a target is left out.
pub fn router_scrapes(namespace: &str) -> Expr {
    let up = Selector::metric("up").with("namespace", namespace).with_some("pod");
    Expr::max_by(&["job", "service"], Expr::SumOverTime(up, WINDOW))
}
