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

impl Signal {
    /// Every signal, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        let saturation = Saturation::VARIANTS.iter().copied().map(Self::Saturation);
        Demand::VARIANTS.iter().copied().map(Self::Demand).chain(saturation)
    }

    /// The name in annotations and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demand(demand) => demand.into(),
            Self::Saturation(saturation) => saturation.into(),
        }
    }

    /// The signal with this name in annotations and profiles.
    pub fn from_name(name: &str) -> Option<Self> {
        let saturation = || Saturation::from_str(name).map(Self::Saturation);
        Demand::from_str(name).map(Self::Demand).or_else(|_| saturation()).ok()
    }

    /// Amount of the signal that one ServingGroup carries by default.
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

impl Demand {
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
                "kv-cache"
            ]
        );
        assert!(Signal::all().all(|signal| Signal::from_name(signal.name()) == Some(signal)));
        assert_eq!(Signal::from_name(ACTIVATION), None);
    }
}
