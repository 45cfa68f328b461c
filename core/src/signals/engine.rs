//! Queries over the series of inference engines, by their own names.
//!
//! Names: Kthena's `pkg/kthena-router/backend/{vllm,sglang}/metrics.go`, and the engines' own metrics of the same names.

use std::fmt;

use super::RouterSeries;
use crate::promql::{Expr, Selector};

/// The label that the engine's PodMonitor keeps of the pod's `modelserving.volcano.sh/name`, as Prometheus writes it.
pub(super) const MODEL_SERVING: &str = "modelserving_volcano_sh_name";
/// The same of `modelserving.volcano.sh/group-name`.
const SERVING_GROUP: &str = "modelserving_volcano_sh_group_name";

/// Labels that engines put on these gauges, one for each part that counts for itself, besides the pod that they run in.
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

/// An inference engine that Kthena's router knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 2] = [Self::Vllm, Self::Sglang];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        }
    }

    /// Finds an engine by its name, however that is capitalised: a ModelServer writes `vLLM` and `SGLang`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name().eq_ignore_ascii_case(name))
    }

    /// The port that it listens on where nobody says otherwise.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Vllm => 8000,
            Self::Sglang => 30000,
        }
    }

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

    /// vLLM renamed its own; an engine has one of the two.
    fn cache_use(self) -> Selector {
        match self {
            Self::Vllm => Selector::families(&["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
            Self::Sglang => Selector::metric("sglang:token_usage"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the series of one ModelServing's engines are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSeries {
    /// Whose names they have.
    pub engine: Engine,
    /// The ModelServing's namespace.
    pub namespace: String,
    /// The ModelServing's name.
    pub model_serving: String,
    /// Who decides when there are no engines; nobody, unless there may be none.
    pub at_zero: Option<RouterSeries>,
}

impl EngineSeries {
    pub(super) fn queue(&self) -> Expr {
        self.total(Expr::max_by(ENGINE_LABELS, self.own(self.engine.waiting())))
    }

    pub(super) fn running(&self) -> Expr {
        self.total(Expr::max_by(ENGINE_LABELS, self.own(self.engine.running())))
    }

    /// The fullest cache of a ServingGroup is the one that its requests wait for.
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
