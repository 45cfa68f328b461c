//! The platform team's settings, as a value: what every ModelServing gets that does not say otherwise.

use std::collections::BTreeMap;

use super::values::{PrometheusUrl, ReplicaBounds, ScrapeInterval, Target};
use crate::signals::Signal;

/// Settings that many models share.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The Prometheus that KEDA asks; there is no default.
    pub prometheus: Option<PrometheusSettings>,
    /// How many ServingGroups there may be.
    pub replicas: ReplicaBounds,
    /// What is measured.
    pub signals: Vec<SignalTarget>,
    /// How often KEDA asks, in seconds.
    pub polling_interval: i32,
    /// How fast and after what time ServingGroups are added and removed.
    pub behavior: Behavior,
    /// Time without demand before the last ServingGroup goes, in seconds; counts when `min` is 0.
    pub cooldown: i32,
    /// The same for a ScaledObject that is new and has not seen demand yet, in seconds.
    pub initial_cooldown: i32,
    /// The monitors that feed Prometheus.
    pub monitors: MonitorSettings,
}

/// Where and how KEDA asks Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusSettings {
    /// Its base address.
    pub url: PrometheusUrl,
}

/// The monitors that feed Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// Whether to make any.
    pub create: CreateMonitors,
    /// Labels by which the Prometheus selects its monitors.
    pub labels: BTreeMap<String, String>,
    /// How often Prometheus scrapes.
    pub interval: ScrapeInterval,
}

/// Whether to make monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMonitors {
    /// Unless somebody else's monitor scrapes the same.
    UnlessScraped,
    /// Never.
    Never,
    /// Even beside somebody else's; the queries count what is scraped twice once.
    Always,
}

/// A signal and how much of it one ServingGroup carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalTarget {
    /// What is measured.
    pub signal: Signal,
    /// What one ServingGroup is expected to carry.
    pub target: Target,
}

/// The HPA's behavior, always complete: KEDA rewrites the HPA on every pass when a part is left to defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// Adding ServingGroups.
    pub scale_up: Direction,
    /// Removing ServingGroups.
    pub scale_down: Direction,
}

/// One direction of scaling; among its policies the one that allows the largest change counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// How long recommendations are looked back on, in seconds.
    pub stabilization_window: i32,
    /// Limits of speed.
    pub policies: Vec<Policy>,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The unit of `value`.
    pub kind: PolicyKind,
    /// How many.
    pub value: i32,
    /// In how many seconds.
    pub period: i32,
}

/// The unit of a policy's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// ServingGroups; the HPA's own word is `Pods`.
    Pods,
    /// Percent of what is there.
    Percent,
}

impl Profile {
    /// The built-in defaults: made for models that take minutes to load, so quick to add and slow to remove.
    pub fn built_in() -> Self {
        let policy = |kind, value, period| Policy { kind, value, period };
        Self {
            prometheus: None,
            replicas: ReplicaBounds::DEFAULT,
            signals: vec![SignalTarget { signal: Signal::ActiveRequests, target: Signal::ActiveRequests.default_target() }],
            polling_interval: 15,
            behavior: Behavior {
                scale_up: Direction {
                    stabilization_window: 0,
                    policies: vec![policy(PolicyKind::Pods, 2, 60), policy(PolicyKind::Percent, 100, 60)],
                },
                scale_down: Direction { stabilization_window: 600, policies: vec![policy(PolicyKind::Pods, 1, 120)] },
            },
            cooldown: 1800,
            initial_cooldown: 900,
            monitors: MonitorSettings { create: CreateMonitors::UnlessScraped, labels: BTreeMap::new(), interval: ScrapeInterval::DEFAULT },
        }
    }
}
