//! The engines' metrics that are autoscaling signals, with the names, labels and buckets of the real engines.

use std::{fmt::Write as _, time::Duration};

/// Engine whose metric names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

/// Utilization of an engine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utilization {
    /// Requests in the queue.
    pub(crate) waiting: usize,
    /// Requests in progress.
    pub(crate) running: usize,
    /// Share of the KV cache that running requests use, from 0 to 1.
    pub(crate) kv_cache: f64,
}

/// Upper bounds of vLLM's buckets for times of complete requests, in seconds.
const REQUEST_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
/// Upper bounds of vLLM's buckets for the time to the first token, in seconds.
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// Upper bounds of vLLM's buckets for the time between two tokens, in seconds.
const INTER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Times of an engine's requests.
#[derive(Debug)]
pub(crate) struct Latencies {
    /// From arrival to the first token.
    pub(crate) first_token: Histogram,
    /// Between two tokens of a request.
    pub(crate) inter_token: Histogram,
    /// From arrival to the end of a request that was not cancelled.
    pub(crate) request: Histogram,
    /// In the queue, for requests that were not cancelled.
    pub(crate) queue: Histogram,
    /// From the queue to the end, for requests that were not cancelled.
    pub(crate) inference: Histogram,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            first_token: Histogram::new("vllm:time_to_first_token_seconds", FIRST_TOKEN_BUCKETS),
            inter_token: Histogram::new("vllm:inter_token_latency_seconds", INTER_TOKEN_BUCKETS),
            request: Histogram::new("vllm:e2e_request_latency_seconds", REQUEST_BUCKETS),
            queue: Histogram::new("vllm:request_queue_time_seconds", REQUEST_BUCKETS),
            inference: Histogram::new("vllm:request_inference_time_seconds", REQUEST_BUCKETS),
        }
    }
}

/// A histogram with fixed buckets.
#[derive(Debug)]
pub(crate) struct Histogram {
    name: &'static str,
    bounds: &'static [f64],
    /// Observations per bucket, not cumulative; those above the last bound are only in `count`.
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(name: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, bounds, buckets: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    pub(crate) fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn expose(&self, text: &mut String, model: &str) {
        let Self { name, bounds, buckets, count, sum } = self;
        let labels = vllm_labels(model);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} histogram");
        let mut cumulative = 0;
        for (bound, bucket) in bounds.iter().zip(buckets) {
            cumulative += bucket;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {cumulative}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} {sum}");
    }
}

fn vllm_labels(model: &str) -> String {
    format!("engine=\"0\",model_name={model:?}")
}

impl Dialect {
    /// Names for waiting requests, running requests and KV-cache utilization (0 to 1).
    const fn names(self) -> [&'static str; 3] {
        match self {
            Self::Vllm => {
                ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
            }
            Self::Sglang => ["sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage"],
        }
    }

    /// Metrics in the Prometheus text format.
    pub(crate) fn expose(self, model: &str, utilization: Utilization, latencies: &Latencies) -> String {
        let Utilization { waiting, running, kv_cache } = utilization;
        let labels = match self {
            Self::Vllm => vllm_labels(model),
            Self::Sglang => format!("model_name={model:?}"),
        };
        let [waiting_name, running_name, cache_name] = self.names();
        let mut text = format!(
            "# TYPE {waiting_name} gauge\n{waiting_name}{{{labels}}} {waiting}
# TYPE {running_name} gauge\n{running_name}{{{labels}}} {running}
# TYPE {cache_name} gauge\n{cache_name}{{{labels}}} {kv_cache}\n"
        );
        if self == Self::Vllm {
            let name = "vllm:num_requests_waiting_by_reason";
            let _ = writeln!(
                text,
                "# TYPE {name} gauge\n{name}{{{labels},reason=\"capacity\"}} {waiting}\n{name}{{{labels},reason=\"deferred\"}} 0"
            );
            let Latencies { first_token, inter_token, request, queue, inference } = latencies;
            for histogram in [first_token, inter_token, request, queue, inference] {
                histogram.expose(&mut text, model);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let mut latencies = Latencies::default();
        for milliseconds in [300, 301, 9_000_000] {
            latencies.request.observe(Duration::from_millis(milliseconds));
        }
        let text = Dialect::Vllm.expose("tiny", Utilization::default(), &latencies);
        let value = |le: &str| {
            let series = format!(
                "vllm:e2e_request_latency_seconds_bucket{{engine=\"0\",model_name=\"tiny\",le=\"{le}\"}} "
            );
            text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
        };
        assert_eq!(value("0.3").as_deref(), Some("1"), "{text}");
        assert_eq!(value("0.5").as_deref(), Some("2"));
        assert_eq!(value("7680.0").as_deref(), Some("2"));
        assert_eq!(value("+Inf").as_deref(), Some("3"));
        assert!(!Dialect::Sglang.expose("tiny", Utilization::default(), &latencies).contains("vllm"));
    }
}
