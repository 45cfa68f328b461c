//! Leader election by a Lease: one of several processes writes, the others wait.
//!
//! In: the Lease's name and the identity of this process. Out: a [`WriteFence`], which every write checks
//! first.
//!
//! The rules are client-go's (`tools/leaderelection`). A Lease is updated with the resource version that was
//! read, so one of two candidates loses. It counts as expired after its record was observed unchanged for the
//! lease duration on this process's monotonic clock, regardless of the times in it. A leader that could not
//! renew stops writing well before another candidate may acquire the Lease.
//!
//! The crate kube-lease-manager (0.13, for kube 5) judges expiry by the wall clock and the Lease's
//! `renewTime`, so a clock that steps could make a follower take over from a healthy leader, and it has no
//! fence for writes.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    runtime::watcher,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    backoff,
    delays::{LEASE_RELEASE, LEASE_REQUEST_MAX},
    resilient_watch::{resilient_watch, watch_config},
};

/// A candidate for the Lease, and the times of its election.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Holder identity of this process; unique among all candidates.
    pub identity: String,
    /// Lease duration: the time for which followers wait for a leader that stopped renewing.
    pub duration: Duration,
}

impl Candidate {
    /// Period of renewals.
    fn renew_period(&self) -> Duration {
        self.duration / 5
    }

    /// Time after a renewal within which a write may start; the rest of the duration is a margin for requests
    /// on the wire.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Delay after a failed request.
    fn retry_period(&self) -> Duration {
        backoff::jitter(self.duration / 15)
    }

    /// Limit of one request for the Lease, so that a connection that hangs leaves time for a second try.
    pub fn request_limit(&self) -> Duration {
        (self.duration * 4 / 15).min(LEASE_REQUEST_MAX)
    }
}

/// Permission of this process to write, until an instant on the monotonic clock.
#[derive(Clone, Debug)]
pub struct WriteFence(Option<Arc<Mutex<Option<Instant>>>>);

impl WriteFence {
    /// A fence that is always open, without an election.
    pub const fn for_life() -> Self {
        Self(None)
    }

    /// A fence that is closed until the Lease is acquired.
    pub fn by_election() -> Self {
        Self(Some(Arc::default()))
    }

    /// `true` if a write may start now.
    pub fn holds(&self) -> bool {
        self.0.is_none() || self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.as_ref()?.lock()
    }

    fn set(&self, until: Option<Instant>) {
        if let Some(fence) = &self.0 {
            *fence.lock() = until;
        }
    }

    /// Waits until the fence has closed.
    async fn expired(&self) {
        while let Some(until) = self.until().filter(|_| self.holds()) {
            sleep_until(until).await;
        }
    }
}

/// The Lease as it was last observed.
#[derive(Debug)]
struct ObservedRecord {
    lease: Option<Lease>,
    /// Instant at which the current spec was first observed, on this process's monotonic clock.
    observed_at: Instant,
}

impl ObservedRecord {
    fn empty() -> Self {
        Self { lease: None, observed_at: Instant::now() }
    }

    fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        if self.lease.as_ref().map(|lease| &lease.spec) != lease.as_ref().map(|lease| &lease.spec) {
            self.observed_at = now;
        }
        self.lease = lease;
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref()?.spec.as_ref()
    }

    /// Identity of the holder; `None` after a release.
    fn holder(&self) -> Option<&str> {
        self.spec()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Instant from which `identity` may acquire the Lease: at once unless another identity holds it.
    fn acquirable_at(&self, identity: &str) -> Instant {
        let is_held = self.holder().is_some_and(|holder| holder != identity);
        let seconds =
            self.spec().and_then(|spec| spec.lease_duration_seconds).filter(|_| is_held).unwrap_or_default();
        self.observed_at + Duration::from_secs(seconds.try_into().unwrap_or_default())
    }
}

/// Acquires, renews and releases the Lease.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    candidate: Candidate,
    fence: WriteFence,
    record: ObservedRecord,
    /// Source of the times in the Lease, which are for its readers; no decision depends on it, since it may
    /// step.
    wall_clock: fn() -> Timestamp,
}

impl Elector {
    /// An elector that has observed nothing yet. The client limits requests to [`Candidate::request_limit`].
    pub fn new(client: kube::Client, candidate: Candidate, fence: WriteFence) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        Self { api, candidate, fence, record: ObservedRecord::empty(), wall_clock: Timestamp::now }
    }

    /// The Lease's name.
    pub fn lease(&self) -> &str {
        &self.candidate.name
    }

    /// Waits until this process holds the Lease; retries after failures.
    pub async fn acquire(&mut self) {
        let config = watch_config().fields(&format!("metadata.name={}", self.candidate.name));
        let mut changes = pin!(resilient_watch(self.api.clone(), config));
        tracing::info!(
            lease = self.candidate.name,
            identity = self.candidate.identity,
            "waiting for the leader lease"
        );
        let mut last_error = None;
        let mut next_try = Instant::now();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => {
                        self.record.observe(Some(lease), Instant::now());
                    }
                    Some(Ok(watcher::Event::Delete(_))) => self.record.observe(None, Instant::now()),
                    // A failing watch needs no log line: tries to acquire fail for the same cause.
                    Some(Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_)) | None => continue,
                },
                () = sleep_until(next_try) => match self.try_acquire().await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => {
                        log_once(&error, &mut last_error);
                        next_try = Instant::now() + self.candidate.retry_period();
                        continue;
                    }
                },
            }
            next_try = self.record.acquirable_at(&self.candidate.identity).max(Instant::now());
        }
    }

    /// Reads the Lease, which may be newer than the watch, and acquires it if it is free. Returns `true` if
    /// this process holds it.
    async fn try_acquire(&mut self) -> Result<bool, kube::Error> {
        self.refresh().await?;
        if Instant::now() < self.record.acquirable_at(&self.candidate.identity) {
            return Ok(false);
        }
        match self.write().await {
            Ok(()) => {
                tracing::info!(
                    lease = self.candidate.name,
                    identity = self.candidate.identity,
                    "acquired the leader lease"
                );
                Ok(true)
            }
            // Another candidate was first; its record counts from now on.
            Err(error) if is_conflict(&error) => {
                self.refresh().await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Observes the Lease as the API server has it now.
    async fn refresh(&mut self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.candidate.name).await?;
        self.record.observe(lease, Instant::now());
        Ok(())
    }

    /// Renews the Lease until it is lost.
    pub async fn keep_renewing(&mut self) {
        let fence = self.fence.clone();
        tokio::select! {
            () = self.renew() => {}
            () = fence.expired() => {}
        }
        self.fence.set(None);
        tracing::error!(
            lease = self.candidate.name,
            "lost the leader lease; exiting to restart as a follower"
        );
    }

    /// Renews periodically; returns when another identity holds the Lease.
    async fn renew(&mut self) {
        let mut last_error = None;
        let mut pause = self.candidate.renew_period();
        loop {
            sleep(pause).await;
            match self.write().await {
                Ok(()) => {
                    last_error = None;
                    pause = self.candidate.renew_period();
                }
                Err(error) if is_conflict(&error) && !self.is_still_holder().await => return,
                Err(error) => {
                    log_once(&error, &mut last_error);
                    pause = self.candidate.retry_period();
                }
            }
        }
    }

    /// `false` after a conflict with a new leader; `true` if the Lease was edited by hand, or by a renewal of
    /// this process whose response was lost.
    async fn is_still_holder(&mut self) -> bool {
        // Without a response the Lease counts as held until the deadline.
        if self.refresh().await.is_err() {
            return true;
        }
        self.record.holder().is_none_or(|holder| holder == self.candidate.identity)
    }

    /// Releases the Lease, so that a follower acquires it at once.
    pub async fn release(mut self) {
        let is_holder = self.fence.holds();
        self.fence.set(None);
        if !is_holder {
            return;
        }
        let lease = self.candidate.name.clone();
        match timeout(LEASE_RELEASE, self.try_release()).await {
            Ok(Ok(())) => tracing::info!(lease, "released the leader lease"),
            Ok(Err(error)) => tracing::warn!(
                lease,
                error = &error as &dyn std::error::Error,
                "cannot release the leader lease; followers wait until it expires"
            ),
            Err(_) => {
                tracing::warn!(
                    lease,
                    "releasing the leader lease timed out; followers wait until it expires"
                );
            }
        }
    }

    /// Tries twice, since a renewal that was cancelled may have reached the API server.
    async fn try_release(&mut self) -> Result<(), kube::Error> {
        match self.clear_holder().await {
            Err(error) if is_conflict(&error) && self.is_still_holder().await => self.clear_holder().await,
            other => other,
        }
    }

    async fn clear_holder(&mut self) -> Result<(), kube::Error> {
        let Some(lease) = self.record.lease.as_mut() else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            // As client-go does: no holder, and a duration so short that candidates that read only that need
            // not wait.
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        self.api.replace(&self.candidate.name, &PostParams::default(), lease).await.map(drop)
    }

    /// Acquires or renews: writes the Lease in place of the observed version, and extends the fence by the
    /// deadline, counted from before the request.
    async fn write(&mut self) -> Result<(), kube::Error> {
        let (started, lease) = (Instant::now(), self.own_record((self.wall_clock)()));
        let written = match &self.record.lease {
            Some(_) => self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await?,
            None => self.api.create(&PostParams::default(), &lease).await?,
        };
        self.record.observe(Some(written), Instant::now());
        self.fence.set(Some(started + self.candidate.renew_deadline()));
        Ok(())
    }

    /// The Lease with this process as its holder.
    fn own_record(&self, now: Timestamp) -> Lease {
        let Candidate { namespace, name, identity, duration } = &self.candidate;
        let before = self.record.spec().cloned().unwrap_or_default();
        let renews = self.record.holder() == Some(identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(identity.clone()),
            lease_duration_seconds: Some(duration.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.filter(|_| renews).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions + i32::from(!renews && self.record.lease.is_some())),
            ..before
        };
        let metadata = match &self.record.lease {
            Some(lease) => {
                ObjectMeta { resource_version: lease.resource_version(), ..lease.metadata.clone() }
            }
            None => ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
        };
        Lease { metadata, spec: Some(spec) }
    }
}

/// `true` if the Lease was created or changed by another writer after it was read.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Logs an error unless it repeats the last one.
fn log_once(error: &kube::Error, last: &mut Option<String>) {
    let text = Some(error.to_string());
    if *last != text {
        tracing::warn!(error = error as &dyn std::error::Error, "cannot write the leader lease; retrying");
        *last = text;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use kube::client::Body;

    use super::*;

    fn held_by(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_of_another_holder_is_free_after_its_duration_without_a_change() {
        let (mut record, start) = (ObservedRecord::empty(), Instant::now());
        record.observe(Some(held_by("other", 1)), start);
        assert_eq!(record.acquirable_at("me"), start + Duration::from_secs(15));
        // The same record again changes nothing; a renewal does, regardless of its times.
        record.observe(Some(held_by("other", 1)), start + Duration::from_secs(9));
        assert_eq!(record.acquirable_at("me"), start + Duration::from_secs(15));
        record.observe(Some(held_by("other", -1_000_000)), start + Duration::from_secs(10));
        assert_eq!(record.acquirable_at("me"), start + Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_without_another_holder_is_free_at_once() {
        let (mut record, start) = (ObservedRecord::empty(), Instant::now());
        for lease in [None, Some(held_by("", 1)), Some(held_by("me", 2)), Some(Lease::default())] {
            record.observe(lease, start);
            assert_eq!(record.acquirable_at("me"), start);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_fence_closes_at_the_deadline() {
        let fence = WriteFence::by_election();
        assert!(!fence.holds());
        fence.set(Some(Instant::now() + Duration::from_secs(10)));
        assert!(fence.clone().holds());
        fence.expired().await;
        assert!(!fence.holds());
        assert!(WriteFence::for_life().holds());
    }

    /// A wall clock that steps by an hour, forward and backward, each time it is read.
    fn stepping() -> Timestamp {
        static READS: AtomicI64 = AtomicI64::new(0);
        Timestamp::from_second(1_800_000_000 + 3600 * (READS.fetch_add(1, Ordering::Relaxed) % 3)).unwrap()
    }

    /// An elector whose API server accepts every write, and the Leases that it wrote.
    fn elector(fence: WriteFence, wall_clock: fn() -> Timestamp) -> (Elector, Arc<Mutex<Vec<Lease>>>) {
        let written = Arc::<Mutex<Vec<Lease>>>::default();
        let recorded = written.clone();
        let api_server = move |request: http::Request<Body>| {
            let recorded = recorded.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                recorded.lock().push(serde_json::from_slice(&body).unwrap());
                Ok::<_, kube::Error>(http::Response::new(Body::from(body)))
            }
        };
        let candidate = Candidate {
            namespace: "n".to_owned(),
            name: "l".to_owned(),
            identity: "me".to_owned(),
            duration: Duration::from_secs(15),
        };
        let client = kube::Client::new(tower::service_fn(api_server), "n");
        (Elector { wall_clock, ..Elector::new(client, candidate, fence) }, written)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stepping_wall_clock_changes_neither_the_fence_nor_the_number_of_renewals() {
        for clock in [Timestamp::now, stepping] {
            let fence = WriteFence::by_election();
            let (mut elector, written) = elector(fence.clone(), clock);
            elector.write().await.unwrap();
            // An hour: a renewal every three seconds, and not one more.
            assert!(timeout(Duration::from_secs(3601), elector.keep_renewing()).await.is_err());
            assert!(fence.holds());
            assert_eq!(written.lock().len(), 1 + 3600 / 3);
            // Without renewals the fence closes ten seconds after the last one was sent, which was a second
            // ago.
            tokio::time::advance(Duration::from_millis(8990)).await;
            assert!(fence.holds());
            tokio::time::advance(Duration::from_millis(20)).await;
            assert!(!fence.holds());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_judges_by_its_own_clock_alone() {
        let (mut elector, written) = elector(WriteFence::by_election(), stepping);
        for _ in 0..3 {
            elector.write().await.unwrap();
        }
        let (mut record, start) = (ObservedRecord::empty(), Instant::now());
        for (second, lease) in (0..).zip(written.lock().clone()) {
            let now = start + Duration::from_secs(second);
            record.observe(Some(lease), now);
            assert_eq!(record.acquirable_at("another"), now + Duration::from_secs(15));
        }
    }
}
