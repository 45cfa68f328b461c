//! The catalogue of signals: each is one number per model, a default target per ServingGroup and what it needs.
//!
//! In: the model names and where the router's series come from. Out: the query. Pure.
//!
//! Names, labels and life cycle of the series: Kthena's `pkg/kthena-router/metrics/metrics.go`.

mod router;

use std::fmt;

pub use router::{RouterSeries, ScrapeSource, activation};

use crate::{
    intent::{ModelNames, Target},
    promql::Expr,
};

/// A built-in signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// In-flight client requests.
    ActiveRequests,
    /// Requests waiting in the router's fairness and session-boost queues.
    QueuedRequests,
    /// Requests per second.
    RequestRate,
    /// Generated tokens per second.
    OutputTokens,
}

impl Signal {
    /// Every signal, in the order in which documentation lists them.
    pub const ALL: [Self; 4] = [Self::ActiveRequests, Self::QueuedRequests, Self::RequestRate, Self::OutputTokens];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveRequests => "active-requests",
            Self::QueuedRequests => "queued-requests",
            Self::RequestRate => "request-rate",
            Self::OutputTokens => "output-tokens",
        }
    }

    /// Finds a signal by the name that users write.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// What one ServingGroup is expected to carry, where nobody says otherwise.
    pub fn default_target(self) -> Target {
        match self {
            Self::ActiveRequests => Target::of(10),
            Self::QueuedRequests => Target::of(5),
            Self::RequestRate => Target::of(1),
            Self::OutputTokens => Target::of(2000),
        }
    }

    /// The total over the model, as a query that answers one element, 0 for an idle router, and nothing for one that is not scraped.
    pub fn query(self, models: &ModelNames, router: &RouterSeries) -> Expr {
        match self {
            Self::ActiveRequests => router.active_requests(models),
            Self::QueuedRequests => router.queued_requests(models),
            Self::RequestRate => router.request_rate(models),
            Self::OutputTokens => router.output_tokens(models),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
