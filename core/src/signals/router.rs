//! Queries over the series of kthena-router.

use crate::{
    domain::ModelNames,
    promql::{Expr, Query, Selector},
};

/// Window of rates: eight scrapes at the default interval and four at the longest, so that one lost scrape
/// leaves no gap.
pub(super) const WINDOW: &str = "2m";

/// Offset of one minute of the window. A window of two minutes has three edges: now, one and two minutes ago.
type Minute = Option<&'static str>;
const MINUTES: [Minute; 3] = [None, Some("1m"), Some("2m")];

/// Labels of the router's `requests_total` and `tokens_total` in all releases, without those that Prometheus
/// adds. A label that is missing here would turn a sum over several paths into a maximum.
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

/// Both queues. A router runs one of them, so their sum is the length of the existing one.
const QUEUES: &[&str] = &["kthena_router_fairness_queue_size", "kthena_router_session_boost_queue_size"];

/// Labels of the router's gauge of requests to ModelServers in all releases.
const UPSTREAM_LABELS: &[&str] =
    &["namespace", "pod", "model_server", "model_route", "backend_type", "backend_name", "upstream_model"];

/// Counters that increase with a request for a model without ServingGroups.
/// Every release counts input tokens on arrival; only Kthena 0.4 and later count requests.
const ARRIVALS: &[&str] = &["kthena_router_requests_total", "kthena_router_tokens_total"];

/// Series that exist while Prometheus scrapes the router.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeSource {
    /// `up` of the Service with this name, which a ServiceMonitor selects.
    Service(String),
    /// `up` of the job of a PodMonitor, `<namespace>/<name>`.
    Job(String),
    /// A query of the platform team: a result means that Prometheus scrapes the router.
    Query(Query),
}

/// Requests that a demand signal counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemandScope {
    /// All requests for these model names.
    Models(ModelNames),
    /// Requests that the router sends to these ModelServers (`<namespace>/<name>`): their part of the
    /// requests for a model.
    Servers(Vec<String>),
}

/// Location of the router's series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouterSeries {
    /// Namespace of kthena-router.
    pub namespace: String,
    /// Source of its `up`.
    pub source: ScrapeSource,
}

/// Overrides of [`RouterSeries`] in a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterSettings {
    /// Namespace of kthena-router.
    pub namespace: Option<String>,
    /// Query that returns a result while Prometheus scrapes the router.
    pub presence: Option<Query>,
}

impl RouterSeries {
    /// A router whose Service has the name that Kthena's chart gives it; for namespaces in which the operator
    /// does not look for one.
    pub fn assumed(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), source: ScrapeSource::Service("kthena-router".to_owned()) }
    }

    /// Applies the overrides. In another namespace the operator has detected nothing, so the router is
    /// [assumed](Self::assumed).
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

    /// 0 while Prometheus scrapes the router: the demand for a model that receives no requests.
    pub fn no_demand(&self) -> Expr {
        let zeros = self.presence().into_iter().map(|sign| Expr::Zero(Box::new(sign)));
        Expr::Or(zeros.collect())
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

    /// The rate, if Prometheus scraped the router in every minute of the window. Over a part of the window
    /// the rate would be too low: after a start of Prometheus, the end of a router or the deletion of a
    /// monitor.
    fn rate(&self, counter: Selector) -> Expr {
        let total = self.total(Expr::max_by(COUNTER_LABELS, Expr::Rate(counter, WINDOW)));
        MINUTES
            .into_iter()
            .fold(total, |total, minute| Expr::IfAny(Box::new(total), Box::new(self.scraped_in(minute))))
    }

    /// Samples that exist if Prometheus scraped the router within one minute. The sample of an instant
    /// selector may be five minutes old, and deleting a monitor leaves no staleness marker; a range selects
    /// only the samples within it.
    fn scraped_in(&self, minute: Minute) -> Expr {
        Expr::Or(self.presence_exprs(
            |selector| {
                Expr::MaxOverTime(minute.map_or(selector.clone(), |offset| selector.offset(offset)), "1m")
            },
            |query| Expr::CustomOverMinute(query, minute),
        ))
    }

    fn of_models(&self, selector: Selector, models: &ModelNames) -> Selector {
        selector.with_any("model", models.iter()).with("namespace", &self.namespace)
    }

    /// The sum, or 0 without series while Prometheus scrapes the router.
    pub(super) fn total(&self, demand: Expr) -> Expr {
        let mut alternatives = vec![Expr::sum(demand)];
        alternatives.extend(self.presence().into_iter().map(|sign| Expr::Zero(Box::new(sign))));
        Expr::Or(alternatives)
    }

    /// Samples that exist while Prometheus scrapes the router.
    pub(super) fn presence(&self) -> Vec<Expr> {
        self.presence_exprs(Expr::Series, Expr::Custom)
    }

    /// Samples that exist if Prometheus scraped the router at the start of the window, with or without
    /// requests for any model.
    fn was_present(&self) -> Expr {
        Expr::Or(self.presence_exprs(
            |selector| Expr::Series(selector.offset(WINDOW)),
            |query| Expr::CustomOverMinute(query, Some(WINDOW)),
        ))
    }

    /// The series of the [`ScrapeSource`], wrapped by `series` or `query`. Routers of Kthena 1.0 and later
    /// always export `kthena_router_active_requests`; older ones export nothing without requests, so `up ==
    /// 1` of their target replaces it.
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

/// Requests for the model within the window: positive after a new counter or an increase of one, and 0
/// without requests.
///
/// The router answers the first request for a model at zero before any scrape, and that response *creates*
/// the counter, which `rate` and `increase` do not count. A counter that reappears because another monitor
/// scrapes it is not new. The query returns nothing in the first two minutes of a Prometheus that started
/// empty, because every series looks new.
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
