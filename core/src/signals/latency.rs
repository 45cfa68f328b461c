//! Queries of the latency signals.
//!
//! ```text
//! total = ready ServingGroups · min(2, P90 / objective)
//! ```
//!
//! With its target of one half, the count stays while the P90 is half of the objective, and at most four times the ready
//! ServingGroups are asked for, however many load.
//!
//! Names of the metrics: vLLM `v1/metrics/loggers.py`, SGLang `srt/metrics/collector.py`.

use super::{EngineSeries, router::TARGET_LABELS};
use crate::{
    domain::{Engine, Latency, Objective, ScrapeInterval},
    promql::{Expr, Factor, RangeFunction, Selector},
};

/// Least window of a latency, in seconds.
const WINDOW: u32 = 45;
/// Scrapes within a window: two of them may fail.
const SCRAPES: u32 = 4;

/// Greatest ratio of a latency to its objective that counts. Beyond it waiting requests add to the latency, and it no
/// longer says how much capacity is missing.
const RATIO_MAX: u8 = 2;

/// A latency signal, and the measurements that it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencySignal {
    /// The latency and its objective.
    pub objective: Objective,
    /// The total that sizes the model.
    pub total: Expr,
    /// Seconds that nine of ten requests of the window took at most; no value without any.
    pub p90: Expr,
    /// ServingGroups that were ready throughout the window.
    pub ready: Expr,
    /// ServingGroups with a target of Prometheus.
    pub groups: Expr,
    /// Lowest P90 of the last day, in seconds, while the engines had at most one request for each ServingGroup; no value
    /// if they always had more.
    pub lowest: Expr,
}

impl LatencySignal {
    /// The signal of one ModelServing, whose engines are scraped at this interval.
    pub fn of(engines: &EngineSeries, objective: Objective, interval: ScrapeInterval) -> Self {
        let window = format!("{}s", WINDOW.max(SCRAPES * interval.seconds()));
        let engines = Engines { series: engines, latency: objective.latency(), window };
        let p90 = engines.p90();
        Self {
            objective,
            total: engines.total(&p90, objective),
            ready: Expr::sum(engines.ready_groups()),
            groups: Expr::count(engines.groups()),
            lowest: engines.lowest(&p90),
            p90,
        }
    }
}

impl EngineSeries {
    /// Seconds until the first token that this percentage of the requests of five minutes does not exceed; no value without
    /// any.
    pub fn first_token(&self, percent: u8) -> Expr {
        let engines = Engines { series: self, latency: Latency::FirstToken, window: "300s".to_owned() };
        engines.quantile(percent)
    }
}

/// The engines of a model, and a latency of theirs within a window.
struct Engines<'a> {
    series: &'a EngineSeries,
    latency: Latency,
    window: String,
}

impl Engines<'_> {
    /// Falls back to what keeps the count where the latency is unknown although there are requests: they stream, and none
    /// has begun within the window. While ServingGroups load it is never less than that, because the HPA divides by
    /// these, too.
    ///
    /// It is 0 without requests. It has no value without histograms, which may have been dropped on their way.
    fn total(&self, p90: &Expr, objective: Objective) -> Expr {
        let (groups, ready) = (Expr::count(self.groups()), Expr::sum(self.ready_groups()));
        let keeps_count = half(groups.clone());
        let while_loading = half(Expr::Above(Box::new(groups), Box::new(ready.clone())));
        let ratio = Expr::CappedAt(Box::new(p90_by_objective(p90, objective)), RATIO_MAX);
        let measured = Expr::RaisedTo(
            Box::new(Expr::Product(Box::new(ratio), Box::new(ready))),
            Box::new(while_loading),
        );
        let total = match self.series.engine {
            Engine::Vllm => {
                Expr::Or(vec![measured, self.no_requests(), keeps_count]).if_any(self.has_histogram())
            }
            // It exports a histogram from its first request on.
            Engine::Sglang => {
                let keeps_count = keeps_count.if_any(self.has_histogram());
                Expr::Or(vec![measured, self.no_requests(), keeps_count])
            }
        };
        self.series.total(total)
    }

    /// One sample for each ServingGroup with a target of Prometheus.
    ///
    /// Prometheus has targets for pods that are not ready, but none for a pod without an address, which waits for a node.
    fn groups(&self) -> Expr {
        self.series.by_group(Expr::Series(self.targets()))
    }

    /// 1 for each ServingGroup that was ready throughout the window, so that the latency is one of its capacity, and 0 or no
    /// sample for the others. Right after a ServingGroup has loaded the latencies are still those of the others, and would
    /// ask for more.
    fn ready_groups(&self) -> Expr {
        let steady = Expr::Range(RangeFunction::MinOverTime, self.targets(), self.window());
        let old = Expr::Series(self.targets().offset(self.window()));
        self.series.by_group(Expr::And { of: Box::new(steady), on: None, present: Box::new(old) })
    }

    fn targets(&self) -> Selector {
        self.series.select(Selector::metric("up"))
    }

    fn lowest(&self, p90: &Expr) -> Expr {
        let has_little_to_do = self.series.running_requests().at_most(Expr::sum(self.groups()));
        Expr::Subquery {
            function: RangeFunction::MinOverTime,
            of: Box::new(p90.clone().if_any(has_little_to_do)),
            window: "1d:5m",
            offset: None,
        }
    }

    fn p90(&self) -> Expr {
        self.quantile(90)
    }

    /// The value that this percentage of the observations of all engines does not exceed; no value without observations.
    fn quantile(&self, percent: u8) -> Expr {
        let rate = |selector| Expr::Range(RangeFunction::Rate, self.series.select(selector), self.window());
        let rates = Expr::any_metric(self.buckets(), |selector| selector, rate);
        // Each request is observed once, under all labels that the engine adds.
        let of_targets = Expr::sum_by([TARGET_LABELS, &["le"]].concat(), rates);
        let of_pods = Expr::max_by(&["namespace", "pod", "le"], of_targets);
        Expr::Quantile(percent, Box::new(Expr::sum_by(&["le"], of_pods))).positive()
    }

    /// 0 if no request waited or ran within the window.
    fn no_requests(&self) -> Expr {
        let none = |gauges| Expr::Is(Box::new(Expr::max(self.greatest(gauges, |gauge| gauge))), 0);
        none(self.series.engine.running()).if_any(none(self.series.engine.waiting()))
    }

    /// A sample if an engine exported the histogram within the window.
    fn has_histogram(&self) -> Expr {
        Expr::max(self.greatest(self.buckets(), |bucket| bucket.with("le", "+Inf")))
    }

    /// Maximum of each series within the window, so that a failed scrape hides nothing.
    fn greatest(&self, metrics: &[&'static str], select: impl Fn(Selector) -> Selector) -> Expr {
        Expr::any_metric(
            metrics,
            |selector| self.series.select(select(selector)),
            |selector| Expr::Range(RangeFunction::MaxOverTime, selector, self.window()),
        )
    }

    fn window(&self) -> std::borrow::Cow<'static, str> {
        self.window.clone().into()
    }

    /// Names of the buckets, with the colon and with the underscore that some stores put in its place.
    const fn buckets(&self) -> &'static [&'static str] {
        match (self.series.engine, self.latency) {
            (Engine::Vllm, Latency::FirstToken) => {
                &["vllm:time_to_first_token_seconds_bucket", "vllm_time_to_first_token_seconds_bucket"]
            }
            // Renamed; releases in between export both, with the same buckets.
            (Engine::Vllm, Latency::InterToken) => &[
                "vllm:inter_token_latency_seconds_bucket",
                "vllm_inter_token_latency_seconds_bucket",
                "vllm:time_per_output_token_seconds_bucket",
                "vllm_time_per_output_token_seconds_bucket",
            ],
            (Engine::Sglang, Latency::FirstToken) => {
                &["sglang:time_to_first_token_seconds_bucket", "sglang_time_to_first_token_seconds_bucket"]
            }
            (Engine::Sglang, Latency::InterToken) => {
                &["sglang:inter_token_latency_seconds_bucket", "sglang_inter_token_latency_seconds_bucket"]
            }
        }
    }
}

/// The latency as a part of its objective.
fn p90_by_objective(p90: &Expr, objective: Objective) -> Expr {
    match Factor::ratio(1000, objective.millis().into()) {
        Some(per_objective) => p90.clone().times(per_objective),
        None => p90.clone(),
    }
}

fn half(of: Expr) -> Expr {
    of.times(Factor::thousandths(500))
}
