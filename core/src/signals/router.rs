//! Queries over the series of kthena-router.

use crate::{
    domain::{ModelNames, SeriesMatchers},
    promql::{Expr, Query, RangeFunction, Selector},
};

/// Window of rates: eight scrapes at the default interval and four at the longest, so that one lost scrape
/// leaves no gap.
pub(super) const WINDOW: &str = "2m";

/// Offset of one minute of the window. A window of two minutes has three edges: now, one and two minutes ago.
type Minute = Option<&'static str>;
const MINUTES: [Minute; 3] = [None, Some("1m"), Some("2m")];

/// Labels of a router pod.
pub(super) const POD_LABELS: &[&str] = &["namespace", "pod"];

/// Labels of a scrape target.
pub(super) const TARGET_LABELS: &[&str] = &["namespace", "pod", "job", "instance"];

/// Labels by which the router itself distinguishes its `requests_total` and `tokens_total`, in all releases. A label
/// that is missing here would turn a sum over several paths into a maximum.
const COUNTER_LABELS: &[&str] = &[
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

/// Requests in flight, by model name. A router exports it from the first request for any model on.
pub(super) const DOWNSTREAM: &str = "kthena_router_active_downstream_requests";

/// Requests in flight, by ModelServer.
const UPSTREAM: &str = "kthena_router_active_upstream_requests";

/// Requests in flight, of all models. Kthena 1.0 and later always export it.
const ACTIVE: &str = "kthena_router_active_requests";

/// Requests, and tokens in prompts and responses, by model name.
pub(super) const REQUESTS: &str = "kthena_router_requests_total";
const TOKENS: &str = "kthena_router_tokens_total";

/// Both queues. A router runs one of them, so their sum is the length of the existing one.
const QUEUES: &[&str] = &["kthena_router_fairness_queue_size", "kthena_router_session_boost_queue_size"];

/// Labels of the router's gauge of requests to ModelServers in all releases.
const UPSTREAM_LABELS: &[&str] =
    &["namespace", "pod", "model_server", "model_route", "backend_type", "backend_name", "upstream_model"];

/// Counters that increase with a request for a model without ServingGroups.
/// Every release counts input tokens on arrival, but none those of messages without text, such as images; only
/// Kthena 0.4 and later count requests. So neither replaces the other.
const ARRIVALS: &[&str] = &[REQUESTS, TOKENS];

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
    /// Labels of all series, which the profile sets for a store of several clusters.
    pub matchers: SeriesMatchers,
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
    /// A router that is scraped in this way, in a store of one cluster.
    pub fn new(namespace: impl Into<String>, source: ScrapeSource) -> Self {
        Self { namespace: namespace.into(), source, matchers: SeriesMatchers::default() }
    }

    /// A router whose Service has the name that Kthena's chart gives it; for namespaces in which the operator
    /// does not look for one.
    pub fn assumed(namespace: &str) -> Self {
        Self::new(namespace, ScrapeSource::Service("kthena-router".to_owned()))
    }

    /// Applies the overrides. In another namespace the operator has detected nothing, so the router is
    /// [assumed](Self::assumed).
    #[must_use]
    pub fn with_overrides(&self, settings: &RouterSettings, matchers: &SeriesMatchers) -> Self {
        let mut series = match &settings.namespace {
            Some(namespace) if *namespace != self.namespace => Self::assumed(namespace),
            _ => self.clone(),
        };
        if let Some(presence) = &settings.presence {
            series.source = ScrapeSource::Query(presence.clone());
        }
        Self { matchers: matchers.clone(), ..series }
    }

    /// 0 while Prometheus scrapes the router: the demand for a model that receives no requests.
    pub fn no_demand(&self) -> Expr {
        let zeros = self.presence().into_iter().map(|sign| Expr::Zero(Box::new(sign)));
        Expr::Or(zeros.collect())
    }

    pub(super) fn active_requests(&self, models: &ModelNames) -> Expr {
        let gauge = self.of_models(Selector::metric(DOWNSTREAM), models);
        let total = Expr::max_by(&["namespace", "pod", "model"], Expr::Series(gauge));
        Self::total(total, self.no_requests_in_flight(DOWNSTREAM))
    }

    pub(super) fn upstream_requests(&self, servers: &[String]) -> Expr {
        let gauge = Selector::metric(UPSTREAM).with_any("model_server", servers.iter().map(String::as_str));
        let total = Expr::max_by(UPSTREAM_LABELS, Expr::Series(self.own(gauge)));
        Self::total(total, self.no_requests_in_flight(UPSTREAM))
    }

    pub(super) fn queued_requests(&self, models: &ModelNames) -> Expr {
        let queues = Expr::any_metric(QUEUES, |queue| self.of_models(queue, models), Expr::Series);
        let total = Expr::max_by(&["namespace", "pod", "model", "user_id"], queues);
        Self::total(total, self.presence())
    }

    pub(super) fn request_rate(&self, models: &ModelNames) -> Expr {
        self.rate(Selector::metric(REQUESTS), models)
    }

    pub(super) fn output_tokens(&self, models: &ModelNames) -> Expr {
        self.rate(Selector::metric(TOKENS).with("token_type", "output"), models)
    }

    /// The rate, if Prometheus scraped the router in every minute of the window. Over a part of the window
    /// the rate would be too low: after a start of Prometheus, the end of a router or the deletion of a
    /// monitor.
    fn rate(&self, counter: Selector, models: &ModelNames) -> Expr {
        let rate = Expr::Range(RangeFunction::Rate, self.of_models(counter.clone(), models), WINDOW.into());
        let total = Self::total(
            Expr::max_by([POD_LABELS, COUNTER_LABELS].concat(), rate),
            self.no_requests_counted(counter),
        );
        MINUTES.into_iter().fold(total, |total, minute| total.if_any(self.scraped_in("1m", "1m:15s", minute)))
    }

    /// Samples that exist if Prometheus scraped the router within a window, which ended `offset` ago. The
    /// sample of an instant selector may be five minutes old, and deleting a monitor leaves no staleness
    /// marker; a range selects only the samples within it.
    fn scraped_in(&self, window: &'static str, subquery: &'static str, offset: Minute) -> Expr {
        let over = |selector: Selector| {
            let selector = offset.map_or(selector.clone(), |offset| selector.offset(offset));
            Expr::Range(RangeFunction::MaxOverTime, selector, window.into())
        };
        match self.up() {
            Err(query) => Expr::max(Expr::Subquery {
                function: RangeFunction::MaxOverTime,
                of: Box::new(Expr::Custom(query)),
                window: subquery,
                offset,
            }),
            Ok(up) => Expr::Or(vec![
                Expr::max(over(self.own(Selector::metric(ACTIVE)))),
                Expr::max(Expr::Is(Box::new(over(up)), 1)),
            ]),
        }
    }

    pub(super) fn of_models(&self, selector: Selector, models: &ModelNames) -> Selector {
        self.own(selector.with_any("model", models.iter()))
    }

    /// Adds what all series of the router have in common. A series without a pod could be that of any router,
    /// so the requests of several would become a maximum instead of a sum.
    fn own(&self, selector: Selector) -> Selector {
        located(selector.with("namespace", &self.namespace), &self.matchers).with_some("pod")
    }

    /// `up` of the router's targets.
    ///
    /// # Errors
    /// The query of the platform team that replaces it.
    fn up(&self) -> Result<Selector, Query> {
        self.of_source(Selector::metric("up"))
    }

    fn of_source(&self, selector: Selector) -> Result<Selector, Query> {
        match &self.source {
            ScrapeSource::Service(name) => Ok(self.own(selector).with("service", name)),
            ScrapeSource::Job(job) => Ok(self.own(selector).with("job", job)),
            ScrapeSource::Query(written) => Err(written.clone()),
        }
    }

    /// The sum, or 0 without series while there is evidence that there are none to sum up.
    fn total(demand: Expr, evidence: Vec<Expr>) -> Expr {
        Expr::Or([Expr::sum(demand)].into_iter().chain(evidence.into_iter().map(Expr::zero)).collect())
    }

    /// The sum, or 0 without series while Prometheus scrapes the router.
    pub(super) fn total_or_idle(&self, load: Expr) -> Expr {
        Self::total(load, self.presence())
    }

    /// Samples that exist while Prometheus scrapes the router and its gauges.
    pub(super) fn presence(&self) -> Vec<Expr> {
        let always = Expr::max(Expr::Series(self.active()));
        self.evidence(DOWNSTREAM, always)
    }

    /// Evidence for 0 where a gauge of requests in flight has no series of the model: the gauge has series of
    /// others, or the router has no requests at all. A monitor may drop the gauge.
    fn no_requests_in_flight(&self, gauge: &'static str) -> Vec<Expr> {
        let always = Expr::max(Expr::Series(self.active()));
        self.evidence(gauge, Expr::Is(Box::new(always), 0))
    }

    /// Evidence for 0 where a counter has no series of the model: it has series of others, or the router has
    /// not had a request for any model. A monitor may drop the counter.
    fn no_requests_counted(&self, counter: Selector) -> Vec<Expr> {
        let series = |metric| Expr::max(Expr::Series(self.own(Selector::metric(metric))));
        let unused = series(ACTIVE).if_none(series(DOWNSTREAM));
        let others = Expr::max(Expr::Series(self.own(counter)));
        self.evidence_from(others, unused)
    }

    /// The gauge of all requests, which each router exports from Kthena 1.0 on.
    pub(super) fn active(&self) -> Selector {
        self.own(Selector::metric(ACTIVE))
    }

    /// Samples that exist if Prometheus scraped a router of Kthena 1.0 or later within a minute: the sample of an
    /// instant selector may be five minutes old.
    pub(super) fn fresh(&self) -> Expr {
        Expr::Range(RangeFunction::MaxOverTime, self.active(), "1m".into())
    }

    /// Samples that exist if a counter without series has counted nothing: it has series of others, or
    /// Prometheus kept every sample of a router.
    pub(super) fn counts_requests(&self, counter: Selector) -> Expr {
        let family = Expr::max(Expr::Series(self.own(counter)));
        let alternatives = self.complete_targets().into_iter();
        Expr::Or([family].into_iter().chain(alternatives).collect())
    }

    fn evidence(&self, family: &'static str, always: Expr) -> Vec<Expr> {
        self.evidence_from(Expr::max(Expr::Series(self.own(Selector::metric(family)))), always)
    }

    /// Series of the same family, a condition of the gauge that Kthena 1.0 and later always export, or a
    /// target of an older router, which exports nothing before its first request: of all that it exports,
    /// Prometheus kept every sample.
    fn evidence_from(&self, family: Expr, always: Expr) -> Vec<Expr> {
        match self.complete_targets() {
            Ok(targets) => vec![family, always, targets],
            Err(query) => vec![Expr::max(Expr::Custom(query))],
        }
    }

    /// A sample that exists if Prometheus kept every sample of a target that is up.
    ///
    /// # Errors
    /// The query of the platform team that replaces `up`.
    fn complete_targets(&self) -> Result<Expr, Query> {
        let of_source = |metric| self.of_source(Selector::metric(metric)).map(Expr::Series).map(Box::new);
        let scraped = of_source("scrape_samples_scraped")?;
        let kept = of_source("scrape_samples_post_metric_relabeling")?;
        let complete = Expr::And {
            of: Box::new(Expr::Is(of_source("up")?, 1)),
            on: None,
            present: Box::new(Expr::Equal(scraped, kept)),
        };
        Ok(Expr::max(complete))
    }

    /// Samples with all labels of the router's series, at most `count` from the gauge and from `up`.
    pub(super) fn targets(&self, count: u16) -> Expr {
        let top = |of| Expr::Top(count, Box::new(of));
        let gauge = top(Expr::Series(self.own(Selector::metric(ACTIVE))));
        match self.up() {
            Ok(up) => Expr::Or(vec![gauge, top(Expr::Is(Box::new(Expr::Series(up)), 1))]),
            Err(_) => gauge,
        }
    }

    /// Samples of every target in the router's namespace that Prometheus scrapes.
    fn scraped_targets(&self) -> Expr {
        let series = |metric| Expr::Series(self.own(Selector::metric(metric)));
        Expr::Or(vec![Expr::Is(Box::new(series("up")), 1), series(ACTIVE)])
    }
}

/// Adds the labels of the cluster.
pub(super) fn located(selector: Selector, matchers: &SeriesMatchers) -> Selector {
    matchers.iter().fold(selector, |selector, (label, value)| selector.with(label.to_owned(), value))
}

/// Requests and tokens of the model within the window: positive after a new counter or an increase of one,
/// and 0 without requests.
///
/// The router answers the first request for a model at zero before any scrape, and that response *creates*
/// the counter, which `rate` and `increase` do not count. So the query compares the total of each target with
/// its own last total before the window, where a target that was scraped without a counter has the total 0.
/// Scrapes that fail, routers that come and go, and a Prometheus that starts without data thus look like no
/// request. The query returns nothing while no target was scraped before the window.
pub fn activation(models: &ModelNames, router: &RouterSeries) -> Expr {
    let counters = Expr::any_metric(ARRIVALS, |counter| router.of_models(counter, models), Expr::Series);
    let counted =
        Expr::sum_by(TARGET_LABELS, Expr::max_by([TARGET_LABELS, COUNTER_LABELS].concat(), counters));
    let scraped = Expr::max_by(TARGET_LABELS, router.scraped_targets());
    let total = Expr::Or(vec![counted, scraped.zero()]);
    let before = Expr::Subquery {
        function: RangeFunction::LastOverTime,
        of: Box::new(total.clone()),
        window: "5m:15s",
        offset: Some(WINDOW),
    };
    let growth = total.minus(before).not_negative();
    let arrived = Expr::max_by(POD_LABELS, growth);
    router.total_or_idle(arrived).if_any(router.scraped_in("5m", "5m:15s", Some(WINDOW)))
}
