//! Latency signals: what the query of `signals::latency` returns for `ttft-p90` of engines that are scraped without gaps.

use std::collections::VecDeque;

use super::{
    fleet::{Fleet, Wait},
    time::Time,
};

/// Bounds of vLLM's buckets for the time to the first token, in seconds (vLLM `v1/metrics/loggers.py`).
const BOUNDS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];

/// Window of the latency, in seconds, with four scrapes.
const WINDOW: i32 = 60;

/// Greatest ratio of the latency to its objective that counts.
const RATIO_MAX: f64 = 2.0;

/// Rule by which the times to the first token become the value of the trigger `ttft-p90`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstToken {
    /// Objective in seconds, above 0.
    pub objective: f64,
    /// Time to the first token of a request that does not wait, in seconds, 0 or more.
    pub idle: f64,
}

/// Samples of the engines' series within the window, oldest first.
#[derive(Debug)]
pub(super) struct FirstTokens {
    rule: FirstToken,
    scrapes: VecDeque<Scrape>,
    /// First tokens so far, by the index of the first bound that they do not exceed.
    buckets: [u64; BOUNDS.len() + 1],
    /// Number of waits in the buckets.
    counted: usize,
}

#[derive(Clone, Debug)]
struct Scrape {
    at: Time,
    buckets: [u64; BOUNDS.len() + 1],
    groups: usize,
    ready: usize,
    has_requests: bool,
}

impl FirstTokens {
    pub(super) const fn new(rule: FirstToken) -> Self {
        Self { rule, scrapes: VecDeque::new(), buckets: [0; BOUNDS.len() + 1], counted: 0 }
    }

    /// Adds the newest samples.
    pub(super) fn scrape(&mut self, at: Time, fleet: &Fleet) {
        for Wait { waited, .. } in fleet.waits().iter().skip(self.counted) {
            let latency = waited.seconds() + self.rule.idle;
            let index = BOUNDS.partition_point(|bound| *bound < latency);
            self.buckets.get_mut(index).into_iter().for_each(|bucket| *bucket += 1);
        }
        self.counted = fleet.waits().len();
        while self.scrapes.front().is_some_and(|oldest| !oldest.at.is_within(WINDOW, at)) {
            self.scrapes.pop_front();
        }
        self.scrapes.push_back(Scrape {
            at,
            buckets: self.buckets,
            groups: fleet.groups(),
            ready: fleet.ready(),
            has_requests: fleet.in_flight() > 0,
        });
    }

    /// Value of the trigger; `None` before the first scrape.
    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    pub(super) fn value(&self) -> Option<f64> {
        let newest = self.scrapes.back()?;
        let ready = self.scrapes.iter().map(|scrape| scrape.ready).min().unwrap_or(0);
        let (ready, groups) = (ready as f64, newest.groups as f64);
        let keeps_count = groups / 2.0;
        let has_requests = self.scrapes.iter().any(|scrape| scrape.has_requests);
        Some(match self.p90() {
            Some(p90) if ready < groups => {
                (ready * (p90 / self.rule.objective).min(RATIO_MAX)).max(keeps_count)
            }
            Some(p90) => ready * (p90 / self.rule.objective).min(RATIO_MAX),
            None if has_requests => keeps_count,
            None => 0.0,
        })
    }

    /// Quantile of the first tokens between the ends of the window, by the rule of `histogram_quantile`.
    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    fn p90(&self) -> Option<f64> {
        let (oldest, newest) = (self.scrapes.front()?, self.scrapes.back()?);
        let counts: Vec<f64> = newest
            .buckets
            .iter()
            .zip(oldest.buckets)
            .map(|(newest, oldest)| newest.saturating_sub(oldest) as f64)
            .collect();
        let mut rank = counts.iter().sum::<f64>() * 0.9;
        if rank <= 0.0 {
            return None;
        }
        let mut lower = 0.0;
        for (bound, count) in BOUNDS.into_iter().zip(counts) {
            if count >= rank {
                return Some(lower + (bound - lower) * rank / count);
            }
            rank -= count;
            lower = bound;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use rstest::rstest;

    use super::*;
    use crate::{
        api::keda::MetricType,
        foresight::{
            fleet::{Clients, FleetSpec, Queue},
            law::Law,
            load::{Load, Slice},
            simulation::{Outcome, Setup, simulate_with_latency},
            spec::{HpaSpec, KedaSpec, Metric},
        },
        intent::Profile,
    };

    /// Six hours of 8 requests per second, 5 s each: 40 run at a time, 10 in each ServingGroup.
    const HOURS: u32 = 6;
    /// A demand that never asks for a ServingGroup, in thousandths.
    const OUT_OF_REACH: i64 = 1_000_000_000;

    fn run(demand: i64, window: i32, has_latency: bool, seed: u64) -> Outcome {
        let replicas = crate::domain::ReplicaBounds::new(1, 40).unwrap();
        let mut profile = Profile { replicas, ..Profile::built_in() };
        profile.behavior.scale_down.stabilization_window = window;
        let metric = |target| Metric { kind: MetricType::AverageValue, target };
        let metrics = [metric(demand), metric(500)].into_iter().take(1 + usize::from(has_latency)).collect();
        let setup = Setup {
            hpa: HpaSpec::from_intent(replicas, &profile.behavior, metrics).unwrap(),
            keda: KedaSpec::from_intent(replicas, &profile),
            law: Law::InFlight,
            fleet: FleetSpec {
                slots: 10,
                loading: Time::from_seconds(180),
                queue: Queue::Engine,
                waiting_limit: None,
                clients: Clients { retry: None, patience: None },
            },
        };
        let load = Load::new([Slice { seconds: f64::from(HOURS) * 3600.0, rate: 8.0, service_time: 5.0 }]);
        if has_latency {
            simulate_with_latency(&setup, FirstToken { objective: 2.0, idle: 0.2 }, &load, seed)
        } else {
            crate::foresight::simulation::simulate(&setup, &load, seed)
        }
    }

    /// Changes of the count per hour, its least and its greatest, after two hours.
    fn cycles(outcome: &Outcome) -> (f64, u32, u32) {
        let later = outcome.groups.get(7200..).unwrap();
        let changes =
            later.iter().zip(later.iter().skip(1)).filter(|(before, after)| before != after).count();
        let per_hour = f64::from(u32::try_from(changes).unwrap()) / f64::from(HOURS - 2);
        (per_hour, *later.iter().min().unwrap(), *later.iter().max().unwrap())
    }

    /// The time to the first token is flat, and then a cliff: by itself it removes ServingGroups until the engines are full,
    /// asks for four times as many, and begins again. A demand signal that asks for what the load needs ends that, and so
    /// far as it asks for less, the cycle remains.
    #[rstest]
    #[case::alone(OUT_OF_REACH, 600, 15.0..30.0, 4..30)]
    #[case::alone_and_fast(OUT_OF_REACH, 60, 25.0..40.0, 4..40)]
    #[case::beside_demand(8_000, 600, 0.0..2.0, 6..9)]
    #[case::beside_demand_and_fast(8_000, 60, 10.0..20.0, 5..13)]
    #[case::beside_demand_of_full_engines(10_000, 600, 2.0..6.0, 5..11)]
    #[case::beside_demand_of_overfull_engines(12_000, 600, 4.0..15.0, 4..20)]
    fn cycles_unless_a_demand_signal_stands_beside_it(
        #[case] demand: i64,
        #[case] window: i32,
        #[case] changes: Range<f64>,
        #[case] groups: Range<u32>,
    ) {
        for seed in 1..=3 {
            let (found, least, most) = cycles(&run(demand, window, true, seed));
            assert!(changes.contains(&found), "{found} changes per hour");
            assert!(groups.contains(&least) && groups.contains(&most), "{least} to {most}");
        }
    }

    /// With the built-in windows the latency adds no change of its own.
    #[test]
    fn changes_nothing_while_it_is_low() {
        for seed in 1..=3 {
            assert_eq!(cycles(&run(8_000, 600, true, seed)), cycles(&run(8_000, 600, false, seed)));
        }
    }

    /// Observations between two scrapes, all with 1.0 to 2.5 s, for an objective of 4 s.
    #[rstest]
    #[case::measured([4, 4], 4, 10, true, 4.0 * 2.35 / 4.0)]
    #[case::loading_groups([4, 4], 6, 10, true, 3.0)]
    #[case::groups_that_became_ready([2, 4], 4, 10, true, 2.0)]
    #[case::streams([4, 4], 4, 0, true, 2.0)]
    #[case::idle([4, 4], 4, 0, false, 0.0)]
    fn follows_the_query(
        #[case] ready: [usize; 2],
        #[case] groups: usize,
        #[case] observed: u64,
        #[case] has_requests: bool,
        #[case] expected: f64,
    ) {
        let mut first_tokens = FirstTokens::new(FirstToken { objective: 4.0, idle: 0.0 });
        let mut buckets = [0; BOUNDS.len() + 1];
        for (i, ready) in ready.into_iter().enumerate() {
            let at = Time::from_seconds(15 * i as u64);
            first_tokens.scrapes.push_back(Scrape { at, buckets, groups, ready, has_requests });
            buckets[BOUNDS.partition_point(|bound| *bound < 2.5)] += observed;
        }
        let value = first_tokens.value().unwrap();
        assert!((value - expected).abs() < 1e-9, "{value}");
    }
}
