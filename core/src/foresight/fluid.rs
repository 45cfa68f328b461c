//! A fleet in which requests are a fluid: amounts instead of single requests, so that a week takes milliseconds.
//!
//! Requests arrive at a steady rate within a step and take an exponential time; chance within a step is left out, so
//! short waits that chance causes in a busy fleet do not show. [`fleet`](super::fleet) simulates single requests.

use std::collections::VecDeque;

use super::{fleet::Queue, waits::Waits};

/// Longest time that is simulated at once while requests wait, in seconds.
const SLICE: f64 = 1.0;
/// Amount of requests that counts as none.
const NONE: f64 = 1e-6;
/// Amount of waiting requests from which the fleet counts as saturated.
const SATURATED: f64 = 0.5;

/// Properties of a model's fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FluidSpec {
    /// Requests that one ServingGroup serves at the same time, above 0.
    pub slots: f64,
    /// Time from the change of the number of ServingGroups until the new ones are ready, in seconds.
    pub cold_start: f64,
    /// Place where requests wait.
    pub queue: Queue,
}

/// Requests that arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inflow {
    /// Requests per second.
    pub rate: f64,
    /// Mean service time in seconds, above 0.
    pub service_time: f64,
    /// Tokens that are generated for one request.
    pub tokens: f64,
}

/// ServingGroups with the same number of waiting requests each.
#[derive(Clone, Copy, Debug)]
struct Pool {
    groups: f64,
    running: f64,
    waiting: f64,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Requests that ended.
    pub ended: f64,
    /// Requests that the router refused because no ServingGroup was ready.
    pub refused: f64,
    /// Requests whose streams ended with the removal of their ServingGroup.
    pub cut: f64,
    /// Tokens that were generated.
    pub tokens: f64,
    /// ServingGroups that existed, times seconds.
    pub group_seconds: f64,
    /// Seconds in which requests waited.
    pub saturated: f64,
}

/// A model's ServingGroups and its requests.
///
/// The router sends a request to the engine with the least requests. Where requests wait in the engines, those that
/// wait stay where they are when further groups become ready.
#[derive(Debug)]
pub struct Fluid {
    spec: FluidSpec,
    /// Ready groups, the fewest waiting requests per group first.
    pools: Vec<Pool>,
    /// The other groups: the time at which they become ready, and their number; the earliest first.
    starting: VecDeque<(f64, u32)>,
    /// Requests that no group was ready for, with the time of their arrival.
    refused: Vec<(f64, f64)>,
    totals: Totals,
    waits: Waits,
    /// Latest service time, for the groups that begin with a backlog.
    service_time: f64,
}

impl Fluid {
    /// A fleet with `groups` that are ready. Waits above `limit` seconds count as long.
    pub fn new(spec: FluidSpec, groups: u32, limit: f64) -> Self {
        let mut fluid = Self {
            spec,
            pools: Vec::new(),
            starting: VecDeque::new(),
            refused: Vec::new(),
            totals: Totals::default(),
            waits: Waits::new(limit),
            service_time: 1.0,
        };
        if groups > 0 {
            fluid.add_ready(0.0, groups);
        }
        fluid
    }

    /// Sums since the start.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Waiting times so far.
    pub const fn waits(&self) -> &Waits {
        &self.waits
    }

    /// ServingGroups that are ready.
    pub fn ready(&self) -> u32 {
        count(self.ready_groups())
    }

    /// ServingGroups, those that load included.
    pub fn groups(&self) -> u32 {
        self.starting.iter().fold(self.ready(), |sum, (_, groups)| sum.saturating_add(*groups))
    }

    /// Requests that run.
    pub fn running(&self) -> f64 {
        self.pools.iter().map(|pool| pool.running).sum()
    }

    /// Requests that wait in the router or in the engines.
    pub fn waiting(&self) -> f64 {
        self.pools.iter().map(|pool| pool.waiting).sum()
    }

    /// Requests in flight at the router.
    pub fn in_flight(&self) -> f64 {
        self.running() + self.waiting()
    }

    fn ready_groups(&self) -> f64 {
        self.pools.iter().map(|pool| pool.groups).sum()
    }

    /// Creates or removes ServingGroups. Kthena removes those that are not ready first, then the newest.
    pub fn scale(&mut self, now: f64, groups: u32) {
        let existing = self.groups();
        if groups > existing {
            self.starting.push_back((now + self.spec.cold_start, groups - existing));
        }
        let mut surplus = existing.saturating_sub(groups);
        while surplus > 0
            && let Some((at, starting)) = self.starting.pop_back()
        {
            let removed = surplus.min(starting);
            surplus -= removed;
            if starting > removed {
                self.starting.push_back((at, starting - removed));
            }
        }
        self.remove_ready(now, surplus);
    }

    /// Makes this many of the existing groups ready at once, as a record shows it.
    pub fn set_ready(&mut self, now: f64, ready: u32) {
        let ready = ready.min(self.groups());
        let surplus = self.ready().saturating_sub(ready);
        if surplus > 0 {
            self.remove_ready(now, surplus);
            self.starting.push_back((f64::INFINITY, surplus));
        }
        let mut missing = ready.saturating_sub(self.ready());
        while missing > 0
            && let Some((at, starting)) = self.starting.pop_front()
        {
            let added = missing.min(starting);
            missing -= added;
            if starting > added {
                self.starting.push_front((at, starting - added));
            }
            self.add_ready(now, added);
        }
    }

    /// Everything that happens from `now` to `until`, in seconds. Without an inflow it is not known, so requests stay as
    /// they are.
    pub fn advance(&mut self, now: f64, until: f64, inflow: Option<Inflow>) {
        let mut now = now;
        while now < until {
            let next = self.starting.front().map_or(f64::INFINITY, |(ready, _)| *ready);
            let end = next.clamp(now, until);
            self.totals.group_seconds += (end - now) * f64::from(self.groups());
            if let Some(inflow) = inflow {
                self.flow(now, end, inflow);
            }
            now = end;
            while let Some((_, groups)) = self.starting.pop_front_if(|(ready, _)| *ready <= now) {
                self.add_ready(now, groups);
            }
        }
    }

    fn flow(&mut self, mut now: f64, until: f64, inflow: Inflow) {
        self.service_time = inflow.service_time;
        while now < until {
            let whole = until - now;
            if self.pools.is_empty() {
                self.refuse(now, inflow.rate * whole);
                return;
            }
            if self.flow_calmly(whole, inflow) {
                return;
            }
            let slice = whole.min(SLICE);
            self.flow_saturated(slice, inflow);
            now += slice;
        }
    }

    /// The exact course while no request waits; `false` if one would.
    fn flow_calmly(&mut self, seconds: f64, inflow: Inflow) -> bool {
        let [pool] = self.pools.as_mut_slice() else { return false };
        let busy = inflow.rate * inflow.service_time;
        let left = (-seconds / inflow.service_time).exp();
        let running = (pool.running - busy).mul_add(left, busy);
        if pool.waiting > NONE || running > pool.groups * self.spec.slots {
            return false;
        }
        let arrived = inflow.rate * seconds;
        let ended = (pool.running + arrived - running).max(0.0);
        *pool = Pool { running, waiting: 0.0, ..*pool };
        self.end(ended, inflow);
        self.waits.add(0.0, arrived);
        true
    }

    fn flow_saturated(&mut self, seconds: f64, inflow: Inflow) {
        let slots = self.spec.slots;
        let mut ended = 0.0;
        for pool in &mut self.pools {
            ended += pool.serve(seconds, inflow.service_time, slots);
        }
        self.end(ended, inflow);
        self.arrive(inflow.rate * seconds, 0.0);
        if self.waiting() > SATURATED {
            self.totals.saturated += seconds;
        }
    }

    fn end(&mut self, ended: f64, inflow: Inflow) {
        self.totals.ended += ended;
        self.totals.tokens += ended * inflow.tokens;
    }

    /// Adds requests that have waited for some seconds already.
    fn arrive(&mut self, requests: f64, waited: f64) {
        let (slots, service_time) = (self.spec.slots, self.service_time);
        self.merge();
        let Some(pool) = self.pools.first_mut() else { return };
        let free = pool.groups.mul_add(slots, -pool.running).max(0.0);
        pool.running += requests.min(free);
        pool.waiting += (requests - free).max(0.0);
        let wait = waited + pool.waiting * service_time / (pool.groups * slots);
        self.waits.add(wait, requests);
        self.merge();
    }

    fn refuse(&mut self, now: f64, requests: f64) {
        self.totals.refused += requests;
        match self.refused.last_mut() {
            // One entry a minute.
            Some((at, waiting)) if now - *at < 60.0 => *waiting += requests,
            _ => self.refused.push((now, requests)),
        }
    }

    fn add_ready(&mut self, now: f64, groups: u32) {
        self.pools.push(Pool { groups: groups.into(), running: 0.0, waiting: 0.0 });
        self.merge();
        for (at, requests) in std::mem::take(&mut self.refused) {
            self.arrive(requests, now - at);
        }
    }

    /// Removes groups that are ready. Their requests are sent again.
    fn remove_ready(&mut self, now: f64, groups: u32) {
        let (mut surplus, mut running, mut waiting) = (f64::from(groups), 0.0, 0.0);
        while surplus > 0.5
            && let Some(pool) = self.pools.first_mut()
        {
            let removed = surplus.min(pool.groups);
            let share = removed / pool.groups;
            running += pool.running * share;
            waiting += pool.waiting * share;
            pool.running *= 1.0 - share;
            pool.waiting *= 1.0 - share;
            pool.groups -= removed;
            surplus -= removed;
            if pool.groups < 0.5 {
                self.pools.remove(0);
            }
        }
        self.totals.cut += running;
        self.totals.ended += running + waiting;
        if self.pools.is_empty() {
            self.refuse(now, running + waiting);
        } else {
            self.arrive(running + waiting, 0.0);
        }
    }

    /// Brings the pools in order, and joins those whose groups have equally many requests.
    fn merge(&mut self) {
        if self.pools.len() < 2 {
            return;
        }
        self.pools.sort_by(|a, b| a.waiting_per_group().total_cmp(&b.waiting_per_group()));
        let is_shared = self.spec.queue == Queue::Router;
        self.pools.dedup_by(|pool, last| {
            let is_equal = is_shared || pool.waiting_per_group() - last.waiting_per_group() <= NONE;
            if is_equal {
                last.join(pool);
            }
            is_equal
        });
        for pool in &mut self.pools {
            pool.fill(self.spec.slots);
        }
    }
}

impl Pool {
    fn waiting_per_group(&self) -> f64 {
        self.waiting / self.groups
    }

    fn join(&mut self, other: &Self) {
        self.groups += other.groups;
        self.running += other.running;
        self.waiting += other.waiting;
    }

    /// Moves waiting requests into free slots, and running ones out of slots that no longer exist.
    fn fill(&mut self, slots: f64) {
        let all = self.running + self.waiting;
        self.running = all.min(self.groups * slots);
        self.waiting = all - self.running;
    }

    /// Serves requests, and returns the amount that ended.
    fn serve(&mut self, seconds: f64, service_time: f64, slots: f64) -> f64 {
        let all = self.running + self.waiting;
        let ended = if self.waiting > NONE {
            (self.groups * slots * seconds / service_time).min(all)
        } else {
            self.running * (1.0 - (-seconds / service_time).exp())
        };
        self.running = all - ended;
        self.waiting = 0.0;
        self.fill(slots);
        ended
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and saturates")]
fn count(groups: f64) -> u32 {
    groups.round() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the fleet takes it")]
    fn inflow(rate: f64, service_time: f64) -> Option<Inflow> {
        Some(Inflow { rate, service_time, tokens: 100.0 })
    }

    fn fluid(groups: u32, queue: Queue) -> Fluid {
        Fluid::new(FluidSpec { slots: 10.0, cold_start: 60.0, queue }, groups, 10.0)
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 0.02 * expected.abs().max(0.1), "{found} instead of {expected}");
    }

    /// Little's law, for any service time.
    #[rstest]
    fn requests_in_flight_are_rate_times_service_time(#[values(0.05, 2.0, 600.0)] service_time: f64) {
        let mut fluid = fluid(10, Queue::Engine);
        fluid.advance(0.0, 36_000.0, inflow(80.0 / service_time, service_time));
        near(fluid.in_flight(), 80.0);
        near(fluid.totals().ended, 80.0 / service_time * 36_000.0 - 80.0);
        near(fluid.waits().quantile(0.99), 0.0);
    }

    /// Twice as many requests as one group serves: half of them wait after each second.
    #[rstest]
    fn requests_wait_beyond_the_slots(#[values(0.05, 5.0)] service_time: f64) {
        let mut fluid = fluid(1, Queue::Engine);
        let served = 10.0 / service_time;
        fluid.advance(0.0, 3600.0, inflow(2.0 * served, service_time));
        assert!((fluid.waiting() / (served * 3600.0) - 1.0).abs() < 0.03, "{}", fluid.waiting());
        assert!((fluid.waits().quantile(0.5) / 1800.0 - 1.0).abs() < 0.04, "{}", fluid.waits().quantile(0.5));
        assert!(fluid.totals().saturated > 3500.0);
    }

    /// New groups help requests that wait in the router, and not those in the engines.
    #[rstest]
    #[case(Queue::Router, 0.0)]
    #[case(Queue::Engine, 290.0)]
    fn groups_that_become_ready_help_where_requests_wait(#[case] queue: Queue, #[case] waiting: f64) {
        let mut fluid = fluid(1, queue);
        fluid.advance(0.0, 100.0, inflow(10.0, 2.0));
        fluid.scale(100.0, 100);
        assert_eq!((fluid.groups(), fluid.ready()), (100, 1));
        fluid.advance(100.0, 170.0, inflow(0.0, 2.0));
        assert!((fluid.waiting() - waiting).abs() < 160.0, "{}", fluid.waiting());
        assert_eq!(fluid.ready(), 100);
        fluid.advance(170.0, 172.0, inflow(0.0, 2.0));
        match queue {
            Queue::Router => near(fluid.waiting(), 0.0),
            Queue::Engine => assert!(fluid.waiting() > 100.0, "{}", fluid.waiting()),
        }
    }

    /// Kthena removes groups that are not ready first; the requests of the others are sent again.
    #[test]
    fn removes_groups_that_load_first() {
        let mut fluid = fluid(4, Queue::Engine);
        fluid.advance(0.0, 100.0, inflow(4.0, 10.0));
        fluid.scale(100.0, 6);
        fluid.scale(100.0, 4);
        assert_eq!((fluid.groups(), fluid.ready()), (4, 4));
        near(fluid.totals().cut, 0.0);
        fluid.scale(100.0, 2);
        near(fluid.totals().cut, 20.0);
        near(fluid.in_flight(), 40.0);
        near(fluid.waiting(), 20.0);
    }

    /// Without a ready group the router refuses requests, and their clients ask again.
    #[test]
    fn requests_wait_for_the_first_group() {
        let mut fluid = fluid(0, Queue::Engine);
        fluid.scale(0.0, 1);
        fluid.advance(0.0, 60.0, inflow(0.1, 1.0));
        near(fluid.totals().refused, 6.0);
        fluid.advance(60.0, 61.0, inflow(0.1, 1.0));
        assert!(fluid.waits().quantile(0.95) > 4.0 && fluid.waits().total() > 5.5);
    }

    #[test]
    fn nothing_moves_without_an_inflow() {
        let mut fluid = fluid(2, Queue::Engine);
        fluid.advance(0.0, 50.0, inflow(1.0, 10.0));
        let before = fluid.in_flight();
        fluid.advance(50.0, 500.0, None);
        near(fluid.in_flight(), before);
        near(fluid.totals().group_seconds, 1000.0);
    }

    proptest! {
        /// Every request is in flight, has ended, or is to be sent again.
        #[test]
        fn accounts_for_every_request(
            steps in prop::collection::vec((0.0..400.0_f64, 0.0..50.0_f64, 0.01..900.0_f64, 0_u32..30, prop::option::of(0_u32..30)), 1..20),
            slots in 0.5..40.0_f64,
            cold_start in 0.0..400.0_f64,
            in_engine in any::<bool>(),
            groups in 0_u32..10,
        ) {
            let queue = if in_engine { Queue::Engine } else { Queue::Router };
            let mut fluid = Fluid::new(FluidSpec { slots, cold_start, queue }, groups, 10.0);
            let (mut now, mut arrived) = (0.0, 0.0);
            for (seconds, rate, service_time, groups, ready) in steps {
                fluid.advance(now, now + seconds, inflow(rate, service_time));
                now += seconds;
                arrived += seconds * rate;
                fluid.scale(now, groups);
                if let Some(ready) = ready {
                    fluid.set_ready(now, ready);
                }
                prop_assert_eq!(fluid.groups(), groups);
                prop_assert!(fluid.running() <= f64::from(fluid.ready()) * slots + 1e-6);
                prop_assert!(fluid.waiting() >= 0.0);
            }
            let refused: f64 = fluid.refused.iter().map(|(_, requests)| requests).sum();
            // Requests that are sent again count as ended, too.
            prop_assert!(fluid.totals().ended + fluid.in_flight() + refused >= arrived * 0.999 - 1e-3);
            prop_assert!(fluid.waits().total() + refused >= arrived * 0.999 - 1e-3);
        }
    }
}
