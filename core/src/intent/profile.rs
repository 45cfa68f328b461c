//! The settings of an AutoscalingProfile, as valid values.

use std::{collections::BTreeMap, time::Duration};

use super::roles::Roles;
pub use crate::api::profile::{PolicyKind, Select};
use crate::{
    api::{
        annotations::DEFAULT_PROFILE,
        keda::{Fallback, MetricType},
        monitoring::{Scheme, TlsConfig},
        profile::{AuthMode, AuthenticationRef},
    },
    domain::{
        Activation, Backlog, Demand, Hold, NamespacePattern, Objective, PrometheusUrl, ReplicaBounds,
        Saturation, ScrapeInterval, SeriesMatchers, Signal, Target, ValueError, number,
    },
    promql::Template,
    signals::{RouterSeries, RouterSettings},
};

/// Time that KEDA waits for a query by default.
const KEDA_LIMIT: Duration = Duration::from_secs(3);

/// Settings that many ModelServings share.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Namespaces whose ModelServings may use it; `None` allows all.
    pub allowed_namespaces: Option<Vec<NamespacePattern>>,
    /// Prometheus that KEDA queries; it has no built-in default.
    pub prometheus: Option<PrometheusSettings>,
    /// Location of the router's series, if it differs from the detected one.
    pub router: RouterSettings,
    /// Bounds of the number of ServingGroups.
    pub replicas: ReplicaBounds,
    /// Built-in signals and their targets.
    pub signals: Vec<SignalTarget>,
    /// Signals with queries of the platform team.
    pub custom_signals: Vec<CustomSignal>,
    /// Roles that are scaled instead of ServingGroups.
    pub roles: Option<Roles>,
    /// Bound on the waiting requests that count.
    pub backlog: Backlog,
    /// Interval between KEDA's queries, in seconds.
    pub polling_interval: i32,
    /// Speed of adding and removing ServingGroups.
    pub behavior: Behavior,
    /// Time without demand before KEDA removes the last ServingGroup, in seconds; applies if the minimum is
    /// 0.
    pub cooldown: i32,
    /// The same for a new ScaledObject that has not had demand yet, in seconds.
    pub initial_cooldown: i32,
    /// Demand that a model at zero has to exceed before KEDA scales it up.
    pub activation: Activation,
    /// Limits of the requests that are held while no ServingGroup is ready; `None` holds none. Applies if the minimum
    /// is 0.
    pub hold: Option<Hold>,
    /// Number of ServingGroups while Prometheus returns no data.
    pub fallback: Option<Fallback>,
    /// ServiceMonitor and PodMonitors.
    pub monitors: MonitorSettings,
    /// Protocol of the router's metrics.
    pub router_endpoint: RouterEndpoint,
}

/// Protocol by which Prometheus scrapes the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterEndpoint {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// TLS settings, only with TLS.
    pub tls: Option<TlsConfig>,
}

/// Address of a Prometheus, and KEDA's access to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrometheusSettings {
    /// Base URL.
    pub url: PrometheusUrl,
    /// TriggerAuthentication with KEDA's credentials.
    pub authentication: Option<AuthenticationRef>,
    /// Modes in which KEDA uses the credentials.
    pub modes: Vec<AuthMode>,
    /// Headers of KEDA's requests; names and values contain neither `,` nor `=`.
    pub headers: BTreeMap<String, String>,
    /// `true` if KEDA accepts any certificate.
    pub unsafe_ssl: bool,
    /// Labels of the series that the queries select.
    pub matchers: SeriesMatchers,
    /// Parameters of each query's URL, of KEDA's queries and the operator's own.
    pub query_parameters: BTreeMap<String, String>,
    /// Limit of each query, in seconds; `None` leaves it to KEDA's and the operator's defaults.
    pub timeout: Option<i32>,
    /// Region for which KEDA signs its requests (AWS Signature Version 4); the operator does not sign its own.
    pub aws_region: Option<String>,
}

impl MonitorSettings {
    /// The setting, or its built-in default.
    pub fn create(&self) -> CreateMonitors {
        self.create.unwrap_or_default()
    }
}

impl PrometheusSettings {
    /// Limit of a query in the profile.
    pub fn query_limit(&self) -> Option<Duration> {
        self.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
    }

    /// Time that KEDA waits for a query: the profile's limit, or the default of KEDA's own setting
    /// `KEDA_HTTP_DEFAULT_TIMEOUT`.
    pub fn kedas_limit(&self) -> Duration {
        self.query_limit().unwrap_or(KEDA_LIMIT)
    }
}

impl From<PrometheusUrl> for PrometheusSettings {
    fn from(url: PrometheusUrl) -> Self {
        Self {
            url,
            authentication: None,
            modes: Vec::new(),
            headers: BTreeMap::new(),
            unsafe_ssl: false,
            matchers: SeriesMatchers::default(),
            query_parameters: BTreeMap::new(),
            timeout: None,
            aws_region: None,
        }
    }
}

/// Settings of the monitors that have Prometheus scrape the router and the engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// Creation of monitors; `None` leaves it to the operator's flag `--create-monitors`.
    pub create: Option<CreateMonitors>,
    /// Labels by which Prometheus selects its monitors.
    pub labels: BTreeMap<String, String>,
    /// Interval between scrapes.
    pub interval: ScrapeInterval,
}

/// Conditions for creating monitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreateMonitors {
    /// Unless a monitor of another owner scrapes the same target.
    #[default]
    UnlessScraped,
    /// Never.
    Never,
    /// Even beside a monitor of another owner; the queries count a target that is scraped twice once.
    Always,
}

/// A signal and its target.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalTarget {
    /// The signal.
    pub source: SignalSource,
    /// Amount that one ServingGroup carries.
    pub target: Target,
}

/// A built-in or custom signal.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalSource {
    /// A signal of the router.
    Demand(Demand),
    /// A load of the engines.
    Saturation(Saturation),
    /// A latency of the engines, and its objective.
    Latency(Objective),
    /// A signal with a query of the platform team.
    Custom(CustomSignal),
}

/// A signal with a query of the platform team.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomSignal {
    /// Name, for annotations and triggers.
    pub name: String,
    /// Query with placeholders.
    pub query: Template,
    /// Amount that one ServingGroup carries, unless an annotation sets another.
    pub target: Target,
    /// Conversion of the value to a number of ServingGroups.
    pub metric_type: MetricType,
}

impl SignalSource {
    /// The name in annotations and profiles.
    pub fn name(&self) -> &str {
        match self {
            Self::Demand(demand) => Signal::Demand(*demand).name(),
            Self::Saturation(saturation) => Signal::Saturation(*saturation).name(),
            Self::Latency(objective) => Signal::Latency(objective.latency()).name(),
            Self::Custom(custom) => &custom.name,
        }
    }

    /// `true` if it is measured at the engines.
    pub const fn is_of_engines(&self) -> bool {
        match self {
            Self::Saturation(_) | Self::Latency(_) => true,
            Self::Demand(_) | Self::Custom(_) => false,
        }
    }
}

impl SignalTarget {
    /// Parses the target of a built-in signal: a number, or the objective of a latency.
    ///
    /// # Errors
    /// If the text is not what the signal needs.
    pub(crate) fn built_in(signal: Signal, target: &str) -> Result<Self, ValueError> {
        let source = match signal {
            Signal::Demand(demand) => SignalSource::Demand(demand),
            Signal::Saturation(saturation) => SignalSource::Saturation(saturation),
            Signal::Latency(latency) => {
                let source = SignalSource::Latency(Objective::parse(latency, target)?);
                return Ok(Self { source, target: Objective::TARGET });
            }
        };
        Ok(Self { source, target: number(target)? })
    }
}

/// Checks that a latency is not the only kind of signal: it is flat until the engines are full, and says nothing
/// without requests.
///
/// # Errors
/// If latencies have neither a demand signal nor a custom one beside them.
pub(super) fn check_demand<'a>(
    signals: impl IntoIterator<Item = &'a SignalSource>,
) -> Result<(), ValueError> {
    let (mut has_latency, mut has_demand) = (false, false);
    for signal in signals {
        match signal {
            SignalSource::Latency(_) => has_latency = true,
            SignalSource::Demand(_) | SignalSource::Custom(_) => has_demand = true,
            SignalSource::Saturation(_) => {}
        }
    }
    if !has_latency || has_demand {
        return Ok(());
    }
    Err(ValueError::expected(
        "a signal of the router beside ttft-p90 and itl-p90, which say nothing without requests; add active-requests",
    ))
}

/// The HPA's behavior. It is always complete: KEDA rewrites the HPA on every reconcile if a part is left to
/// defaults.
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
    /// Time over which the HPA considers recommendations, in seconds.
    pub stabilization_window: i32,
    /// Limits of the speed.
    pub policies: Vec<Policy>,
    /// Choice among the limits.
    pub select: Select,
}

/// A limit of the change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Unit of `value`.
    pub kind: PolicyKind,
    /// Number of ServingGroups, or percent.
    pub value: i32,
    /// Length of the period, in seconds.
    pub period: i32,
}

/// Reason why a ModelServing has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileUnavailable<'a> {
    /// No profile has this name.
    NotFound,
    /// The profile does not allow the namespace of the ModelServing.
    NotAllowed,
    /// The profile is invalid, with these errors.
    Unusable(&'a str),
}

impl Profile {
    /// `true` if a custom signal is a level, by which the HPA multiplies the number of ready pods.
    pub fn uses_value_metric(&self) -> bool {
        self.custom_signals.iter().any(|custom| custom.metric_type == MetricType::Value)
    }

    /// The detected router's series, with the overrides of the profile.
    pub fn router_series(&self, detected: &RouterSeries) -> RouterSeries {
        let matchers = self.prometheus.as_ref().map(|prometheus| prometheus.matchers.clone());
        detected.with_overrides(&self.router, &matchers.unwrap_or_default())
    }

    /// `true` if ModelServings of this namespace may use the profile.
    pub fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(namespace)))
    }

    /// The settings of the profile `name` for a ModelServing of `namespace`: those `found`, or `defaults` for
    /// the profile named default if it does not exist.
    ///
    /// # Errors
    /// If the profile does not exist, is invalid, or does not allow the namespace.
    pub fn resolve<'a>(
        name: &str,
        namespace: &str,
        found: Option<&'a Result<Self, String>>,
        defaults: &'a Self,
    ) -> Result<&'a Self, ProfileUnavailable<'a>> {
        match found {
            Some(Ok(profile)) if profile.allows(namespace) => Ok(profile),
            Some(Ok(_)) => Err(ProfileUnavailable::NotAllowed),
            Some(Err(errors)) => Err(ProfileUnavailable::Unusable(errors)),
            None if name == DEFAULT_PROFILE => Ok(defaults),
            None => Err(ProfileUnavailable::NotFound),
        }
    }

    /// These settings, completed by the operator's flags.
    #[must_use]
    pub fn with_flag_defaults(mut self, flags: &Self) -> Self {
        self.prometheus = self.prometheus.or_else(|| flags.prometheus.clone());
        self.monitors.create = self.monitors.create.or(flags.monitors.create);
        self
    }

    /// Built-in and custom signals: the signals of a ModelServing whose annotations set none.
    pub fn all_signals(&self) -> Vec<SignalTarget> {
        let custom = self.custom_signals.iter().map(|custom| SignalTarget {
            source: SignalSource::Custom(custom.clone()),
            target: custom.target,
        });
        self.signals.iter().cloned().chain(custom).collect()
    }
}
