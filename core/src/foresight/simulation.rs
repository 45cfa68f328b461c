//! One model under load: requests, scrapes, KEDA and the HPA on one clock.

use std::iter;

use super::{
    autoscaler::{Autoscaler, AutoscalerSpec, sync_interval},
    fleet::{Counts, Fleet, FleetSpec, Wait},
    latency::{FirstToken, FirstTokens},
    law::Law,
    load::Load,
    prometheus::{Sample, Samples},
    spec::{HpaSpec, KedaSpec},
    time::Time,
};

/// Interval between scrapes of the router.
const SCRAPE_INTERVAL: Time = Time::from_seconds(15);
/// Period of the HPA's syncs.
const SYNC_PERIOD: Time = Time::from_seconds(15);
/// Interval at which engines report to the router, and at which results are measured.
const TICK: Time = Time::from_seconds(1);

/// Settings of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The HPA that KEDA makes. Its first metric is the demand signal; the others return no data.
    pub hpa: HpaSpec,
    /// KEDA's scale loop.
    pub keda: KedaSpec,
    /// Demand signal.
    pub law: Law,
    /// Engines, router and clients.
    pub fleet: FleetSpec,
}

/// Results of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// ServingGroups at each second, those that load included.
    pub groups: Vec<u32>,
    /// ServingGroups that are ready, at each second.
    pub ready: Vec<u32>,
    /// Requests that wait, at each second.
    pub waiting: Vec<u32>,
    /// Requests in flight, at each second.
    pub in_flight: Vec<u32>,
    /// Number of changes of `spec.replicas`.
    pub changes: u32,
    /// Events of requests.
    pub counts: Counts,
    /// Waits in the order in which they ended.
    waits: Vec<Wait>,
}

/// Distribution of the time that requests waited, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waiting {
    /// Mean.
    pub mean: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Share that waited for more than ten seconds, 0 to 1.
    pub over_10s: f64,
}

struct Simulation<'a> {
    setup: &'a Setup,
    fleet: Fleet,
    samples: Samples,
    /// Times to the first token, if they are the second metric of the HPA.
    first_tokens: Option<FirstTokens>,
    autoscaler: Autoscaler,
    outcome: Outcome,
}

/// Simulates a load from its start to its end. The seed sets the arrivals and the phases of all intervals.
pub fn simulate(setup: &Setup, load: &Load, seed: u64) -> Outcome {
    simulate_signals(setup, None, load, seed)
}

/// [`simulate`] with the time to the first token as the second metric of the HPA. Clients must not give up, since the time
/// that they waited would count.
pub fn simulate_with_latency(setup: &Setup, latency: FirstToken, load: &Load, seed: u64) -> Outcome {
    simulate_signals(setup, Some(latency), load, seed)
}

fn simulate_signals(setup: &Setup, latency: Option<FirstToken>, load: &Load, seed: u64) -> Outcome {
    let replicas = setup.hpa.min().min(setup.keda.min.max(0));
    let spec = AutoscalerSpec { hpa: setup.hpa.clone(), keda: setup.keda.clone() };
    let mut simulation = Simulation {
        setup,
        fleet: Fleet::new(setup.fleet, count(replicas)),
        samples: Samples::default(),
        first_tokens: latency.map(FirstTokens::new),
        autoscaler: Autoscaler::new(spec, replicas, Time::default(), SYNC_PERIOD),
        outcome: Outcome::default(),
    };
    simulation.run(load, seed);
    let mut outcome = simulation.outcome;
    outcome.counts = simulation.fleet.counts();
    outcome.waits = simulation.fleet.into_waits(load.length());
    outcome
}

impl Simulation<'_> {
    fn run(&mut self, load: &Load, seed: u64) {
        let mut arrivals = load.arrivals(seed).peekable();
        let polling = Time::from_seconds(u64::try_from(self.setup.keda.polling_interval).unwrap_or(1).max(1));
        // Phases that differ from seed to seed.
        let phase =
            |step: u64, period: Time| Time::from_millis(seed.wrapping_mul(step) % period.millis().max(1));
        let mut tick = Time::default();
        let mut scrape = phase(4_337, SCRAPE_INTERVAL);
        let mut poll = phase(7_919, polling);
        let interval = sync_interval(SYNC_PERIOD);
        let mut sync = phase(2_711, interval);
        let end = load.length();
        loop {
            let now = tick.min(scrape).min(poll).min(sync);
            if now >= end {
                return self.fleet.advance(end, &mut arrivals);
            }
            self.fleet.advance(now, &mut arrivals);
            if now == tick {
                self.tick();
                tick = tick.after(TICK);
            }
            if now == scrape {
                self.scrape(now);
                scrape = scrape.after(SCRAPE_INTERVAL);
            }
            if now == poll {
                self.poll(now);
                poll = poll.after(polling);
            }
            if now == sync {
                self.sync(now);
                sync = sync.after(interval);
            }
        }
    }

    fn tick(&mut self) {
        self.fleet.report();
        self.outcome.groups.push(to_u32(self.fleet.groups()));
        self.outcome.ready.push(to_u32(self.fleet.ready()));
        self.outcome.waiting.push(to_u32(self.fleet.waiting()));
        self.outcome.in_flight.push(u32::try_from(self.fleet.in_flight()).unwrap_or(u32::MAX));
    }

    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    fn scrape(&mut self, now: Time) {
        let Counts { ended, refused, .. } = self.fleet.counts();
        self.samples.push(Sample {
            at: now,
            in_flight: self.fleet.in_flight() as f64,
            ended: ended as f64,
            refused: refused as f64,
            running: self.fleet.running() as f64,
            waiting: self.fleet.waiting() as f64,
            tokens: 0.0,
        });
        if let Some(first_tokens) = &mut self.first_tokens {
            first_tokens.scrape(now, &self.fleet);
        }
    }

    fn poll(&mut self, now: Time) {
        let value = self.setup.law.value(&self.samples, now);
        let values: Vec<Option<f64>> = self.setup.keda.activation.iter().map(|_| value).collect();
        let before = self.autoscaler.replicas();
        self.autoscaler.poll(now, &values);
        self.scale(now, before);
    }

    fn sync(&mut self, now: Time) {
        let value = self.setup.law.value(&self.samples, now);
        let latency = self.first_tokens.as_ref().map(FirstTokens::value);
        let values: Vec<Option<f64>> = iter::once(value).chain(latency).collect();
        let before = self.autoscaler.replicas();
        self.autoscaler.sync_with_ready(now, &values, i32::try_from(self.fleet.ready()).ok());
        self.scale(now, before);
    }

    /// Has the fleet follow the autoscaler, which held `before` until now.
    fn scale(&mut self, now: Time, before: i32) {
        let replicas = self.autoscaler.replicas();
        if replicas != before {
            self.outcome.changes += 1;
            self.fleet.scale(now, count(replicas));
        }
    }
}

impl Outcome {
    /// Highest number of ServingGroups.
    pub fn peak(&self) -> u32 {
        self.groups.iter().copied().max().unwrap_or(0)
    }

    /// Sum over time, in group-hours.
    pub fn group_hours(&self) -> f64 {
        self.groups.iter().map(|groups| f64::from(*groups)).sum::<f64>() / 3600.0
    }

    /// Arrival and duration of each request that was served, in seconds.
    pub fn durations(&self) -> impl Iterator<Item = (f64, f64)> {
        self.waits.iter().filter_map(|wait| {
            let served = wait.served?;
            Some((wait.arrived.seconds(), wait.waited.after(served).seconds()))
        })
    }

    /// Waits of the requests that arrived from `from` until before `to`.
    pub fn waiting(&self, from: Time, to: Time) -> Waiting {
        let arrived = self.waits.iter().filter(|wait| (from..to).contains(&wait.arrived));
        let mut waits: Vec<f64> = arrived.map(|wait| wait.waited.seconds()).collect();
        waits.sort_by(f64::total_cmp);
        let count = f64::from(to_u32(waits.len())).max(1.0);
        Waiting {
            mean: waits.iter().sum::<f64>() / count,
            p95: waits.get(waits.len() * 95 / 100).copied().unwrap_or(0.0),
            over_10s: f64::from(to_u32(waits.iter().filter(|wait| **wait > 10.0).count())) / count,
        }
    }
}

fn count(replicas: i32) -> usize {
    usize::try_from(replicas).unwrap_or(0)
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::keda::MetricType,
        foresight::{
            fleet::{Clients, Queue},
            law::BoundedBacklog,
            load::Slice,
            spec::{Metric, Rules},
        },
        intent::{Policy, PolicyKind, Profile, Select},
    };

    fn rules() -> impl Strategy<Value = Rules> {
        let policy = (any::<bool>(), any::<i32>(), any::<i32>()).prop_map(|(pods, value, period)| Policy {
            kind: if pods { PolicyKind::Pods } else { PolicyKind::Percent },
            value,
            period,
        });
        let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
        (any::<i32>(), select, prop::collection::vec(policy, 0..4), 0.0..2.0_f64)
            .prop_map(|(window, select, policies, tolerance)| Rules { window, select, policies, tolerance })
    }

    fn fleet() -> impl Strategy<Value = FleetSpec> {
        let time = || prop::option::of((1_u64..400).prop_map(Time::from_seconds));
        (0_usize..12, 0_u64..400, any::<bool>(), prop::option::of(0_usize..12), time(), time()).prop_map(
            |(slots, loading, in_engine, waiting_limit, retry, patience)| FleetSpec {
                slots,
                loading: Time::from_seconds(loading),
                queue: if in_engine { Queue::Engine } else { Queue::Router },
                waiting_limit,
                clients: Clients { retry, patience },
            },
        )
    }

    fn law() -> impl Strategy<Value = Law> {
        let bounded = (1e-3..1e4_f64, 1.0..3.0_f64, 1.0..1e4_f64)
            .prop_filter_map("invalid", |(s0, k, td)| BoundedBacklog::new(s0, k, td));
        prop_oneof![Just(Law::InFlight), bounded.prop_map(Law::BoundedBacklog)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Any settings and load: no panic, replicas within the bounds, and every request is accounted for.
        #[test]
        fn stays_within_the_bounds(
            (min, more) in (0_i32..4, 0_i32..30),
            up in rules(),
            down in rules(),
            target in 1_i64..100_000,
            law in law(),
            fleet in fleet(),
            slices in prop::collection::vec((0.0..900.0_f64, 0.0..6.0_f64, 0.0..90.0_f64), 0..4),
            seed in any::<u64>(),
        ) {
            let metrics = vec![Metric { kind: MetricType::AverageValue, target }];
            let max = min.max(1) + more;
            let hpa = HpaSpec::new(min.max(1), max, up, down, metrics).unwrap();
            let replicas = crate::domain::ReplicaBounds::new(min, max).unwrap();
            let keda = KedaSpec::from_intent(replicas, &Profile::built_in());
            let load = Load::new(slices.into_iter().map(|(seconds, rate, service_time)| Slice { seconds, rate, service_time }));
            let outcome = simulate(&Setup { hpa, keda, law, fleet }, &load, seed);
            let bounds = u32::try_from(min).unwrap()..=u32::try_from(max).unwrap();
            prop_assert!(outcome.groups.iter().all(|groups| bounds.contains(groups)));
            prop_assert!(outcome.ready.iter().zip(&outcome.groups).all(|(ready, groups)| ready <= groups));
            let arrived = load.arrivals(seed).filter(|arrival| arrival.at <= load.length()).count() as u64;
            prop_assert!(outcome.counts.lost <= arrived, "{:?} of {arrived}", outcome.counts);
            prop_assert!(outcome.waits.len() as u64 <= arrived + outcome.counts.cut);
        }
    }
}
