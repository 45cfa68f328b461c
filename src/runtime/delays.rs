//! Delays and time limits of everything that waits for the network, each with its reason.
//!
//! Periods that have a flag are in `settings`. The times of leader election are fractions of the lease
//! duration: [`Candidate`](super::lease::Candidate) has them.

use std::time::Duration;

/// Limit of one request to the API server, until the headers of its response: watches are not cut.
///
/// KEDA's admission webhook alone may take 10 s. The limit encloses kube's own retries, which would otherwise
/// go on for minutes, and ends requests on connections that accept and never respond.
pub const API_REQUEST: Duration = Duration::from_secs(12);

/// Longest silence of a connection once a response has begun, where [`API_REQUEST`] no longer applies.
///
/// A network that loses a connection notifies neither end. The API server ends a watch after
/// [`WATCH_SECONDS`], so a healthy one is never silent for longer than this.
pub const API_SILENCE: Duration = Duration::from_secs(65);

/// Lifetime of a watch at the API server, in seconds: a connection that fell silent is replaced soon after.
pub const WATCH_SECONDS: u32 = 60;

/// Longest `Retry-After` that is honoured: a proxy in front of the API server may send any number.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Delay before the first retry, before jitter; it doubles with each failure in a row.
pub const RETRY_BASE: Duration = Duration::from_millis(250);
/// Longest delay between retries of what heals by itself, such as an outage, and of what a webhook denies.
pub const RETRY_TRANSIENT_MAX: Duration = Duration::from_secs(30);
/// Longest delay between retries for a missing permission or a kind that is not served.
pub const RETRY_BLOCKED_MAX: Duration = Duration::from_mins(5);
/// Longest delay between retries of an object that was rejected as invalid.
pub const RETRY_REJECTED_MAX: Duration = Duration::from_mins(10);
/// Longest delay between two tries of a watch.
pub const RETRY_WATCH_MAX: Duration = Duration::from_secs(30);
/// Time after a try from which on a watch that fails counts as having been healthy; a single request fails
/// sooner.
pub const WATCH_HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Period of discovery while the cluster serves everything that the operator uses.
pub const DISCOVERY_SETTLED: Duration = Duration::from_mins(5);
/// Delay before a second discovery confirms that an API is gone.
///
/// An API server that has just started serves requests before it knows all custom resources; believing the
/// first response would change every condition.
pub const DISCOVERY_CONFIRM: Duration = Duration::from_secs(5);

/// Delay before the API server is asked whether the API of a deleted object is gone as well.
///
/// The deletion of a CRD first deletes all objects of its kind.
pub const DELETION_CONFIRM: Duration = Duration::from_secs(5);

/// Interval of counting the pods of a model's roles while their numbers change: the HPA computes by the count.
pub const ROLES_MOVE: Duration = Duration::from_secs(5);

/// The same once the ModelServing has as many as it asks for.
pub const ROLES_REST: Duration = Duration::from_mins(1);

/// Time for KEDA to report on a new ScaledObject, which takes it seconds; afterwards its silence is a problem.
pub const KEDA_REPORT: Duration = Duration::from_mins(5);

/// Time for KEDA to report the end of a pause, which takes it seconds; afterwards its report is outdated.
pub const KEDA_RESUME: Duration = Duration::from_mins(2);

/// Time in which the event limiter regains one event.
pub const EVENT_REFILL: Duration = Duration::from_millis(200);

/// Limit of a query to Prometheus, response included.
pub const PROMETHEUS_REQUEST: Duration = Duration::from_secs(8);
/// Limit of the evaluation in Prometheus, in milliseconds; shorter than [`PROMETHEUS_REQUEST`], so that
/// Prometheus itself reports the timeout.
pub const PROMETHEUS_EVALUATION_MILLIS: i64 = 5000;
/// Limit of the connection to Prometheus.
pub const PROMETHEUS_CONNECT: Duration = Duration::from_secs(3);

/// Limit of releasing the Lease at shutdown.
pub const LEASE_RELEASE: Duration = Duration::from_secs(1);
/// Longest request for the Lease, however long the lease duration.
pub const LEASE_REQUEST_MAX: Duration = Duration::from_secs(4);
