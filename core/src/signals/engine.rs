//! Queries over the series of inference engines.
//!
//! Names of the metrics: Kthena `pkg/kthena-router/backend/{vllm,sglang}/metrics.go`, and the engines' own
//! sources.

use super::{RouterSeries, router::located};
use crate::{
    domain::{Engine, SeriesMatchers},
    promql::{Expr, Selector, re2_quote},
};

/// Label with the pod's `modelserving.volcano.sh/name`, which the engine's PodMonitor keeps, as Prometheus
/// spells it.
pub(super) const MODEL_SERVING: &str = "modelserving_volcano_sh_name";
/// The same for `modelserving.volcano.sh/group-name`.
pub(super) const SERVING_GROUP: &str = "modelserving_volcano_sh_group_name";

/// The same for `modelserving.volcano.sh/role`, which it keeps if roles are scaled.
pub(super) const ROLE: &str = "modelserving_volcano_sh_role";

/// Labels of the pod, and of the parts of an engine that have a queue of their own.
///
/// The ranks of SGLang's tensor, pipeline and expert parallelism (`tp_rank`, `pp_rank`, `moe_ep_rank`) hold
/// the same requests, so that their maximum counts; only data parallelism (`dp_rank`, vLLM's `engine`) splits
/// them. The maximum is also the total of SGLang's `priority` queues, which it exports beside them. Sources:
/// SGLang `srt/managers/scheduler_metrics_mixin.py`, vLLM `v1/metrics/loggers.py`.
const ENGINE_LABELS: &[&str] = &["namespace", "pod", "model_name", "engine", "engine_type", "dp_rank"];

/// Gauges of all engines, which an engine always exports. A PodMonitor keeps only those that a model's queries
/// read.
pub(super) const GAUGES: &[&str] = &[
    "vllm:num_requests_waiting",
    "vllm_num_requests_waiting",
    "vllm:num_requests_running",
    "vllm_num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm_kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm_gpu_cache_usage_perc",
    "sglang:num_queue_reqs",
    "sglang_num_queue_reqs",
    "sglang:num_running_reqs",
    "sglang_num_running_reqs",
    "sglang:token_usage",
    "sglang_token_usage",
];

impl Engine {
    /// Like the others, with the colon of the engine's own name, and with the underscore that OpenTelemetry
    /// collectors and stores with the legacy name validation put in its place.
    pub(super) const fn waiting(self) -> &'static [&'static str] {
        match self {
            Self::Vllm => &["vllm:num_requests_waiting", "vllm_num_requests_waiting"],
            Self::Sglang => &["sglang:num_queue_reqs", "sglang_num_queue_reqs"],
        }
    }

    pub(super) const fn running(self) -> &'static [&'static str] {
        match self {
            Self::Vllm => &["vllm:num_requests_running", "vllm_num_requests_running"],
            Self::Sglang => &["sglang:num_running_reqs", "sglang_num_running_reqs"],
        }
    }

    /// Sum and count of the seconds for which requests ran; SGLang exports no time without that in the queue.
    pub(super) const fn inference_time(self) -> Option<(&'static [&'static str], &'static [&'static str])> {
        match self {
            Self::Vllm => Some((
                &["vllm:request_inference_time_seconds_sum", "vllm_request_inference_time_seconds_sum"],
                &["vllm:request_inference_time_seconds_count", "vllm_request_inference_time_seconds_count"],
            )),
            Self::Sglang => None,
        }
    }

    /// vLLM renamed its metric; an engine exports one of the two, or both with the same value.
    const fn cache_use(self) -> &'static [&'static str] {
        match self {
            Self::Vllm => &[
                "vllm:kv_cache_usage_perc",
                "vllm_kv_cache_usage_perc",
                "vllm:gpu_cache_usage_perc",
                "vllm_gpu_cache_usage_perc",
            ],
            Self::Sglang => &["sglang:token_usage", "sglang_token_usage"],
        }
    }
}

/// Location of the series of one ModelServing's engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSeries {
    /// The engine, which decides the names of the metrics.
    pub engine: Engine,
    /// The ModelServing's namespace.
    pub namespace: String,
    /// The ModelServing's name.
    pub model_serving: String,
    /// The only role that counts; `None` if all do. Its instances then take the place of ServingGroups.
    pub role: Option<String>,
    /// Labels of all series, which the profile sets for a store of several clusters.
    pub matchers: SeriesMatchers,
    /// The router whose presence turns missing engines into 0; `None` unless the ModelServing scales to zero.
    pub at_zero: Option<RouterSeries>,
}

impl EngineSeries {
    pub(super) fn queue(&self) -> Expr {
        self.total(Expr::max_by(ENGINE_LABELS, self.own(self.engine.waiting())))
    }

    pub(super) fn running(&self) -> Expr {
        self.total(Expr::max_by(ENGINE_LABELS, self.own(self.engine.running())))
    }

    /// Requests that run, without a value where no engine is scraped.
    pub(super) fn running_requests(&self) -> Expr {
        Expr::sum(Expr::max_by(ENGINE_LABELS, self.own(self.engine.running())))
    }

    /// Uses the fullest cache of each ServingGroup, because its requests wait for that one. The group comes
    /// from the pod's name (`<name>-<group>-<role>-<instance>-<pod>`), since a pod template can overwrite the
    /// label.
    pub(super) fn kv_cache(&self) -> Expr {
        self.total(self.by_group(self.own(self.engine.cache_use())))
    }

    /// The maximum of each ServingGroup, or of each instance of the role in all of them.
    pub(super) fn by_group(&self, of: Expr) -> Expr {
        let name = re2_quote(&self.model_serving);
        let pattern = match &self.role {
            None => format!("{name}-([0-9]+)-.+"),
            Some(role) => format!("{name}-([0-9]+-{}-[0-9]+)-.+", re2_quote(role)),
        };
        let by_pod = Expr::FromPod { label: SERVING_GROUP, pattern, of: Box::new(of) };
        Expr::max_by(&["namespace", SERVING_GROUP], by_pod)
    }

    fn own(&self, metrics: &[&'static str]) -> Expr {
        self.own_with(metrics, Expr::Series)
    }

    /// The model's series of several metrics, each as an expression.
    pub(super) fn own_with(&self, metrics: &[&'static str], series: impl Fn(Selector) -> Expr) -> Expr {
        Expr::any_metric(metrics, |selector| self.select(selector), series)
    }

    /// Keeps the series of the ModelServing's engines.
    pub(super) fn select(&self, selector: Selector) -> Selector {
        let selector = selector.with("namespace", &self.namespace).with(MODEL_SERVING, &self.model_serving);
        let selector = match &self.role {
            Some(role) => selector.with(ROLE, role),
            None => selector,
        };
        located(selector, &self.matchers).with_some("pod")
    }

    pub(super) fn total(&self, load: Expr) -> Expr {
        match &self.at_zero {
            Some(router) => router.total_or_idle(load),
            None => Expr::sum(load),
        }
    }
}
