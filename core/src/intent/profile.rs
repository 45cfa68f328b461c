//! The platform team's settings, as a value: what every ModelServing gets that does not say otherwise.

use std::collections::BTreeMap;

use crate::{api::annotations::DEFAULT_PROFILE, signals::RouterSettings};
use crate::{
    api::{
        keda::{Fallback, MetricType},
        profile::{AuthMode, AuthenticationRef},
    },
    domain::{Activation, PrometheusUrl, ReplicaBounds, ScrapeInterval, Target},
    promql::Template,
    signals::{Demand, Signal},
};

const ACTIVE_REQUESTS: Signal = Signal::Demand(Demand::ActiveRequests);

/// Settings that many models share.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The Prometheus that KEDA asks; there is no default.
    pub prometheus: Option<PrometheusSettings>,
    /// Where the router's series are, if not where they are found.
    pub router: RouterSettings,
    /// How many ServingGroups there may be.
    pub replicas: ReplicaBounds,
    /// What is measured of what is built in.
    pub signals: Vec<SignalTarget>,
    /// What is measured besides.
    pub custom_signals: Vec<CustomSignal>,
    /// How often KEDA asks, in seconds.
    pub polling_interval: i32,
    /// How fast and after what time ServingGroups are added and removed.
    pub behavior: Behavior,
    /// Time without demand before the last ServingGroup goes, in seconds; counts when `min` is 0.
    pub cooldown: i32,
    /// The same for a ScaledObject that is new and has not seen demand yet, in seconds.
    pub initial_cooldown: i32,
    /// How much demand wakes a model that sleeps.
    pub activation: Activation,
    /// What KEDA assumes while Prometheus gives no answer.
    pub fallback: Option<Fallback>,
    /// The monitors that feed Prometheus.
    pub monitors: MonitorSettings,
}

/// Where and how KEDA asks Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrometheusSettings {
    /// Its base address.
    pub url: PrometheusUrl,
    /// Credentials that KEDA looks up.
    pub authentication: Option<AuthenticationRef>,
    /// How KEDA uses them.
    pub modes: Vec<AuthMode>,
    /// Headers of KEDA's requests; neither names nor values have `,` or `=`.
    pub headers: BTreeMap<String, String>,
    /// Whether KEDA accepts any certificate.
    pub unsafe_ssl: bool,
}

impl MonitorSettings {
    /// Whether to make any.
    pub fn create(&self) -> CreateMonitors {
        self.create.unwrap_or_default()
    }
}

impl From<PrometheusUrl> for PrometheusSettings {
    fn from(url: PrometheusUrl) -> Self {
        Self { url, authentication: None, modes: Vec::new(), headers: BTreeMap::new(), unsafe_ssl: false }
    }
}

/// The monitors that feed Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// Whether to make any; a profile may leave that to the operator's flags.
    pub create: Option<CreateMonitors>,
    /// Labels by which the Prometheus selects its monitors.
    pub labels: BTreeMap<String, String>,
    /// How often Prometheus scrapes.
    pub interval: ScrapeInterval,
}

/// Whether to make monitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreateMonitors {
    /// Unless somebody else's monitor scrapes the same.
    #[default]
    UnlessScraped,
    /// Never.
    Never,
    /// Even beside somebody else's; the queries count what is scraped twice once.
    Always,
}

/// A signal and how much of it one ServingGroup carries.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalTarget {
    /// What is measured.
    pub measure: SignalSource,
    /// What one ServingGroup is expected to carry.
    pub target: Target,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalSource {
    /// A signal of the catalogue.
    BuiltIn(Signal),
    /// A query of the platform team's.
    Custom(CustomSignal),
}

/// A query of the platform team's.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomSignal {
    /// The name by which it is asked for.
    pub name: String,
    /// What is asked.
    pub query: Template,
    /// What one ServingGroup is expected to carry, where nobody says otherwise.
    pub target: Target,
    /// How the answer becomes a number of ServingGroups.
    pub metric_type: MetricType,
}

impl SignalSource {
    /// The name that users write.
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(signal) => signal.name(),
            Self::Custom(custom) => &custom.name,
        }
    }
}

impl SignalTarget {
    /// A signal of the catalogue.
    pub const fn built_in(signal: Signal, target: Target) -> Self {
        Self { measure: SignalSource::BuiltIn(signal), target }
    }
}

/// The HPA's behavior, always complete: KEDA rewrites the HPA on every pass when a part is left to defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// Adding ServingGroups.
    pub scale_up: Direction,
    /// Removing ServingGroups.
    pub scale_down: Direction,
}

/// One direction of scaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// How long recommendations are looked back on, in seconds.
    pub stabilization_window: i32,
    /// Limits of speed.
    pub policies: Vec<Policy>,
    /// Which of the limits counts.
    pub select: Select,
}

/// Which of several limits of speed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the most.
    Max,
    /// The one that allows the least.
    Min,
    /// None: no change at all.
    Disabled,
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

/// Why there are no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileUnavailable<'a> {
    /// There is no profile of the name.
    NotFound,
    /// It is wrong, and this is what is wrong with it.
    Unusable(&'a str),
}

impl Profile {
    /// Whether it has queries that answer a level, by which the HPA multiplies the pods that it finds.
    pub fn uses_value_metric(&self) -> bool {
        self.custom_signals.iter().any(|custom| custom.metric_type == MetricType::Value)
    }

    /// The one that counts for whoever names `name`: what was found under it, and for the default one the built-in settings where there is none.
    ///
    /// # Errors
    /// Where there is none, or what is wrong with it.
    pub fn resolve<'a>(
        name: &str,
        found: Option<&'a Result<Self, String>>,
        defaults: &'a Self,
    ) -> Result<&'a Self, ProfileUnavailable<'a>> {
        match found {
            Some(Ok(profile)) => Ok(profile),
            Some(Err(errors)) => Err(ProfileUnavailable::Unusable(errors)),
            None if name == DEFAULT_PROFILE => Ok(defaults),
            None => Err(ProfileUnavailable::NotFound),
        }
    }

    /// These settings, with the operator's own flags for what a profile leaves to them.
    #[must_use]
    pub fn with_fallback(mut self, flags: &Self) -> Self {
        self.prometheus = self.prometheus.or_else(|| flags.prometheus.clone());
        self.monitors.create = self.monitors.create.or(flags.monitors.create);
        self
    }

    /// Everything that is measured where no ModelServing says otherwise.
    pub fn all_signals(&self) -> Vec<SignalTarget> {
        let custom = |custom: &CustomSignal| SignalTarget {
            measure: SignalSource::Custom(custom.clone()),
            target: custom.target,
        };
        self.signals.iter().cloned().chain(self.custom_signals.iter().map(custom)).collect()
    }

    /// The built-in defaults: made for models that take minutes to load, so quick to add and slow to remove.
    pub fn built_in() -> Self {
        let policy = |kind, value, period| Policy { kind, value, period };
        Self {
            prometheus: None,
            router: RouterSettings::default(),
            replicas: ReplicaBounds::DEFAULT,
            signals: vec![SignalTarget::built_in(ACTIVE_REQUESTS, ACTIVE_REQUESTS.default_target())],
            custom_signals: Vec::new(),
            polling_interval: 15,
            behavior: Behavior {
                scale_up: Direction {
                    stabilization_window: 0,
                    policies: vec![policy(PolicyKind::Pods, 2, 60), policy(PolicyKind::Percent, 100, 60)],
                    select: Select::Max,
                },
                scale_down: Direction {
                    stabilization_window: 600,
                    policies: vec![policy(PolicyKind::Pods, 1, 120)],
                    select: Select::Max,
                },
            },
            cooldown: 1800,
            initial_cooldown: 900,
            activation: Activation::default(),
            fallback: None,
            monitors: MonitorSettings {
                create: None,
                labels: BTreeMap::new(),
                interval: ScrapeInterval::DEFAULT,
            },
        }
    }
}
