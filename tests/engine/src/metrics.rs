//! The engines' metrics that autoscaling goes by, in their own names.

use std::fmt::Write as _;

/// Whose names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// vLLM's.
    Vllm,
    /// SGLang's.
    Sglang,
}

/// What an engine is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doing {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) limit: usize,
}

impl Dialect {
    /// Waiting requests, running requests, and the share of the KV cache that is in use.
    const fn names(self) -> [&'static str; 3] {
        match self {
            Self::Vllm => {
                ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
            }
            Self::Sglang => ["sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage"],
        }
    }

    /// The text that a scrape gets.
    pub(crate) fn expose(self, model: &str, doing: Doing) -> String {
        let [waiting, running, cache] = self.names();
        let share = doing.running * 1000 / doing.limit.max(1);
        let values = [
            (waiting, doing.waiting.to_string()),
            (running, doing.running.to_string()),
            (cache, milli(share)),
        ];
        values.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# TYPE {name} gauge\n{name}{{model_name={model:?}}} {value}");
            text
        })
    }
}

fn milli(thousandths: usize) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}
