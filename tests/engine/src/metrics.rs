//! The engines' metrics that are autoscaling signals, under their real names.

use std::fmt::Write as _;

/// Engine whose metric names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

/// Utilization of an engine: numbers of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utilization {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) limit: usize,
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

    /// Metrics in the Prometheus text format; KV-cache utilization is the share of used slots.
    pub(crate) fn expose(self, model: &str, utilization: Utilization) -> String {
        let [waiting, running, cache] = self.names();
        let cache_usage = utilization.running * 1000 / utilization.limit.max(1);
        let values = [
            (waiting, utilization.waiting.to_string()),
            (running, utilization.running.to_string()),
            (cache, decimal(cache_usage)),
        ];
        values.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{model_name={model:?}}} {value}");
            text
        })
    }
}

fn decimal(thousandths: usize) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}
