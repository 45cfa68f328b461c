//! Queries to Prometheus for one ModelServing, one per signal.

use super::{
    Finding,
    demand::{self, DemandShare},
    engine::{Engines, engines},
    finding::listed,
    query_length::{LENGTH_MAX, encoded_length},
    service_time,
};
use crate::{
    api::{annotations::AnnotationKey, keda::MetricType},
    domain::{ModelNames, Objective, ServiceTime, ServiceTimeSetting, Target},
    intent::{Intent, SignalSource, SignalTarget},
    observed::Observed,
    promql::{Expr, Subject},
    signals::{
        ACTIVATION, BoundedBacklog, Demand, DemandScope, Engine, EngineSeries, LatencySignal, RouterSeries,
        ServiceTimeHistory, Signal, activation, bounded_requests,
    },
};

/// Threshold that no demand reaches: the activation trigger wakes a model and never sizes it.
const OUT_OF_REACH: &str = "1000000000";

/// One query, and how its result becomes a number of ServingGroups.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// Unique within the ScaledObject.
    pub name: String,
    /// PromQL.
    pub query: String,
    /// Target per ServingGroup, in the unit of the query.
    pub threshold: String,
    /// Formula of the HPA: a total divided by the threshold, or a level compared with it.
    pub metric_type: MetricType,
    /// Result above which KEDA wakes a model at zero; `None` leaves KEDA's default of 0.
    pub activation: Option<String>,
}

/// Triggers of one ModelServing, and the targets that Prometheus scrapes for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Triggers {
    /// In the order of the ScaledObject's triggers.
    pub triggers: Vec<TriggerSpec>,
    /// Scrape target in its pods; `None` if no signal needs it.
    pub engines: Option<Engines>,
    /// Location of the router's series.
    pub router: RouterSeries,
    /// Names whose requests count; `None` if they count by ModelServer.
    pub names: Option<ModelNames>,
    /// `true` if the router counts each request twice, which doubles the targets of its signals.
    pub counts_twice: bool,
    /// Time for one request that bounds the backlog; `None` if every request in flight counts.
    pub service_time: Option<ServiceTime>,
    /// Measurements of `active-requests`, if its backlog is bounded.
    pub backlog: Option<BoundedBacklog>,
    /// Queries of the history of the service time, if one is set or to be measured.
    pub history: Option<ServiceTimeQueries>,
    /// Measurements of the latency signals, in the order of the triggers.
    pub latencies: Vec<LatencySignal>,
    /// Requests that the queries do not count, and why.
    pub warnings: Vec<String>,
}

/// Queries of the history of a model's service time.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTimeQueries {
    /// Seconds for one request by the engines; `None` if Prometheus does not scrape them.
    pub by_engines: Option<Expr>,
    /// Seconds for one request by the router.
    pub by_router: Expr,
    /// Number of windows that count for the router's time.
    pub windows: Expr,
    /// One sample if requests waited for most of the last day.
    pub standing_queue: Expr,
}

/// Builds a trigger for every signal of the intent, and the activation trigger for a minimum of 0.
///
/// # Errors
/// All problems that keep a signal from being measured.
pub(super) fn triggers(observed: &Observed, intent: &Intent) -> Result<Triggers, Vec<Finding>> {
    triggers_of(observed, intent, None)
}

/// The part of a model that is scaled by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoleScope<'a> {
    /// Name of the role.
    pub(super) name: &'a str,
    /// Number of ServingGroups, each of which has as many instances of the role.
    pub(super) groups: u32,
}

/// [`triggers`] of one role: of its pods, and with a target for all ServingGroups together, since the number that the HPA
/// computes is that of the instances in each of them.
pub(super) fn triggers_of(
    observed: &Observed,
    intent: &Intent,
    role: Option<RoleScope<'_>>,
) -> Result<Triggers, Vec<Finding>> {
    let router = intent.profile.router_series(&observed.router);
    let share = demand::share(intent, &observed.routing)
        .or_else(|finding| demand::established(observed, intent).ok_or(finding))
        .map_err(|finding| vec![finding])?;
    let builder = QueryBuilder::new(observed, intent, role, &router, &share);
    let mut findings = cannot_wake(intent, &share);
    let mut triggers = Vec::new();
    for signal in &intent.signals {
        match builder.trigger(signal) {
            Ok(trigger) => triggers.push(trigger),
            Err(finding) if findings.contains(&finding) => {}
            Err(finding) => findings.push(finding),
        }
    }
    if let (0, Some(models)) = (intent.replicas.min(), &share.whole) {
        triggers.push(TriggerSpec {
            name: ACTIVATION.to_owned(),
            query: activation(models, &router).to_string(),
            threshold: OUT_OF_REACH.to_owned(),
            metric_type: MetricType::AverageValue,
            activation: Some(intent.profile.activation.to_string()),
        });
    }
    let engines = intent.signals.iter().any(needs_engines).then(|| builder.engines()).and_then(Result::ok);
    if !findings.is_empty() {
        return Err(findings);
    }
    let latencies = builder.latencies();
    let mut warnings = warnings(intent, &share);
    let (service_time, history) = (builder.service_time, builder.history());
    let backlog = match builder.bounded {
        Some(Ok(bounded)) => Some(bounded),
        Some(Err(cause)) => {
            warnings.push(cause.warning(intent.backlog.service_time));
            None
        }
        None => None,
    };
    let counts_twice = share.counts_twice;
    let names = match share.demanded {
        DemandScope::Models(names) => Some(names),
        DemandScope::Servers(_) => None,
    };
    Ok(Triggers {
        triggers,
        engines,
        router,
        names,
        counts_twice,
        service_time,
        backlog,
        history,
        latencies,
        warnings,
    })
}

const fn needs_engines(signal: &SignalTarget) -> bool {
    signal.source.is_of_engines()
}

/// Problems that keep a model at zero from being woken.
fn cannot_wake(intent: &Intent, share: &DemandShare) -> Vec<Finding> {
    if intent.replicas.min() > 0 {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if intent.signals.iter().all(needs_engines) {
        findings.push(Finding::no_engines_at_zero());
    }
    if share.whole.is_none() && share.receives {
        findings.push(Finding::split_at_zero(&share.elsewhere));
    }
    findings
}

/// Requests that the queries do not count.
fn warnings(intent: &Intent, share: &DemandShare) -> Vec<String> {
    let mut warnings = share.warnings.clone();
    if !share.receives && intent.replicas.min() == 0 {
        warnings.push(
            "no ModelRoute sends requests to the ModelServers of this ModelServing now, so nothing wakes it at zero; before you route a part of the requests to them, set a minimum of at least 1".to_owned(),
        );
    }
    let further: Vec<&str> = share.further.iter().map(String::as_str).collect();
    let custom = intent.signals.iter().filter_map(|signal| match &signal.source {
        SignalSource::Custom(custom) if custom.query.uses_one_model() => Some(&custom.name),
        _ => None,
    });
    warnings.extend(custom.filter(|_| !further.is_empty()).map(|name| {
        format!(
            "the query of signal {name} compares {{{{model}}}} by =, so it does not count requests for {}, which routes lead to this model too; use =~ in the AutoscalingProfile",
            listed(&further)
        )
    }));
    warnings
}

/// Cause for which a backlog counts whole, although a service time is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unbounded {
    /// The router counts arrivals by model name only.
    Split,
    /// A query with so many names could be rejected on its way.
    TooLong,
    /// A backlog that is to be worked off within the time of one request counts whole.
    Slow,
}

impl Unbounded {
    fn warning(self, service_time: ServiceTimeSetting) -> String {
        let cause = match self {
            Self::Split => {
                "kthena-router counts no arrivals for a part of the requests of a model".to_owned()
            }
            Self::TooLong => format!("its query would have more than {LENGTH_MAX} bytes after URL encoding"),
            Self::Slow => "it is not shorter than backlog.drainTime of the AutoscalingProfile".to_owned(),
        };
        format!(
            "the service time {service_time} has no effect on active-requests, because {cause}, so all requests in flight count; set {} to off",
            AnnotationKey::ServiceTime
        )
    }
}

struct QueryBuilder<'a> {
    observed: &'a Observed,
    intent: &'a Intent,
    role: Option<RoleScope<'a>>,
    router: &'a RouterSeries,
    share: &'a DemandShare,
    /// Time for one request that bounds the backlog.
    service_time: Option<ServiceTime>,
    /// `active-requests` with a bounded backlog; `None` if the signal is not used, or all of the backlog counts.
    bounded: Option<Result<BoundedBacklog, Unbounded>>,
}

impl<'a> QueryBuilder<'a> {
    fn new(
        observed: &'a Observed,
        intent: &'a Intent,
        role: Option<RoleScope<'a>>,
        router: &'a RouterSeries,
        share: &'a DemandShare,
    ) -> Self {
        let service_time = service_time::in_force(observed, intent);
        let mut builder = Self { observed, intent, role, router, share, service_time, bounded: None };
        builder.bounded = builder.bounded_requests();
        builder
    }

    fn trigger(&self, signal: &SignalTarget) -> Result<TriggerSpec, Finding> {
        let SignalTarget { source, target } = signal;
        let mut target = *target;
        let mut metric_type = MetricType::AverageValue;
        let query = match source {
            SignalSource::Demand(demand) => {
                if self.share.counts_twice && demand.is_counted_by_server() {
                    target = target.doubled();
                }
                self.demand(*demand)?.to_string()
            }
            SignalSource::Saturation(saturation) => {
                saturation.query(&self.engine_series(self.engines()?.engine)).to_string()
            }
            SignalSource::Latency(objective) => self.latency(*objective)?.total.to_string(),
            SignalSource::Custom(custom) => {
                metric_type = custom.metric_type;
                let names: Vec<&str> = self.intent.models.iter().collect();
                let adapters: Vec<&str> = self.share.further.iter().map(String::as_str).collect();
                let (namespace, name) = self.key();
                let subject = Subject {
                    models: &names,
                    adapters: &adapters,
                    namespace,
                    name,
                    matchers: &self.router.matchers,
                };
                custom
                    .query
                    .fill(&subject)
                    .map_err(|error| Finding::custom_signal(&custom.name, &error))?
                    .to_string()
            }
        };
        let target = self.role.map_or(target, |role| target.times(role.groups));
        Ok(TriggerSpec {
            name: source.name().to_owned(),
            query,
            threshold: target.to_string(),
            metric_type,
            activation: None,
        })
    }

    fn bounded_requests(&self) -> Option<Result<BoundedBacklog, Unbounded>> {
        if self.intent.backlog.service_time == ServiceTimeSetting::Off {
            return None;
        }
        self.active_requests()?;
        let DemandScope::Models(models) = &self.share.demanded else { return Some(Err(Unbounded::Split)) };
        let bound = (self.service_time?, self.intent.backlog);
        let Some(bounded) = bounded_requests(models, self.router, bound, self.scraped_engines().as_ref())
        else {
            return Some(Err(Unbounded::Slow));
        };
        let is_long = encoded_length(&bounded.total.to_string()) > LENGTH_MAX;
        Some(if is_long { Err(Unbounded::TooLong) } else { Ok(bounded) })
    }

    /// Target of the signal whose backlog can be bounded.
    fn active_requests(&self) -> Option<Target> {
        let is_active_requests =
            |signal: &&SignalTarget| signal.source == SignalSource::Demand(Demand::ActiveRequests);
        self.intent.signals.iter().find(is_active_requests).map(|signal| signal.target)
    }

    /// Series of the engines, if a signal needs them.
    fn scraped_engines(&self) -> Option<EngineSeries> {
        self.intent
            .signals
            .iter()
            .any(needs_engines)
            .then(|| self.engines().ok())
            .flatten()
            .map(|engines| self.engine_series(engines.engine))
    }

    fn history(&self) -> Option<ServiceTimeQueries> {
        let DemandScope::Models(models) = &self.share.demanded else { return None };
        let (namespace, model_serving) = self.key();
        let history = ServiceTimeHistory {
            router: self.router,
            models,
            namespace,
            model_serving,
            target: self.active_requests()?,
            max: self.intent.replicas.max().unsigned_abs(),
        };
        let is_set = self.intent.backlog.service_time != ServiceTimeSetting::Off;
        is_set.then(|| ServiceTimeQueries {
            by_engines: self.scraped_engines().as_ref().and_then(EngineSeries::service_time),
            by_router: history.service_time(),
            windows: history.windows(),
            standing_queue: history.standing_queue(),
        })
    }

    /// The query of a signal of the router. One that is not counted by ModelServer counts by name, if all
    /// requests for the names come here or none does.
    fn demand(&self, demand: Demand) -> Result<Expr, Finding> {
        if let (Demand::ActiveRequests, Some(Ok(bounded))) = (demand, &self.bounded) {
            return Ok(bounded.total.clone());
        }
        let by_name = || self.share.whole.clone().map(DemandScope::Models);
        let scope = Some(&self.share.demanded).filter(|scope| demand.query(scope, self.router).is_some());
        let query = match scope.cloned().or_else(by_name) {
            Some(scope) => demand.query(&scope, self.router),
            None => (!self.share.receives).then(|| self.router.no_demand()),
        };
        query.ok_or_else(|| Finding::signal_not_split(Signal::Demand(demand).name(), &self.share.elsewhere))
    }

    fn key(&self) -> (&str, &str) {
        let metadata = &self.observed.model_serving.metadata;
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }

    fn latencies(&self) -> Vec<LatencySignal> {
        let objectives = self.intent.signals.iter().filter_map(|signal| match signal.source {
            SignalSource::Latency(objective) => Some(objective),
            _ => None,
        });
        objectives.filter_map(|objective| self.latency(objective).ok()).collect()
    }

    fn latency(&self, objective: Objective) -> Result<LatencySignal, Finding> {
        let engines = self.engine_series(self.engines()?.engine);
        Ok(LatencySignal::of(&engines, objective, self.intent.profile.monitors.interval))
    }

    fn engines(&self) -> Result<Engines, Finding> {
        engines(self.intent, &self.observed.routing).map_err(|error| Finding::invalid(&[error]))
    }

    fn engine_series(&self, engine: Engine) -> EngineSeries {
        let (namespace, name) = self.key();
        EngineSeries {
            engine,
            namespace: namespace.to_owned(),
            model_serving: name.to_owned(),
            role: self.role.map(|role| role.name.to_owned()),
            matchers: self.router.matchers.clone(),
            at_zero: (self.intent.replicas.min() == 0).then(|| self.router.clone()),
        }
    }
}
