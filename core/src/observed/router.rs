//! kthena-router: its Services, and the monitors that may scrape it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString};
use kube_core::ResourceExt as _;

use super::{MonitorDigest, Ownership, Sample, UnreadKind};
use crate::{domain::Key, signals::RouterSeries};

/// Inputs of the plan for the router's ServiceMonitor.
#[derive(Clone, Debug, Default)]
pub struct ObservedRouter {
    /// Namespace of the router.
    pub namespace: String,
    /// Services of that namespace.
    pub services: Vec<RouterService>,
    /// Object with the name of the generated ServiceMonitor, of any owner.
    pub service_monitor: Option<MonitorDigest>,
    /// All ServiceMonitors, the generated one included, by namespace and name.
    pub service_monitors: Vec<(Key, MonitorDigest)>,
    /// All PodMonitors, by namespace and name.
    pub pod_monitors: Vec<(Key, MonitorDigest)>,
    /// Prometheus' own account of who scrapes the router.
    pub evidence: ScrapeEvidence,
    /// Kinds that the plan depends on and that could not be read.
    pub unread: Vec<UnreadKind>,
}

/// Location of the router's series, for plans of ModelServings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedRouter {
    /// Location of the series.
    pub series: RouterSeries,
    /// Problem of its scraping, as far as the cluster shows it.
    pub problem: Option<RouterProblem>,
}

/// Problem of the router's scraping, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterProblem {
    /// Prometheus may have no target of the router.
    Unscraped(String),
    /// Scrapes may fail, because the router seems to serve TLS.
    UndeclaredTls(String),
    /// The only monitor of the router scrapes it in a way that leaves signals without data.
    UnfitMonitor(String),
    /// The ServiceMonitor stays as it is, because an input of its plan could not be read.
    Unread(String),
}

impl RouterProblem {
    /// Problem and remedy.
    pub fn message(&self) -> &str {
        match self {
            Self::Unscraped(message)
            | Self::UndeclaredTls(message)
            | Self::UnfitMonitor(message)
            | Self::Unread(message) => message,
        }
    }
}

impl From<RouterSeries> for LocatedRouter {
    fn from(series: RouterSeries) -> Self {
        Self { series, problem: None }
    }
}

/// Prometheus' own account of who scrapes the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ScrapeEvidence {
    /// Prometheus may still show that a monitor scrapes the router.
    #[default]
    Awaited,
    /// Targets in the router's namespace that Prometheus scrapes regularly; none if it cannot be asked.
    Known(BTreeSet<ScrapeTarget>),
}

/// Labels of a scrape target that name its monitor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrapeTarget {
    /// `<namespace>/<name>` of a PodMonitor; the Service of a ServiceMonitor.
    pub job: String,
    /// Service of a ServiceMonitor; empty for a PodMonitor.
    pub service: String,
}

/// Successful scrapes within two minutes that prove that a target is scraped regularly: one less than at the
/// longest interval, because a scrape may be lost.
const REGULAR: f64 = 3.0;

impl ScrapeEvidence {
    /// Reads the number of successful scrapes of each target within two minutes.
    pub fn read(scrapes: Vec<Sample>) -> Self {
        let regular = scrapes.into_iter().filter(|sample| sample.value >= REGULAR);
        let target = |mut sample: Sample| ScrapeTarget {
            job: sample.labels.remove("job").unwrap_or_default(),
            service: sample.labels.remove("service").unwrap_or_default(),
        };
        Self::Known(regular.map(target).collect())
    }

    /// `true` if Prometheus shows a target that matches.
    pub(crate) fn shows(&self, matches: impl Fn(&ScrapeTarget) -> bool) -> bool {
        match self {
            Self::Awaited => false,
            Self::Known(targets) => targets.iter().any(matches),
        }
    }
}

impl ObservedRouter {
    /// Ownership of the object with the name of the generated ServiceMonitor.
    pub fn ownership(&self) -> Ownership {
        self.service_monitor.as_ref().map_or(Ownership::Absent, |digest| digest.owned.ownership(None))
    }
}

/// Digest of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterService {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Labels by which it selects pods.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<RouterPort>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPort {
    /// Name; empty if it has none.
    pub name: String,
    /// Number.
    pub number: i32,
    /// Application protocol, such as `https`.
    pub app_protocol: Option<String>,
    /// Container port, by name or number.
    pub target: IntOrString,
}

impl From<&Service> for RouterService {
    fn from(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| RouterPort {
            name: port.name.unwrap_or_default(),
            number: port.port,
            app_protocol: port.app_protocol,
            target: port.target_port.unwrap_or(IntOrString::Int(port.port)),
        });
        Self {
            name: service.name_any(),
            labels: service.labels().clone(),
            selector: spec.selector.unwrap_or_default(),
            ports: ports.collect(),
        }
    }
}
