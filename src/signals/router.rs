//! Queries over the series of kthena-router.

use crate::{
    intent::ModelNames,
    promql::{Expr, Selector},
};

/// The window of rates; at least four scrapes of the default interval, so that one lost scrape leaves no gap.
const WINDOW: &str = "2m";

/// Labels that the router puts on `requests_total` and `tokens_total`, over all releases, besides the ones that Prometheus adds.
/// A label left out here would turn a sum over several paths into a maximum.
const COUNTER_LABELS: &[&str] = &[
    "namespace",
    "pod",
    "model",
    "path",
    "status_code",
    "error_type",
    "token_type",
    "model_route",
    "backend_type",
    "backend_name",
    "upstream_model",
];

/// Both queues; a router runs one of them, so their sum is the one that exists.
const QUEUES: &[&str] = &["kthena_router_fairness_queue_size", "kthena_router_session_boost_queue_size"];

/// The counters that move when a model without ServingGroups is asked for.
/// Input tokens are counted on arrival in every release; requests only from Kthena 0.4 on.
const ARRIVALS: &[&str] = &["kthena_router_requests_total", "kthena_router_tokens_total"];

/// Which series tell that the router is scraped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeSource {
    /// A ServiceMonitor on the Service of this name.
    Service(String),
    /// A PodMonitor: its job is `<namespace>/<name>`.
    Job(String),
}

/// Where the router's series are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouterSeries {
    /// The namespace in which kthena-router runs.
    pub namespace: String,
    /// How it is scraped.
    pub source: ScrapeSource,
}

impl RouterSeries {
    pub(super) fn active_requests(&self, models: &ModelNames) -> Expr {
        let gauge = self.of_models(Selector::metric("kthena_router_active_downstream_requests"), models);
        self.total(Expr::max_by(&["namespace", "pod", "model"], Expr::Series(gauge)))
    }

    pub(super) fn queued_requests(&self, models: &ModelNames) -> Expr {
        let queues = self.of_models(Selector::families(QUEUES), models);
        self.total(Expr::max_by(&["namespace", "pod", "model", "user_id"], Expr::Series(queues)))
    }

    pub(super) fn request_rate(&self, models: &ModelNames) -> Expr {
        self.rate(self.of_models(Selector::metric("kthena_router_requests_total"), models))
    }

    pub(super) fn output_tokens(&self, models: &ModelNames) -> Expr {
        let tokens = Selector::metric("kthena_router_tokens_total").with("token_type", "output");
        self.rate(self.of_models(tokens, models))
    }

    /// A rate looks back over its whole window, so it counts only where the router was scraped at both ends of it: over half a
    /// window, of a Prometheus that has just started or a router that has just gone, it would be too low by half.
    fn rate(&self, counter: Selector) -> Expr {
        let total = self.total(Expr::max_by(COUNTER_LABELS, Expr::Rate(counter, WINDOW)));
        let now = Expr::IfAny(Box::new(total), Box::new(self.present(None)));
        Expr::IfAny(Box::new(now), Box::new(self.present(Some(WINDOW))))
    }

    fn of_models(&self, selector: Selector, models: &ModelNames) -> Selector {
        selector.with_any("model", models.iter()).with("namespace", &self.namespace)
    }

    /// The sum, or 0 while a router is scraped that has nothing to add up.
    fn total(&self, demand: Expr) -> Expr {
        let mut alternatives = vec![Expr::sum(demand)];
        alternatives.extend(self.presence(None).map(|presence| Expr::Zero(Box::new(presence))));
        Expr::Or(alternatives)
    }

    fn present(&self, offset: Option<&'static str>) -> Expr {
        Expr::Or(self.presence(offset).into())
    }

    /// Elements that exist while a router is scraped, whether or not it has seen any model.
    ///
    /// Routers from Kthena 1.0 on always export the first; older ones export nothing at rest, so their target's `up` stands in.
    fn presence(&self, offset: Option<&'static str>) -> [Expr; 2] {
        let at = |selector: Selector| match offset {
            Some(offset) => selector.offset(offset),
            None => selector,
        };
        let always = Selector::metric("kthena_router_active_requests").with("namespace", &self.namespace);
        let up = Selector::metric("up").with("namespace", &self.namespace);
        let up = match &self.source {
            ScrapeSource::Service(name) => up.with("service", name),
            ScrapeSource::Job(job) => up.with("job", job),
        };
        [Expr::max(Expr::Series(at(always))), Expr::max(Expr::IsOne(Box::new(Expr::Series(at(up)))))]
    }
}

/// Whether anybody asked for the model lately: rises on the birth of a counter and on its increase, and is 0 at rest.
///
/// A model at zero answers its first request before any scrape, and that answer *creates* the counter: `rate` and `increase`
/// do not see a birth. Nothing is answered in the first two minutes of a Prometheus that started empty, when every series looks new.
pub fn activation(models: &ModelNames, router: &RouterSeries) -> Expr {
    let arrivals = router.of_models(Selector::families(ARRIVALS), models);
    let births = Expr::Unless(Box::new(Expr::Series(arrivals.clone())), Box::new(Expr::Series(arrivals.clone().offset(WINDOW))));
    let now = router.total(Expr::Or(vec![births, Expr::Increase(arrivals, WINDOW)]));
    Expr::IfAny(Box::new(now), Box::new(router.present(Some(WINDOW))))
}
