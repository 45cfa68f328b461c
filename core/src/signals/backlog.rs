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

/// Shortest window of the arrival rate, in seconds: the longest interval between scrapes. A difference of two samples needs no more, and a
/// longer window shows a burst later.
pub const WINDOW: u32 = 30;

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
    /// Requests in flight with a bounded backlog; `None` if all of the backlog counts. `running` are the requests that run in the
    /// engines: so many are served, whatever the service time says.
    ///
    /// The total equals the requests in flight while the arrivals cannot be measured: after a scrape that failed, while routers start,
    /// restart or end, without the router's counter, and before Kthena 1.0.
    pub(super) fn of(
        router: &RouterSeries,
        models: &ModelNames,
        (service_time, backlog): (ServiceTime, Backlog),
        running: Option<Expr>,
    ) -> Option<Self> {
        let bound = Bound::of(service_time, backlog);
        let requests = Requests { router, models };
        let served = bound.windows.iter().filter_map(|window| {
            Some(requests.arrivals(*window).times(bound.requests_per_arrival(*window)?))
        });
        let base = Expr::Greatest(served.chain(running).collect());
        let excess = requests.in_flight().minus(base).not_negative();
        let deferred = requests.if_measured(excess.times(bound.deferred_share()?), &bound).or_zero();
        let rates = bound
            .windows
            .iter()
            .filter_map(|window| Some(requests.arrivals(*window).times(Factor::ratio(1, (*window).into())?)));
        let in_flight = router.active_requests(models);
        Some(Self {
            total: in_flight.clone().minus(deferred),
            arrival_rate: requests.if_measured(Expr::Greatest(rates.collect()), &bound),
            in_flight,
        })
    }
}

/// Bound of a backlog, with a service time.
struct Bound {
    service_time: ServiceTime,
    backlog: Backlog,
    /// Windows of the arrival rate, in seconds, the longest last. The greatest rate counts. Over the service time every request that still
    /// runs has arrived, so long streams are not taken for a backlog when the arrivals stop.
    windows: Vec<u32>,
}

impl Bound {
    fn of(service_time: ServiceTime, backlog: Backlog) -> Self {
        let seconds = service_time.millis().div_ceil(1000);
        let windows = if seconds > WINDOW { vec![WINDOW, seconds] } else { vec![WINDOW] };
        Self { service_time, backlog, windows }
    }

    /// Part of the backlog that does not count; `None` if it is to be worked off within the service time, so that all of it counts.
    fn deferred_share(&self) -> Option<Factor> {
        let drain = u64::from(self.backlog.drain_time.seconds()) * 1000;
        let deferred =
            drain.checked_sub(self.service_time.millis().into()).filter(|deferred| *deferred > 0)?;
        Factor::ratio(deferred, drain)
    }

    /// Requests that are served at a time for each arrival within a window of so many seconds, with headroom.
    fn requests_per_arrival(&self, window: u32) -> Option<Factor> {
        let served = u64::from(self.backlog.headroom.thousandths()) * u64::from(self.service_time.millis());
        Factor::ratio(served, u64::from(window) * 1_000_000)
    }
}

/// Requests in flight, without a value instead of 0.
pub(super) fn in_flight(router: &RouterSeries, models: &ModelNames) -> Expr {
    Requests { router, models }.in_flight()
}

/// Requests for the names at one router.
struct Requests<'a> {
    router: &'a RouterSeries,
    models: &'a ModelNames,
}

impl Requests<'_> {
    fn gauge(&self) -> Selector {
        self.router.of_models(Selector::metric(DOWNSTREAM), self.models)
    }

    /// The counter of requests that ended. Refusals count: a client that asks again is one more that waits, and the total is at most the
    /// requests in flight anyway.
    fn counter(&self) -> Selector {
        self.router.of_models(Selector::metric(REQUESTS), self.models)
    }

    /// Requests in flight, without a value instead of 0.
    fn in_flight(&self) -> Expr {
        Expr::sum(Expr::max_by(&["namespace", "pod", "model"], Expr::Series(self.gauge())))
    }

    /// Requests that have arrived up to a number of seconds ago, since the routers started.
    fn arrived(&self, seconds_ago: Option<u32>) -> Expr {
        let all = Expr::Or(vec![at(self.counter(), seconds_ago), at(self.gauge(), seconds_ago)]);
        Expr::sum(Expr::max_by(POD_LABELS, Expr::sum_by(TARGET_LABELS, all)))
    }

    /// Requests that arrived within the window that ends now.
    fn arrivals(&self, window: u32) -> Expr {
        self.arrived(None).minus(self.arrived(Some(window)).or_zero()).not_negative()
    }

    /// The value, if the ends of the longest window can be compared: the same routers were scraped at both of them, and their counters
    /// went on in between. A failed scrape at the end of a shorter window makes its rate too great, which is harmless.
    fn if_measured(&self, value: Expr, bound: &Bound) -> Expr {
        let Some(window) = bound.windows.last().copied() else { return value };
        let (pods, counter) = (self.router.active(), self.counter());
        // A range begins after its first instant, so it has to reach back to the sample before the window.
        let resets = Expr::Range(RangeFunction::Resets, counter.clone(), seconds(window + WINDOW).into());
        let obstacles = vec![
            at(pods.clone(), None).unless(at(pods.clone(), Some(window))),
            at(pods.clone(), Some(window)).unless(at(pods, None)),
            at(counter.clone(), Some(window)).unless(at(counter, None)),
            resets.positive(),
        ];
        value
            .if_none(Expr::Or(obstacles))
            .if_any(self.router.fresh())
            .if_any(self.router.counts_requests(Selector::metric(REQUESTS)))
    }
}

fn at(selector: Selector, seconds_ago: Option<u32>) -> Expr {
    Expr::Series(match seconds_ago {
        Some(ago) => selector.offset(seconds(ago)),
        None => selector,
    })
}

fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}
