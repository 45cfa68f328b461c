//! Names and default targets of the built-in signals; [`crate::signals`] has their queries.

use std::{fmt, str::FromStr};

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::Target;

/// Name of the trigger that scales a model up from zero; no signal may have it.
pub const ACTIVATION: &str = "activation";

/// A built-in signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Measured at the router; available with zero ServingGroups.
    Demand(Demand),
    /// Measured at the engines; unavailable with zero ServingGroups.
    Saturation(Saturation),
    /// Measured at the engines, against an objective; unavailable with zero ServingGroups.
    Latency(Latency),
}

/// The requests for a model, measured at the router.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Demand {
    /// In-flight client requests.
    ActiveRequests,
    /// Requests that wait in the router's fairness and session-boost queues.
    QueuedRequests,
    /// Requests per second.
    RequestRate,
    /// Generated tokens per second.
    OutputTokens,
}

/// The load of a model's engines.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Saturation {
    /// Requests that wait in the engines.
    #[strum(serialize = "engine-queue")]
    Queue,
    /// Requests that run in the engines.
    #[strum(serialize = "engine-running")]
    Running,
    /// KV-cache use of each ServingGroup, from 0 to 1, summed over the model.
    KvCache,
}

/// A latency of a model's requests: the time that nine of ten take at most, measured at the engines.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Latency {
    /// From the arrival of a request at an engine to its first token.
    #[strum(serialize = "ttft-p90")]
    FirstToken,
    /// Between two tokens of a request.
    #[strum(serialize = "itl-p90")]
    InterToken,
}

impl Signal {
    /// Every signal, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        let saturation = Saturation::VARIANTS.iter().copied().map(Self::Saturation);
        let latency = Latency::VARIANTS.iter().copied().map(Self::Latency);
        Demand::VARIANTS.iter().copied().map(Self::Demand).chain(saturation).chain(latency)
    }

    /// The name in annotations and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demand(demand) => demand.into(),
            Self::Saturation(saturation) => saturation.into(),
            Self::Latency(latency) => latency.into(),
        }
    }

    /// The signal with this name in annotations and profiles.
    pub fn from_name(name: &str) -> Option<Self> {
        let saturation = |_| Saturation::from_str(name).map(Self::Saturation);
        let latency = |_| Latency::from_str(name).map(Self::Latency);
        Demand::from_str(name).map(Self::Demand).or_else(saturation).or_else(latency).ok()
    }

    /// `true` if no custom signal may have its name. The names of latencies were free in 0.1.
    pub const fn is_reserved(self) -> bool {
        match self {
            Self::Demand(_) | Self::Saturation(_) => true,
            Self::Latency(_) => false,
        }
    }

    /// Amount of the signal that one ServingGroup carries by default; `None` for a latency, whose objective each user
    /// has to set.
    pub const fn default_target(self) -> Option<Target> {
        match self {
            Self::Demand(demand) => Some(demand.default_target()),
            Self::Saturation(Saturation::Queue) => Some(Target::of(5)),
            Self::Saturation(Saturation::Running) => Some(Target::of(32)),
            Self::Saturation(Saturation::KvCache) => Some(Target::thousandths(800)),
            Self::Latency(_) => None,
        }
    }
}

impl Demand {
    /// Amount of the signal that one ServingGroup carries by default.
    pub const fn default_target(self) -> Target {
        match self {
            Self::ActiveRequests => Target::of(10),
            Self::QueuedRequests => Target::of(5),
            Self::RequestRate => Target::of(1),
            Self::OutputTokens => Target::of(2000),
        }
    }

    /// `true` if the router counts it for each ModelServer, and not only for each model name.
    pub const fn is_counted_by_server(self) -> bool {
        match self {
            Self::ActiveRequests => true,
            Self::QueuedRequests | Self::RequestRate | Self::OutputTokens => false,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_signal_by_its_name() {
        let names: Vec<&str> = Signal::all().map(Signal::name).collect();
        assert_eq!(
            names,
            [
                "active-requests",
                "queued-requests",
                "request-rate",
                "output-tokens",
                "engine-queue",
                "engine-running",
                "kv-cache",
                "ttft-p90",
                "itl-p90"
            ]
        );
        assert!(Signal::all().all(|signal| Signal::from_name(signal.name()) == Some(signal)));
        assert_eq!(Signal::from_name(ACTIVATION), None);
    }
}
