//! Queries over the series of kthena-router.

use crate::{
    domain::ModelNames,
    promql::{Expr, Query, Selector},
};

/// The window of rates; at least four scrapes of the default interval, so that one lost scrape leaves no gap.
const WINDOW: &str = "2m";

/// How far back a minute of the window lies; its last sample counts too, so there is one minute more.
type Minute = Option<&'static str>;
const MINUTES: [Minute; 3] = [None, Some("1m"), Some("2m")];

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

/// Labels that the router puts on its gauge of requests to ModelServers, over all releases.
const UPSTREAM_LABELS: &[&str] =
    &["namespace", "pod", "model_server", "model_route", "backend_type", "backend_name", "upstream_model"];

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
    /// Whatever the platform team says: an answer means yes.
    Query(Query),
}

/// Whose demand counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemandScope {
    /// All that is asked of these model names.
    Models(ModelNames),
    /// What the router sends to these ModelServers (`<namespace>/<name>`): the part of a model's demand that is theirs.
    Servers(Vec<String>),
}

/// Where the router's series are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouterSeries {
    /// The namespace in which kthena-router runs.
    pub namespace: String,
    /// How it is scraped.
    pub source: ScrapeSource,
}

/// Where the router's series are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterSettings {
    /// Its namespace.
    pub namespace: Option<String>,
    /// What tells that it is scraped.
    pub presence: Option<Query>,
}

impl RouterSeries {
    /// A router that was not looked for: its Service has the name that Kthena's chart gives it.
    pub fn assumed(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), source: ScrapeSource::Service("kthena-router".to_owned()) }
    }

    /// Where the platform team says, else where it was found. Of a router in another namespace nothing was found.
    #[must_use]
    pub fn with_overrides(&self, settings: &RouterSettings) -> Self {
        let mut series = match &settings.namespace {
            Some(namespace) if *namespace != self.namespace => Self::assumed(namespace),
            _ => self.clone(),
        };
        if let Some(presence) = &settings.presence {
            series.source = ScrapeSource::Query(presence.clone());
        }
        series
    }

    pub(super) fn active_requests(&self, models: &ModelNames) -> Expr {
        let gauge = self.of_models(Selector::metric("kthena_router_active_downstream_requests"), models);
        self.total(Expr::max_by(&["namespace", "pod", "model"], Expr::Series(gauge)))
    }

    pub(super) fn upstream_requests(&self, servers: &[String]) -> Expr {
        let gauge = Selector::metric("kthena_router_active_upstream_requests")
            .with_any("model_server", servers.iter().map(String::as_str))
            .with("namespace", &self.namespace);
        self.total(Expr::max_by(UPSTREAM_LABELS, Expr::Series(gauge)))
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

    /// A rate looks back over its whole window, so it counts only where the router was scraped all that time: over half a window, of
    /// a Prometheus that has just started, a router that has just gone or a monitor that was deleted, it would be too low.
    fn rate(&self, counter: Selector) -> Expr {
        let total = self.total(Expr::max_by(COUNTER_LABELS, Expr::Rate(counter, WINDOW)));
        MINUTES
            .into_iter()
            .fold(total, |total, minute| Expr::IfAny(Box::new(total), Box::new(self.scraped_in(minute))))
    }

    /// Elements that exist if the router was scraped within one minute. What an instant selector sees may be five minutes old, and a
    /// monitor that is deleted leaves no mark; a range shows only what lies in it.
    fn scraped_in(&self, minute: Minute) -> Expr {
        let last = |selector: Selector| {
            Expr::MaxOverTime(minute.map_or(selector.clone(), |offset| selector.offset(offset)), "1m")
        };
        Expr::Or(self.presence_exprs(last, |query| Expr::WrittenMinute(query, minute)))
    }

    fn of_models(&self, selector: Selector, models: &ModelNames) -> Selector {
        selector.with_any("model", models.iter()).with("namespace", &self.namespace)
    }

    /// The sum, or 0 while a router is scraped that has nothing to add up.
    pub(super) fn total(&self, demand: Expr) -> Expr {
        let mut alternatives = vec![Expr::sum(demand)];
        alternatives.extend(self.presence().into_iter().map(|sign| Expr::Zero(Box::new(sign))));
        Expr::Or(alternatives)
    }

    /// Elements that exist while the router is scraped.
    pub(super) fn presence(&self) -> Vec<Expr> {
        self.presence_exprs(Expr::Series, Expr::Written)
    }

    /// Elements that exist if the router was scraped as long ago as the window of rates is, whether or not it has seen any model.
    fn was_present(&self) -> Expr {
        Expr::Or(self.presence_exprs(
            |selector| Expr::Series(selector.offset(WINDOW)),
            |query| Expr::WrittenMinute(query, Some(WINDOW)),
        ))
    }

    /// What tells that it is scraped, seen through `series` or `query`: the first is exported by routers from Kthena 1.0 on whatever
    /// they do; older ones export nothing at rest, so their target's `up`, where it is 1, stands in.
    fn presence_exprs(&self, series: impl Fn(Selector) -> Expr, query: impl Fn(Query) -> Expr) -> Vec<Expr> {
        let up = Selector::metric("up").with("namespace", &self.namespace);
        let up = match &self.source {
            ScrapeSource::Service(name) => up.with("service", name),
            ScrapeSource::Job(job) => up.with("job", job),
            ScrapeSource::Query(written) => return vec![Expr::max(query(written.clone()))],
        };
        let always = Selector::metric("kthena_router_active_requests").with("namespace", &self.namespace);
        vec![Expr::max(series(always)), Expr::max(Expr::IsOne(Box::new(series(up))))]
    }
}

/// Whether anybody asked for the model lately: rises on the birth of a counter and on its increase, and is 0 at rest.
///
/// A model at zero answers its first request before any scrape, and that answer *creates* the counter: `rate` and `increase`
/// do not see a birth. A counter that merely reappears, scraped by another monitor, is no birth. Nothing is answered in the first two
/// minutes of a Prometheus that started empty, when every series looks new.
pub fn activation(models: &ModelNames, router: &RouterSeries) -> Expr {
    let arrivals = router.of_models(Selector::families(ARRIVALS), models);
    let counters = |selector: Selector| Expr::max_by(COUNTER_LABELS, Expr::Series(selector));
    let births = Expr::Unless(
        Box::new(counters(arrivals.clone())),
        Box::new(counters(arrivals.clone().offset(WINDOW))),
    );
    let growth = Expr::max_by(COUNTER_LABELS, Expr::Increase(arrivals, WINDOW));
    let now = router.total(Expr::Or(vec![births, growth]));
    Expr::IfAny(Box::new(now), Box::new(router.was_present()))
}
