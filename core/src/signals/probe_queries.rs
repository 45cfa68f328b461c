//! Queries of the operator itself: a few for all models at once, about the existence of series rather than
//! their values.

use super::{
    RouterSeries, ScrapeSource,
    engine::{GAUGES, MODEL_SERVING},
    router::{WINDOW, located},
};
use crate::{
    domain::SeriesMatchers,
    promql::{Expr, RangeFunction, Selector},
};

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

/// One sample if Prometheus has a target of the router: 1 if at least one scrape succeeds. `None` if the
/// platform team wrote the query for the presence of the router.
pub fn router_targets(router: &RouterSeries) -> Option<Expr> {
    let up = located(Selector::metric("up").with("namespace", &router.namespace), &router.matchers);
    let up = match &router.source {
        ScrapeSource::Service(name) => up.with("service", name),
        ScrapeSource::Job(job) => up.with("job", job),
        ScrapeSource::Query(_) => return None,
    };
    Some(Expr::max(Expr::Series(up)))
}

/// Most pairs of namespace and model name of other routers: a tenant whose pods are scraped can make any number.
const ELSEWHERE_MAX: u16 = 1000;
/// Most pairs of model name and status code: the router has one for each name that any client ever sent.
const NAMES_MAX: u16 = 10_000;

/// One sample for each namespace and model name of the requests that other routers have served since their
/// start; the busiest if there are many.
pub fn requests_elsewhere(router: &RouterSeries) -> Expr {
    let served = Selector::metric("kthena_router_requests_total")
        .with_not("namespace", &router.namespace)
        .with_not(STATUS_CODE, "404");
    let served = located(served, &router.matchers);
    Expr::Top(ELSEWHERE_MAX, Box::new(Expr::max_by(&["namespace", MODEL], Expr::Series(served))))
}

/// Most samples with all of their labels.
const TARGETS_MAX: u16 = 100;

/// Samples with all labels of the router's targets, or of some of them if there are many: they show whether a
/// store holds several clusters.
pub fn router_labels(router: &RouterSeries) -> Expr {
    router.targets(TARGETS_MAX)
}

/// A sample if this Prometheus knows a shard other than the first. A store that merges the shards has their
/// external label `prometheus`. Pod names: Prometheus Operator `pkg/prometheus/server/statefulset.go`.
pub fn other_shards() -> Expr {
    let servers = Selector::metric("prometheus_build_info")
        .matching("pod", "prometheus-.+-shard-[0-9]+-[0-9]+")
        .without("prometheus");
    Expr::max(Expr::Series(servers))
}

/// One sample for each model name and status code of the router's requests since its start; the busiest if there
/// are many.
pub fn model_names(router: &RouterSeries) -> Expr {
    let select = |metric: Selector| located(metric.with("namespace", &router.namespace), &router.matchers);
    let named = Expr::any_metric(METRICS_BY_MODEL, select, Expr::Series);
    Expr::Top(NAMES_MAX, Box::new(Expr::max_by(&[MODEL, STATUS_CODE], named)))
}

/// One sample for each ModelServing with scrape targets for its engines: 1 if at least one scrape succeeds.
pub fn engine_targets(matchers: &SeriesMatchers) -> Expr {
    let up = located(Selector::metric("up").with_some(ENGINE_OF), matchers);
    Expr::max_by(&["namespace", ENGINE_OF], Expr::Series(up))
}

/// One sample for each ModelServing whose engines export a gauge that signals read. SGLang exports them only
/// with `--enable-metrics`.
pub fn engine_gauges(matchers: &SeriesMatchers) -> Expr {
    let select = |metric: Selector| located(metric.with_some(ENGINE_OF), matchers);
    Expr::max_by(&["namespace", ENGINE_OF], Expr::any_metric(GAUGES, select, Expr::Series))
}

/// Successful scrapes of each target in the router's namespace within two minutes, by the labels that name its
/// monitor. Without the label `pod` the queries could not tell two routers apart, so such a target is left out.
pub fn router_scrapes(namespace: &str, matchers: &SeriesMatchers) -> Expr {
    let up = located(Selector::metric("up").with("namespace", namespace), matchers).with_some("pod");
    Expr::max_by(&["job", "service"], Expr::Range(RangeFunction::SumOverTime, up, WINDOW.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenants and clients choose the values of the labels.
    #[test]
    fn bounds_the_samples_whose_number_others_choose() {
        let router = RouterSeries::assumed("kthena-system");
        assert!(requests_elsewhere(&router).to_string().starts_with("topk(1000, "));
        assert!(model_names(&router).to_string().starts_with("topk(10000, "));
    }
}
