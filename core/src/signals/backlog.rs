//! The query of `active-requests` with a bounded backlog.
//!
//! By Little's law the requests in flight are the arrival rate times the time that each request spends, waiting included. While
//! ServingGroups load, waiting grows, and the total asks for groups that are not needed once those have loaded. The bounded total is
//!
//! ```text
//! base  = min(in flight, headroom · arrivals per second · service time)
//! total = base + (in flight − base) · service time / drain time
//! ```
//!
//! Arrivals are exact: each request is counted by the gauge while it is in flight, and by the counter afterwards (Kthena
//! `pkg/kthena-router/router/router.go`, one deferred function ends both). So the arrivals of a window are the difference of counter plus
//! gauge between its ends.

use super::router::{DOWNSTREAM, POD_LABELS, REQUESTS, RouterSeries, TARGET_LABELS};
use crate::{
    domain::{Backlog, ModelNames, ServiceTime},
    promql::{Expr, Factor, RangeFunction, Selector},
};

/// Shortest window of the arrival rate, in seconds: four scrapes at the default interval, and two at the longest.
const WINDOW: u32 = 60;

/// Time from the arrival of a request to the end of its response, in seconds.
const DURATION_SUM: &str = "kthena_router_request_duration_seconds_sum";
const DURATION_COUNT: &str = "kthena_router_request_duration_seconds_count";

/// Status codes with which the router refuses a request at once (`pkg/kthena-router/router/router.go`): rate limits, and engines whose
/// queues are all full. Such a request is never in flight for long, and clients repeat it. An engine's own 400 and 429 reach the counter as
/// 404.
const REFUSED: [&str; 2] = ["400", "429"];

/// Bound with a service time that is shorter than the drain time.
struct Bound {
    service_time: ServiceTime,
    backlog: Backlog,
}

/// Seconds that requests of the last day took: the upper quartile of the means of five minutes, so that times without waiting count as long
/// as they are most of the day. No value without requests.
///
/// It covers requests with status 200, from their arrival at the router to their last byte.
pub fn measured_service_time(router: &RouterSeries, models: &ModelNames) -> Expr {
    let rate = |metric| {
        let served = router.of_models(Selector::metric(metric).with("status_code", "200"), models);
        Box::new(Expr::sum(Expr::Range(RangeFunction::Rate, served, "5m".into())))
    };
    let mean = Expr::DividedBy(rate(DURATION_SUM), rate(DURATION_COUNT));
    Expr::Subquery {
        function: RangeFunction::UpperQuartileOverTime,
        // Not a number without requests.
        of: Box::new(Expr::Positive(Box::new(mean))),
        window: "1d:5m",
        offset: None,
    }
}

/// A bounded backlog, and the measurements that it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundedBacklog {
    /// The total that counts as demand.
    pub total: Expr,
    /// Requests in flight.
    pub in_flight: Expr,
    /// Arriving requests per second; no value while they cannot be measured.
    pub arrival_rate: Expr,
}

impl BoundedBacklog {
    /// Requests in flight with a bounded backlog. `running` are the requests that run in the engines: so many are served, whatever the
    /// service time says. `None` if all of the backlog counts.
    ///
    /// The total equals the requests in flight while the arrivals cannot be measured: after a scrape that failed, while routers start,
    /// restart or end, without the router's counter, and before Kthena 1.0.
    pub(super) fn of(
        in_flight: Expr,
        router: &RouterSeries,
        models: &ModelNames,
        backlog: Backlog,
        running: Option<Expr>,
    ) -> Option<Self> {
        let bound = Bound::of(backlog)?;
        let deferred = bound.deferred_share()?;
        let measured = |value: Expr| {
            let unmeasured = Expr::Or(unmeasured(router, models, bound.longest_window()).into());
            Expr::IfNone(Box::new(value), Box::new(unmeasured))
                .if_any(router.fresh())
                .if_any(router.counts_requests(Selector::metric(REQUESTS)))
        };
        let arrivals =
            |factor: Factor, window| Expr::Times(factor, Box::new(arrivals(router, models, window)));
        let windows = bound.windows();
        let served =
            windows.iter().filter_map(|window| Some(arrivals(bound.requests_per_arrival(*window)?, *window)));
        let base = Expr::Greatest(served.chain(running).collect());
        // Without a value instead of 0.
        let requests =
            Expr::sum(Expr::max_by(&["namespace", "pod", "model"], Expr::Series(gauge(router, models))));
        let excess = Expr::NotNegative(Box::new(Expr::Minus(Box::new(requests), Box::new(base))));
        let deferred = Expr::OrZero(Box::new(measured(Expr::Times(deferred, Box::new(excess)))));
        let per_second =
            windows.iter().filter_map(|window| Some(arrivals(Factor::ratio(1, (*window).into())?, *window)));
        Some(Self {
            total: Expr::Minus(Box::new(in_flight.clone()), Box::new(deferred)),
            arrival_rate: measured(Expr::Greatest(per_second.collect())),
            in_flight,
        })
    }
}

impl Bound {
    /// `None` for a backlog that is not bounded.
    fn of(backlog: Backlog) -> Option<Self> {
        Some(Self { service_time: backlog.service_time?, backlog })
    }

    /// Part of a backlog that waits for groups that are there already; `None` if the backlog is to be worked off within the service time,
    /// so that all of it counts.
    fn deferred_share(&self) -> Option<Factor> {
        let drain = u64::from(self.backlog.drain_time.seconds()) * 1000;
        let deferred =
            drain.checked_sub(self.service_time.millis().into()).filter(|deferred| *deferred > 0)?;
        Factor::ratio(deferred, drain)
    }

    /// Windows of the arrival rate, in seconds. The greatest rate counts. Over the service time every request that still runs has arrived,
    /// so long streams are not taken for a backlog when the arrivals stop.
    fn windows(&self) -> Vec<u32> {
        let service_time = self.service_time.millis().div_ceil(1000);
        if service_time > WINDOW { vec![WINDOW, service_time] } else { vec![WINDOW] }
    }

    fn longest_window(&self) -> u32 {
        self.windows().into_iter().max().unwrap_or(WINDOW)
    }

    /// Requests that are served at once for each arrival within a window of so many seconds, with headroom.
    fn requests_per_arrival(&self, window: u32) -> Option<Factor> {
        let served = u64::from(self.backlog.headroom.thousandths()) * u64::from(self.service_time.millis());
        Factor::ratio(served, u64::from(window) * 1_000_000)
    }
}

fn gauge(router: &RouterSeries, models: &ModelNames) -> Selector {
    router.of_models(Selector::metric(DOWNSTREAM), models)
}

fn counter(router: &RouterSeries, models: &ModelNames) -> Selector {
    let served = REFUSED
        .into_iter()
        .fold(Selector::metric(REQUESTS), |counter, code| counter.with_not("status_code", code));
    router.of_models(served, models)
}

/// Requests that arrived within the window that ends now.
fn arrivals(router: &RouterSeries, models: &ModelNames, window: u32) -> Expr {
    let arrived = |ago: Option<u32>| {
        let ended = Expr::Series(at(counter(router, models), ago));
        let in_flight = Expr::Series(at(gauge(router, models), ago));
        let by_target = Expr::sum_by(TARGET_LABELS, Expr::Or(vec![ended, in_flight]));
        Expr::sum(Expr::max_by(POD_LABELS, by_target))
    };
    let before = Expr::OrZero(Box::new(arrived(Some(window))));
    Expr::NotNegative(Box::new(Expr::Minus(Box::new(arrived(None)), Box::new(before))))
}

/// Samples that exist if the ends of the window cannot be compared: a router was not scraped at both of them, or its counter began again.
fn unmeasured(router: &RouterSeries, models: &ModelNames, window: u32) -> [Expr; 4] {
    let series = |selector: Selector, ago| Box::new(Expr::Series(at(selector, ago)));
    let [pods, counter] = [router.active(), counter(router, models)];
    let resets = Expr::Range(RangeFunction::Resets, counter.clone(), seconds(window).into());
    [
        Expr::Unless(series(pods.clone(), None), series(pods.clone(), Some(window))),
        Expr::Unless(series(pods.clone(), Some(window)), series(pods, None)),
        Expr::Unless(series(counter.clone(), Some(window)), series(counter, None)),
        Expr::Positive(Box::new(resets)),
    ]
}

fn at(selector: Selector, seconds_ago: Option<u32>) -> Selector {
    match seconds_ago {
        Some(ago) => selector.offset(seconds(ago)),
        None => selector,
    }
}

fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}
