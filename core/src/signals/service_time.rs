//! Service times in the history of a model.

use super::{
    EngineSeries,
    backlog::in_flight,
    router::{RouterSeries, located},
};
use crate::{
    domain::{ModelNames, Target},
    promql::{Expr, Factor, RangeFunction, Selector},
};

/// Time from the arrival of a request to the end of its response, in seconds.
const DURATION_SUM: &str = "kthena_router_request_duration_seconds_sum";
const DURATION_COUNT: &str = "kthena_router_request_duration_seconds_count";
const DURATION_BUCKET: &str = "kthena_router_request_duration_seconds_bucket";

/// Numbers of ServingGroups, which the operator exports itself.
const REPLICAS: &str = "kthena_keda_replicas";

/// One window of the history.
const WINDOW: &str = "5m";
/// The instants of one window.
const WITHIN_WINDOW: &str = "5m:1m";
/// Time after a wake in which requests waited for ServingGroups to load.
const AFTER_WAKE: &str = "20m:1m";
/// All windows of the history.
const HISTORY: &str = "1d:5m";

/// Requests that a window needs for its mean to count.
pub const REQUESTS_MIN: u32 = 20;
/// Windows that a service time needs.
pub const WINDOWS_MIN: u32 = 50;

/// Seconds that requests of the last day took: the upper quartile of the means of five minutes, so that times without waiting count as long
/// as they are most of the day. No value without requests.
///
/// It covers requests with status 200, from their arrival at the router to their last byte.
pub fn usual_duration(router: &RouterSeries, models: &ModelNames) -> Expr {
    // Not a number without requests.
    over_history(RangeFunction::UpperQuartileOverTime, mean_duration(router, models).positive())
}

/// Mean duration of the requests of five minutes, in seconds; not a number without requests.
pub fn mean_duration(router: &RouterSeries, models: &ModelNames) -> Expr {
    let rate =
        |metric| Expr::sum(Expr::Range(RangeFunction::Rate, served(metric, router, models), WINDOW.into()));
    Expr::DividedBy(Box::new(rate(DURATION_SUM)), Box::new(rate(DURATION_COUNT)))
}

/// Duration that this percentage of the requests of five minutes does not exceed, in seconds; not a number without
/// requests.
pub fn duration_quantile(router: &RouterSeries, models: &ModelNames, percent: u8) -> Expr {
    let buckets = Expr::Range(RangeFunction::Rate, served(DURATION_BUCKET, router, models), WINDOW.into());
    Expr::Quantile(percent, Box::new(Expr::sum_by(&["le"], buckets)))
}

fn served(metric: &'static str, router: &RouterSeries, models: &ModelNames) -> Selector {
    router.of_models(Selector::metric(metric).with("status_code", "200"), models)
}

fn over_history(function: RangeFunction, of: Expr) -> Expr {
    Expr::Subquery { function, of: Box::new(of), window: HISTORY, offset: None }
}

/// A value of the windows, if there are enough of them and requests were counted a day ago already.
fn with_confidence(window: Expr, counter_a_day_ago: Expr) -> Expr {
    let windows = over_history(RangeFunction::CountOverTime, window.clone());
    over_history(RangeFunction::UpperQuartileOverTime, window)
        .if_any(windows.at_least(WINDOWS_MIN))
        .if_any(counter_a_day_ago)
}

/// Queries of the last day of one model.
#[derive(Clone, Copy, Debug)]
pub struct ServiceTimeHistory<'a> {
    /// Location of the router's series.
    pub router: &'a RouterSeries,
    /// Names whose requests count.
    pub models: &'a ModelNames,
    /// The ModelServing's namespace.
    pub namespace: &'a str,
    /// The ModelServing's name.
    pub model_serving: &'a str,
    /// Requests in flight that one ServingGroup is to have.
    pub target: Target,
    /// Maximum number of ServingGroups.
    pub max: u32,
}

impl ServiceTimeHistory<'_> {
    /// Seconds that a ServingGroup takes for one request that does not wait, by the router: the upper quartile of the means of windows in
    /// which nothing had to wait. No value without confidence, or without the operator's own series.
    pub fn service_time(&self) -> Expr {
        let count = served(DURATION_COUNT, self.router, self.models);
        with_confidence(self.unsaturated_window(), a_day_ago(count))
    }

    /// Number of windows that count for [`Self::service_time`].
    pub fn windows(&self) -> Expr {
        over_history(RangeFunction::CountOverTime, self.unsaturated_window())
    }

    /// One sample if requests waited in more than half of the windows with traffic, although more ServingGroups were allowed: a service
    /// time that is too short leaves such a queue.
    pub fn standing_queue(&self) -> Expr {
        let allowed = within_window(RangeFunction::MinOverTime, self.replicas("spec")).at_least(self.max);
        let queue = self.capacity(RangeFunction::MaxOverTime);
        let queue = queue.at_most(within_window(RangeFunction::MinOverTime, self.in_flight()));
        let waiting = over_history(RangeFunction::CountOverTime, queue.if_none(allowed));
        let busy = over_history(RangeFunction::CountOverTime, self.busy());
        let half = busy.clone().times(Factor::thousandths(500));
        waiting.minus(half).positive().if_any(busy.at_least(WINDOWS_MIN))
    }

    /// Mean duration of the requests in a window with traffic in which none had to wait: there were no more than the target of the ready
    /// ServingGroups, none was being added, and the model had not just woken.
    fn unsaturated_window(&self) -> Expr {
        let ready = || within_window(RangeFunction::MinOverTime, self.replicas("ready"));
        let in_flight = within_window(RangeFunction::MaxOverTime, self.in_flight());
        let requested = within_window(RangeFunction::MaxOverTime, self.replicas("spec"));
        let awake = Expr::Subquery {
            function: RangeFunction::MinOverTime,
            of: Box::new(self.replicas("ready")),
            window: AFTER_WAKE,
            offset: None,
        };
        mean_duration(self.router, self.models)
            .if_any(self.busy())
            .if_any(in_flight.at_most(self.capacity(RangeFunction::MinOverTime)))
            .if_any(requested.at_most(ready()))
            .if_any(awake.positive())
    }

    fn in_flight(&self) -> Expr {
        in_flight(self.router, self.models)
    }

    /// Windows with enough requests.
    fn busy(&self) -> Expr {
        let count = served(DURATION_COUNT, self.router, self.models);
        Expr::sum(Expr::Range(RangeFunction::Increase, count, WINDOW.into())).at_least(REQUESTS_MIN)
    }

    /// Requests in flight that the ready ServingGroups are to have.
    fn capacity(&self, function: RangeFunction) -> Expr {
        within_window(function, self.replicas("ready"))
            .times(Factor::thousandths(self.target.in_thousandths()))
    }

    fn replicas(&self, state: &str) -> Expr {
        let series = Selector::metric(REPLICAS)
            .with("namespace", self.namespace)
            .with("model_serving", self.model_serving)
            .with("state", state);
        // Two leaders export them for a moment.
        Expr::max(Expr::Series(located(series, &self.router.matchers)))
    }
}

impl EngineSeries {
    /// Seconds for which engines ran a request, the time in their queue excluded: the upper quartile of the means of windows. No value
    /// without confidence; `None` if the engine exports no such time.
    pub fn service_time(&self) -> Option<Expr> {
        let (sum, count) = self.engine.inference_time()?;
        let over = |function, metrics| {
            Expr::sum(self.own_with(metrics, |series| Expr::Range(function, series, WINDOW.into())))
        };
        let mean = Expr::DividedBy(
            Box::new(over(RangeFunction::Rate, sum)),
            Box::new(over(RangeFunction::Rate, count)),
        );
        let busy = over(RangeFunction::Increase, count).at_least(REQUESTS_MIN);
        Some(with_confidence(mean.if_any(busy), self.own_with(count, a_day_ago)))
    }
}

fn within_window(function: RangeFunction, of: Expr) -> Expr {
    Expr::Subquery { function, of: Box::new(of), window: WITHIN_WINDOW, offset: None }
}

/// Samples of series that existed a day ago.
fn a_day_ago(series: Selector) -> Expr {
    Expr::Range(RangeFunction::LastOverTime, series.offset("1d"), "2h".into())
}
