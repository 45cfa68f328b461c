//! The catalogue of signals: each is one number per model, a default target per ServingGroup and what it needs.
//!
//! In: whose demand counts, and where the router's and the engines' series come from. Out: the query. Pure.
//!
//! Names, labels and life cycle of the series: Kthena's `pkg/kthena-router/metrics/metrics.go`.

mod engine;
mod probe_queries;
mod router;

use std::fmt;

pub use engine::{Engine, EngineSeries};
pub use probe_queries::{ENGINE_OF, MODEL, STATUS_CODE, engines, model_names, router_presence};
pub use router::{DemandScope, RouterSeries, RouterSettings, ScrapeSource, activation};

use crate::{domain::Target, promql::Expr};

/// The name of the trigger that wakes a model at zero.
pub const ACTIVATION: &str = "activation";

/// A built-in signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Measured at the router; exists with zero ServingGroups.
    Demand(Demand),
    /// Measured at the engines; vanishes with them.
    Saturation(Saturation),
}

/// What clients want of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Demand {
    /// In-flight client requests.
    ActiveRequests,
    /// Requests waiting in the router's fairness and session-boost queues.
    QueuedRequests,
    /// Requests per second.
    RequestRate,
    /// Generated tokens per second.
    OutputTokens,
}

/// How busy a model's engines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Saturation {
    /// Requests waiting in the engines.
    Queue,
    /// Requests running in the engines.
    Running,
    /// The sum of each ServingGroup's KV-cache use, from 0 to 1.
    KvCache,
}

impl Signal {
    /// Every signal, in the order in which documentation lists them.
    pub const ALL: [Self; 7] = [
        Self::Demand(Demand::ActiveRequests),
        Self::Demand(Demand::QueuedRequests),
        Self::Demand(Demand::RequestRate),
        Self::Demand(Demand::OutputTokens),
        Self::Saturation(Saturation::Queue),
        Self::Saturation(Saturation::Running),
        Self::Saturation(Saturation::KvCache),
    ];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Demand(Demand::ActiveRequests) => "active-requests",
            Self::Demand(Demand::QueuedRequests) => "queued-requests",
            Self::Demand(Demand::RequestRate) => "request-rate",
            Self::Demand(Demand::OutputTokens) => "output-tokens",
            Self::Saturation(Saturation::Queue) => "engine-queue",
            Self::Saturation(Saturation::Running) => "engine-running",
            Self::Saturation(Saturation::KvCache) => "kv-cache",
        }
    }

    /// Finds a signal by the name that users write.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// What one ServingGroup is expected to carry, where nobody says otherwise.
    pub const fn default_target(self) -> Target {
        match self {
            Self::Demand(Demand::ActiveRequests) => Target::of(10),
            Self::Demand(Demand::QueuedRequests) | Self::Saturation(Saturation::Queue) => Target::of(5),
            Self::Demand(Demand::RequestRate) => Target::of(1),
            Self::Demand(Demand::OutputTokens) => Target::of(2000),
            Self::Saturation(Saturation::Running) => Target::of(32),
            Self::Saturation(Saturation::KvCache) => Target::thousandths(800),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Demand {
    /// The total over the model, as a query that answers one element, 0 for an idle router, and nothing for one that is not scraped;
    /// `None` where the router does not tell a part of the demand from the whole.
    pub fn query(self, demanded: &DemandScope, router: &RouterSeries) -> Option<Expr> {
        match (self, demanded) {
            (Self::ActiveRequests, DemandScope::Models(models)) => Some(router.active_requests(models)),
            (Self::ActiveRequests, DemandScope::Servers(servers)) => Some(router.upstream_requests(servers)),
            (Self::QueuedRequests, DemandScope::Models(models)) => Some(router.queued_requests(models)),
            (Self::RequestRate, DemandScope::Models(models)) => Some(router.request_rate(models)),
            (Self::OutputTokens, DemandScope::Models(models)) => Some(router.output_tokens(models)),
            (Self::QueuedRequests | Self::RequestRate | Self::OutputTokens, DemandScope::Servers(_)) => None,
        }
    }
}

impl Saturation {
    /// The total over the model's engines, as a query that answers one element. Without engines it answers nothing, or, where there may
    /// be none, what the router's presence does.
    pub fn query(self, engines: &EngineSeries) -> Expr {
        match self {
            Self::Queue => engines.queue(),
            Self::Running => engines.running(),
            Self::KvCache => engines.kv_cache(),
        }
    }
}
