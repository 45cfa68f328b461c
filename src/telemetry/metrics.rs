//! Every metric, declared once: registration and `docs/metrics.md` both come from [`MetricSpec::ALL`].
//!
//! Names and labels are controller-runtime's and client-go's where these have the same, so that dashboards and alerts for them fit.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// How long passes take, in seconds: most are over in milliseconds, and a write may take twelve seconds.
const PASS_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// The name of our one controller in metrics, as controller-runtime would have it.
pub const CONTROLLER: &str = "modelserving";

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric that this process shows.
#[derive(Debug)]
pub struct MetricSpec {
    /// Without the suffix that counters get.
    name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The labels of each series.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

impl MetricSpec {
    /// All of them, in the order in which they are documented.
    pub const ALL: [&'static Self; 20] = [
        &MODELS,
        &NOT_READY,
        &WRITES,
        &ERRORS,
        &CHECKS,
        &CHECKED,
        &SERVED,
        &EVENTS_DROPPED,
        &BUILD,
        &RECONCILES,
        &RECONCILE_ERRORS,
        &RECONCILE_TIME,
        &WORKERS,
        &MOST_WORKERS,
        &REQUESTS,
        &LEADER,
        &CPU,
        &MEMORY,
        &FILES,
        &STARTED,
    ];

    const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { name, kind, labels, help }
    }

    /// The name as Prometheus stores it.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
        }
    }

    /// The name as the library wants it, which adds a counter's suffix by itself.
    pub const fn bare_name(&self) -> &'static str {
        self.name
    }

    /// What it says, without the full stop, which the library adds.
    pub(super) fn bare_help(&self) -> &'static str {
        self.help.trim_end_matches('.')
    }
}

/// Opted-in models by status and reason; read from the caches at each scrape.
pub const MODELS: MetricSpec = MetricSpec::new(
    "kthena_keda_models",
    Kind::Gauge,
    &["status", "reason"],
    "Opted-in ModelServings by the status and reason of AutoscalingReady; their sum is how many are managed. Only on the leader.",
);
/// Models whose condition is False; read from the caches at each scrape.
pub const NOT_READY: MetricSpec = MetricSpec::new(
    "kthena_keda_model_not_ready",
    Kind::Gauge,
    &["namespace", "model_serving", "reason"],
    "1 for each ModelServing whose AutoscalingReady is False, and nothing for all others; look its reason up in the troubleshooting page.",
);
const WRITES: MetricSpec = MetricSpec::new(
    "kthena_keda_writes",
    Kind::Counter,
    &["resource", "verb"],
    "Writes that the API server accepted, by resource and verb. Nothing but the Lease is written while nothing changes: alert when it rises for long.",
);
const ERRORS: MetricSpec = MetricSpec::new(
    "kthena_keda_reconcile_errors",
    Kind::Counter,
    &["class"],
    "Passes that failed, by what kind of failure it was: transient ones heal by themselves; forbidden, denied, rejected and unserved need somebody.",
);
const CHECKS: MetricSpec = MetricSpec::new(
    "kthena_keda_signal_checks",
    Kind::Counter,
    &["result"],
    "Looks at a Prometheus for the signals of all its models: answered or failed.",
);
const CHECKED: MetricSpec = MetricSpec::new(
    "kthena_keda_signal_check_timestamp_seconds",
    Kind::Gauge,
    &[],
    "When a Prometheus last answered, as Unix time; 0 before the first answer.",
);
/// APIs that the cluster serves; read from discovery at each scrape.
pub const SERVED: MetricSpec = MetricSpec::new(
    "kthena_keda_served",
    Kind::Gauge,
    &["neighbour"],
    "1 where the cluster serves a neighbour's API, 0 where it does not. Only on the leader.",
);
const EVENTS_DROPPED: MetricSpec = MetricSpec::new(
    "kthena_keda_events_dropped",
    Kind::Counter,
    &[],
    "Kubernetes Events that were not sent, since too many came at once.",
);
const BUILD: MetricSpec = MetricSpec::new(
    "kthena_keda_build_info",
    Kind::Gauge,
    &["version"],
    "1, with the version of the program.",
);
const RECONCILES: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile",
    Kind::Counter,
    &["controller", "result"],
    "Passes over a ModelServing: success, requeue_after (looks again later by itself) or error.",
);
const RECONCILE_ERRORS: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile_errors",
    Kind::Counter,
    &["controller"],
    "Passes over a ModelServing that failed.",
);
const RECONCILE_TIME: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile_time_seconds",
    Kind::Histogram,
    &["controller"],
    "How long a pass takes, its writes included, in seconds.",
);
const WORKERS: MetricSpec = MetricSpec::new(
    "controller_runtime_active_workers",
    Kind::Gauge,
    &["controller"],
    "Passes that are under way at this moment.",
);
const MOST_WORKERS: MetricSpec = MetricSpec::new(
    "controller_runtime_max_concurrent_reconciles",
    Kind::Gauge,
    &["controller"],
    "How many passes may be under way at the same time.",
);
const REQUESTS: MetricSpec = MetricSpec::new(
    "rest_client_requests",
    Kind::Counter,
    &["code", "method"],
    "Requests to the API server by the status of the answer, or <error> where none came.",
);
const LEADER: MetricSpec = MetricSpec::new(
    "leader_election_master_status",
    Kind::Gauge,
    &["name"],
    "1 on the instance that holds the Lease of this name, 0 on those that wait; absent without leader election.",
);
/// CPU time of the process.
pub const CPU: MetricSpec = MetricSpec::new(
    "process_cpu_seconds",
    Kind::Counter,
    &[],
    "Time that the process spent on processors, in seconds.",
);
/// Resident memory of the process.
pub const MEMORY: MetricSpec = MetricSpec::new(
    "process_resident_memory_bytes",
    Kind::Gauge,
    &[],
    "Resident memory of the process, in bytes.",
);
/// Open file descriptors of the process.
pub const FILES: MetricSpec =
    MetricSpec::new("process_open_fds", Kind::Gauge, &[], "File descriptors that the process has open.");

/// Start time of the process.
pub const STARTED: MetricSpec = MetricSpec::new(
    "process_start_time_seconds",
    Kind::Gauge,
    &[],
    "When the process started, as Unix time in seconds.",
);

/// The labels of one series.
type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// What is counted while the process runs. Copies count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Counters<2>,
    reconcile_errors: Counters<1>,
    reconcile_time: Family<Labels<1>, Histogram>,
    workers: Gauges<1>,
    most_workers: Gauges<1>,
    errors: Counters<1>,
    writes: Counters<2>,
    requests: Counters<2>,
    checks: Counters<1>,
    checked: Gauge<f64, AtomicU64>,
    events_dropped: Counter,
    leader: Gauges<1>,
}

impl Metrics {
    /// Registers everything that is counted; what is found out when somebody asks is added by whoever knows it.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_time: Family::new_with_constructor(|| Histogram::new(PASS_SECONDS)),
            workers: Family::default(),
            most_workers: Family::default(),
            errors: Family::default(),
            writes: Family::default(),
            requests: Family::default(),
            checks: Family::default(),
            checked: Gauge::default(),
            events_dropped: Counter::default(),
            leader: Family::default(),
        };
        let build = Gauges::<1>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
        add(registry, &BUILD, build);
        add(registry, &MOST_WORKERS, metrics.most_workers.clone());
        add(registry, &RECONCILES, metrics.reconciles.clone());
        add(registry, &RECONCILE_ERRORS, metrics.reconcile_errors.clone());
        add(registry, &RECONCILE_TIME, metrics.reconcile_time.clone());
        add(registry, &WORKERS, metrics.workers.clone());
        add(registry, &ERRORS, metrics.errors.clone());
        add(registry, &WRITES, metrics.writes.clone());
        add(registry, &REQUESTS, metrics.requests.clone());
        add(registry, &CHECKS, metrics.checks.clone());
        add(registry, &CHECKED, metrics.checked.clone());
        add(registry, &EVENTS_DROPPED, metrics.events_dropped.clone());
        add(registry, &LEADER, metrics.leader.clone());
        metrics
    }

    /// How many passes may be under way at a time.
    pub fn max_concurrency(&self, passes: u16) {
        self.most_workers.get_or_create(&controller()).set(passes.into());
    }

    /// A pass began; it ends when what is returned is dropped.
    pub fn reconciling(&self) -> Pass {
        let workers = self.workers.get_or_create_owned(&controller());
        workers.inc();
        Pass { workers }
    }

    /// A pass is over.
    pub fn reconciled(&self, result: &str, took: Duration) {
        self.reconciles
            .get_or_create(&[("controller", CONTROLLER.to_owned()), ("result", result.to_owned())])
            .inc();
        self.reconcile_time.get_or_create(&controller()).observe(took.as_secs_f64());
    }

    /// A pass failed in this way.
    pub fn failed(&self, class: &str) {
        self.reconcile_errors.get_or_create(&controller()).inc();
        self.errors.get_or_create(&[("class", class.to_owned())]).inc();
    }

    /// The API server answered, or did not.
    pub fn request(&self, method: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&[("code", code), ("method", method.to_owned())]).inc();
    }

    /// The API server accepted a write.
    pub fn write(&self, resource: String, verb: &str) {
        self.writes.get_or_create(&[("resource", resource), ("verb", verb.to_owned())]).inc();
    }

    /// So many were looked at and answered, or did not, at this Unix time in seconds.
    pub fn probed(&self, answered: usize, failed: usize, at: f64) {
        for (result, count) in [("answered", answered), ("failed", failed)] {
            self.checks
                .get_or_create(&[("result", result.to_owned())])
                .inc_by(count.try_into().unwrap_or(u64::MAX));
        }
        if answered > 0 {
            self.checked.set(at);
        }
    }

    /// An event was not sent; answers how many were not.
    pub fn dropped_event(&self) -> u64 {
        self.events_dropped.inc() + 1
    }

    /// Whether this process holds the Lease.
    pub fn leader(&self, lease: &str, leads: bool) {
        self.leader.get_or_create(&[("name", lease.to_owned())]).set(leads.into());
    }
}

fn add(registry: &mut Registry, declared: &MetricSpec, metric: impl Metric) {
    registry.register(declared.name, declared.bare_help(), metric);
}

fn controller() -> Labels<1> {
    [("controller", CONTROLLER.to_owned())]
}

/// A pass that is under way.
#[derive(Debug)]
pub struct Pass {
    workers: Gauge,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.workers.dec();
    }
}
