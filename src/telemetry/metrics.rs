//! Every metric, declared once: registration and `docs/metrics.md` both come from [`MetricSpec::ALL`].
//!
//! Names and labels are controller-runtime's and client-go's where these have the same, so that dashboards
//! and alerts for them fit.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Buckets of the duration of reconciles, in seconds: most take milliseconds, and one write up to twelve
/// seconds.
const RECONCILE_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Label value of the only controller, in the form that controller-runtime uses.
pub const CONTROLLER: &str = "modelserving";

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only rises.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// Counts of values by bucket.
    Histogram,
}

/// Declaration of a metric.
#[derive(Debug)]
pub struct MetricSpec {
    /// Name without the suffix of counters.
    name: &'static str,
    /// Type of the metric.
    pub kind: Kind,
    /// Label names of each series.
    pub labels: &'static [&'static str],
    /// Meaning, in one or two sentences.
    pub help: &'static str,
}

impl MetricSpec {
    /// All metrics, in the order of the documentation.
    pub const ALL: [&'static Self; 25] = [
        &MODELS,
        &NOT_READY,
        &WAITING,
        &REPLICAS,
        &ROLE_REPLICAS,
        &SHADOW_REPLICAS,
        &LOADING_TIME,
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
        &MAX_WORKERS,
        &REQUESTS,
        &LEADER,
        &CPU,
        &MEMORY,
        &FILES,
        &STARTED,
    ];

    /// The metrics of `hold`, which a stand-in serves instead.
    pub const HOLD: [&'static Self; 5] = [&HELD, &HELD_TOTAL, &HOLD_WAIT, &HOLD_REFUSED, &HANDED_OVER];

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

    /// The name for the library, which adds the suffix of counters.
    pub const fn bare_name(&self) -> &'static str {
        self.name
    }

    /// The meaning for the library, which adds a full stop.
    pub(super) fn bare_help(&self) -> &'static str {
        self.help.trim_end_matches('.')
    }
}

/// Opted-in models by status and reason; read from the caches at each scrape.
pub const MODELS: MetricSpec = MetricSpec::new(
    "kthena_keda_models",
    Kind::Gauge,
    &["status", "reason"],
    "Opted-in ModelServings by status and reason of AutoscalingReady. The sum is the number of managed models. Only on the leader.",
);
/// Models whose condition is False; read from the caches at each scrape.
pub const NOT_READY: MetricSpec = MetricSpec::new(
    "kthena_keda_model_not_ready",
    Kind::Gauge,
    &["namespace", "model_serving", "reason"],
    "1 for each ModelServing whose AutoscalingReady is False; no series for the others. The troubleshooting page has an entry for each reason. Only on the leader.",
);
/// Models whose ServingGroups do not become ready; read from the caches at each scrape.
pub const WAITING: MetricSpec = MetricSpec::new(
    "kthena_keda_model_waiting",
    Kind::Gauge,
    &["namespace", "model_serving", "cause"],
    "1 for each ModelServing whose ServingGroups do not become ready, by cause: Unschedulable, NoScheduler, ImagePull or NotReady; no series for the others. Only on the leader.",
);
/// Numbers of ServingGroups; read from the caches at each scrape.
pub const REPLICAS: MetricSpec = MetricSpec::new(
    "kthena_keda_replicas",
    Kind::Gauge,
    &["namespace", "model_serving", "state"],
    "ServingGroups of each opted-in ModelServing, by state: spec (requested), total (existing) or ready (available). Only on the leader, and not with --model-metrics=false.",
);
/// Numbers of the roles that are scaled; read from the caches at each scrape.
pub const ROLE_REPLICAS: MetricSpec = MetricSpec::new(
    "kthena_keda_role_replicas",
    Kind::Gauge,
    &["namespace", "model_serving", "role", "state"],
    "Instances of each scaled role in each ServingGroup, by state: asked (by the HPA), spec (in the ModelServing) or total (existing in the ServingGroup that has the fewest). Only on the leader, and not with --model-metrics=false.",
);
/// Numbers of the models in shadow; read from the caches at each scrape.
pub const SHADOW_REPLICAS: MetricSpec = MetricSpec::new(
    "kthena_keda_shadow_replicas",
    Kind::Gauge,
    &["namespace", "model_serving"],
    "ServingGroups that a model in shadow would hold; no series for models that are not observed. Only on the leader.",
);
/// Loading times of ServingGroups; read from the caches at each scrape.
pub const LOADING_TIME: MetricSpec = MetricSpec::new(
    "kthena_keda_start_seconds",
    Kind::Histogram,
    &["namespace", "model_serving"],
    "Time from the request for a further ServingGroup until it is available, in seconds, by opted-in ModelServing; no series before the first. Only on the leader, and not with --model-metrics=false.",
);
const WRITES: MetricSpec = MetricSpec::new(
    "kthena_keda_writes",
    Kind::Counter,
    &["resource", "verb"],
    "Writes that the API server accepted, by resource and verb. At rest only the Lease is written: alert on a persistent increase.",
);
const ERRORS: MetricSpec = MetricSpec::new(
    "kthena_keda_reconcile_errors",
    Kind::Counter,
    &["class"],
    "Failed reconciles of ModelServings, profiles and the router's ServiceMonitor, and forbidden watches, by error class. The class transient heals by itself; forbidden, denied and rejected need action; unserved ends when the API is served.",
);
const CHECKS: MetricSpec = MetricSpec::new(
    "kthena_keda_signal_checks",
    Kind::Counter,
    &["result"],
    "Prometheus signal checks, by result: answered or failed.",
);
const CHECKED: MetricSpec = MetricSpec::new(
    "kthena_keda_signal_check_timestamp_seconds",
    Kind::Gauge,
    &[],
    "Unix time of the last signal check that a Prometheus answered, or that had none to query, in seconds; 0 before the first.",
);
/// Optional APIs by whether the cluster serves them; read from discovery at each scrape. The label
/// `neighbour` holds the name of the API, and keeps its own name for compatibility.
pub const SERVED: MetricSpec = MetricSpec::new(
    "kthena_keda_served",
    Kind::Gauge,
    &["neighbour"],
    "1 if the cluster serves the optional API, 0 if not. Only on the leader.",
);
const EVENTS_DROPPED: MetricSpec = MetricSpec::new(
    "kthena_keda_events_dropped",
    Kind::Counter,
    &[],
    "Kubernetes Events that were dropped because the event queue was full.",
);
const BUILD: MetricSpec = MetricSpec::new(
    "kthena_keda_build_info",
    Kind::Gauge,
    &["version"],
    "Always 1, with the version of the operator.",
);
const RECONCILES: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile",
    Kind::Counter,
    &["controller", "result"],
    "Reconciles of ModelServings, by result: success, requeue_after (requeued after a delay) or error.",
);
const RECONCILE_ERRORS: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile_errors",
    Kind::Counter,
    &["controller"],
    "Failed reconciles of ModelServings.",
);
const RECONCILE_TIME: MetricSpec = MetricSpec::new(
    "controller_runtime_reconcile_time_seconds",
    Kind::Histogram,
    &["controller"],
    "Duration of a reconcile, its writes included, in seconds.",
);
const WORKERS: MetricSpec = MetricSpec::new(
    "controller_runtime_active_workers",
    Kind::Gauge,
    &["controller"],
    "Reconciles in progress.",
);
const MAX_WORKERS: MetricSpec = MetricSpec::new(
    "controller_runtime_max_concurrent_reconciles",
    Kind::Gauge,
    &["controller"],
    "Maximum number of concurrent reconciles.",
);
const REQUESTS: MetricSpec = MetricSpec::new(
    "rest_client_requests",
    Kind::Counter,
    &["code", "method"],
    "Requests to the API server by HTTP status code and method; the code is <error> if there was no response.",
);
const LEADER: MetricSpec = MetricSpec::new(
    "leader_election_master_status",
    Kind::Gauge,
    &["name"],
    "1 on the instance that holds the Lease with this name, 0 on followers; absent without leader election.",
);
/// CPU time of the process.
pub const CPU: MetricSpec =
    MetricSpec::new("process_cpu_seconds", Kind::Counter, &[], "CPU time of the process, in seconds.");
/// Resident memory of the process.
pub const MEMORY: MetricSpec = MetricSpec::new(
    "process_resident_memory_bytes",
    Kind::Gauge,
    &[],
    "Resident memory of the process, in bytes.",
);
/// Open file descriptors of the process.
pub const FILES: MetricSpec =
    MetricSpec::new("process_open_fds", Kind::Gauge, &[], "Open file descriptors of the process.");

/// Start time of the process.
pub const STARTED: MetricSpec = MetricSpec::new(
    "process_start_time_seconds",
    Kind::Gauge,
    &[],
    "Start time of the process, as Unix time in seconds.",
);

/// Requests that a stand-in holds.
pub const HELD: MetricSpec = MetricSpec::new(
    "kthena_keda_hold_requests",
    Kind::Gauge,
    &[],
    "Requests that the stand-in holds: they wait for an engine, or their bodies are still being received.",
);
/// Requests that a stand-in has held.
pub const HELD_TOTAL: MetricSpec = MetricSpec::new(
    "kthena_keda_hold_received",
    Kind::Counter,
    &[],
    "Requests that the stand-in accepted to hold; those that an engine received at once are included.",
);
/// Time until the hand-over.
pub const HOLD_WAIT: MetricSpec = MetricSpec::new(
    "kthena_keda_hold_wait_seconds",
    Kind::Histogram,
    &[],
    "Time from the arrival of a request until an engine accepted its connection, in seconds.",
);
/// Requests without an answer of an engine.
pub const HOLD_REFUSED: MetricSpec = MetricSpec::new(
    "kthena_keda_hold_refused",
    Kind::Counter,
    &["cause"],
    "Requests that got no complete answer of an engine, by cause: requests, body or bodies (a limit), timeout, stopping, model (another model's), invalid, or engine (it ended the connection).",
);
/// Requests that engines have received.
pub const HANDED_OVER: MetricSpec = MetricSpec::new(
    "kthena_keda_hold_handed_over",
    Kind::Counter,
    &[],
    "Requests for which an engine accepted a connection. Each is sent once, whatever its answer.",
);

/// Labels of one series.
type Labels<const N: usize> = [(&'static str, String); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// Metrics that the process counts itself. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Counters<2>,
    reconcile_errors: Counters<1>,
    reconcile_time: Family<Labels<1>, Histogram>,
    workers: Gauges<1>,
    max_workers: Gauges<1>,
    errors: Counters<1>,
    writes: Counters<2>,
    requests: Counters<2>,
    checks: Counters<1>,
    checked: Gauge<f64, AtomicU64>,
    events_dropped: Counter,
    leader: Gauges<1>,
}

impl Metrics {
    /// Registers every metric that is counted; the collectors in `app` add those that are read at each
    /// scrape.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            reconcile_time: Family::new_with_constructor(|| Histogram::new(RECONCILE_SECONDS)),
            workers: Family::default(),
            max_workers: Family::default(),
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
        add(registry, &MAX_WORKERS, metrics.max_workers.clone());
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

    /// Sets the maximum number of concurrent reconciles.
    pub fn max_concurrency(&self, reconciles: u16) {
        self.max_workers.get_or_create(&controller()).set(reconciles.into());
    }

    /// Counts a reconcile that begins; it ends when the returned value is dropped.
    pub fn reconciling(&self) -> ActiveReconcile {
        let workers = self.workers.get_or_create_owned(&controller());
        workers.inc();
        ActiveReconcile { workers }
    }

    /// Counts a reconcile that ended with this result after this time.
    pub fn reconciled(&self, result: &str, took: Duration) {
        self.reconciles
            .get_or_create(&[("controller", CONTROLLER.to_owned()), ("result", result.to_owned())])
            .inc();
        self.reconcile_time.get_or_create(&controller()).observe(took.as_secs_f64());
    }

    /// Counts a reconcile of a ModelServing that failed with an error of this class.
    pub fn failed(&self, class: &str) {
        self.reconcile_errors.get_or_create(&controller()).inc();
        self.error(class);
    }

    /// Counts an error of this class, of any controller or watch.
    pub fn error(&self, class: &str) {
        self.errors.get_or_create(&[("class", class.to_owned())]).inc();
    }

    /// Counts a request to the API server; the code is `None` without a response.
    pub fn request(&self, method: &str, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&[("code", code), ("method", method.to_owned())]).inc();
    }

    /// Counts a write that the API server accepted.
    pub fn write(&self, resource: String, verb: &str) {
        self.writes.get_or_create(&[("resource", resource), ("verb", verb.to_owned())]).inc();
    }

    /// Counts signal checks that Prometheus answered and that failed, at this Unix time in seconds.
    pub fn probed(&self, answered: usize, failed: usize, at: f64) {
        for (result, count) in [("answered", answered), ("failed", failed)] {
            self.checks
                .get_or_create(&[("result", result.to_owned())])
                .inc_by(count.try_into().unwrap_or(u64::MAX));
        }
        // Without a Prometheus that the operator can query there is nothing to alert on.
        if answered > 0 || failed == 0 {
            self.checked.set(at);
        }
    }

    /// Counts a dropped event; returns how many were dropped so far.
    pub fn dropped_event(&self) -> u64 {
        self.events_dropped.inc() + 1
    }

    /// Sets if this process holds the Lease with this name.
    pub fn leader(&self, lease: &str, is_leader: bool) {
        self.leader.get_or_create(&[("name", lease.to_owned())]).set(is_leader.into());
    }
}

/// Registers a metric under its declaration.
pub(crate) fn add(registry: &mut Registry, spec: &MetricSpec, metric: impl Metric) {
    registry.register(spec.name, spec.bare_help(), metric);
}

fn controller() -> Labels<1> {
    [("controller", CONTROLLER.to_owned())]
}

/// A reconcile in progress.
#[derive(Debug)]
pub struct ActiveReconcile {
    workers: Gauge,
}

impl Drop for ActiveReconcile {
    fn drop(&mut self) {
        self.workers.dec();
    }
}
