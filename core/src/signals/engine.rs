//! Queries over the series of inference engines.
//!
//! Names of the metrics: Kthena `pkg/kthena-router/backend/{vllm,sglang}/metrics.go`, and the engines' own
//! sources.

use super::RouterSeries;
use crate::{
    domain::Engine,
    promql::{Expr, Selector},
};

/// Label with the pod's `modelserving.volcano.sh/name`, which the engine's PodMonitor keeps, as Prometheus
/// spells it.
pub(super) const MODEL_SERVING: &str = "modelserving_volcano_sh_name";
/// The same for `modelserving.volcano.sh/group-name`.
const SERVING_GROUP: &str = "modelserving_volcano_sh_group_name";

/// Labels that distinguish the independent parts of an engine on these gauges, and its pod.
const ENGINE_LABELS: &[&str] = &[
    "namespace",
    "pod",
    "model_name",
    "engine",
    "engine_type",
    "dp_rank",
    "pp_rank",
    "tp_rank",
    "moe_ep_rank",
];

impl Engine {
    fn waiting(self) -> Selector {
        Selector::metric(match self {
            Self::Vllm => "vllm:num_requests_waiting",
            Self::Sglang => "sglang:num_queue_reqs",
        })
    }

    fn running(self) -> Selector {
        Selector::metric(match self {
            Self::Vllm => "vllm:num_requests_running",
            Self::Sglang => "sglang:num_running_reqs",
        })
    }

    /// vLLM renamed its metric; an engine exports one of the two.
    fn cache_use(self) -> Selector {
        match self {
            Self::Vllm => Selector::families(&["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
            Self::Sglang => Selector::metric("sglang:token_usage"),
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

    /// Uses the fullest cache of each ServingGroup, because its requests wait for that one.
    pub(super) fn kv_cache(&self) -> Expr {
        self.total(Expr::max_by(&["namespace", SERVING_GROUP], self.own(self.engine.cache_use())))
    }

    fn own(&self, selector: Selector) -> Expr {
        Expr::Series(selector.with("namespace", &self.namespace).with(MODEL_SERVING, &self.model_serving))
    }

    fn total(&self, load: Expr) -> Expr {
        match &self.at_zero {
            Some(router) => router.total(load),
            None => Expr::sum(load),
        }
    }
}
