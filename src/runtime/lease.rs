//! Leader election by a Lease: of several processes one writes, and the others wait.
//!
//! In: the Lease's name and who we are. Out: a [`WriteFence`], which every write asks first. The rules are those of client-go
//! (`tools/leaderelection`): a Lease is written with the version that was read, so that one of two candidates loses; whether it has run
//! out is judged by how long we have seen it unchanged by our own monotonic clock, never by the times in it; and a leader that could not
//! renew stops writing well before anybody else may begin.

use parking_lot::Mutex;
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
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff;
use super::resilient_watch::{resilient_watch, watch_config};

/// How long giving the Lease back may take: the process is ending.
const RELEASE: Duration = Duration::from_secs(1);

/// What is elected.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who we are; no other process may say the same.
    pub identity: String,
    /// How long others wait for a leader that fell silent.
    pub duration: Duration,
}

impl Candidate {
    /// How often the Lease is renewed.
    fn renewal(&self) -> Duration {
        self.duration / 5
    }

    /// How long after the last renewal writes may start; the rest of the duration is a margin for what is on the wire.
    fn deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How long to wait after a failure.
    fn retry(&self) -> Duration {
        backoff::jitter(self.duration / 15)
    }

    /// How long one request for the Lease may take, so that a connection that hangs leaves time for a second try.
    pub fn request_limit(&self) -> Duration {
        (self.duration * 4 / 15).min(Duration::from_secs(4))
    }
}

/// Until when this process may write.
#[derive(Clone, Debug)]
pub struct WriteFence(Option<Arc<Mutex<Option<Instant>>>>);

impl WriteFence {
    /// Without an election: for life.
    pub const fn for_life() -> Self {
        Self(None)
    }

    /// Not before it is given.
    pub fn by_election() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether a write may start now.
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

    /// Waits until it has run out.
    async fn expired(&self) {
        while let Some(until) = self.until().filter(|_| self.holds()) {
            sleep_until(until).await;
        }
    }
}

/// The Lease as it was last seen.
#[derive(Debug)]
struct ObservedRecord {
    lease: Option<Lease>,
    /// Since when, by our own clock, it has said what it says.
    since: Instant,
}

impl ObservedRecord {
    fn see(&mut self, lease: Option<Lease>, now: Instant) {
        let says = |lease: &Option<Lease>| lease.as_ref().map(|lease| lease.spec.clone());
        if says(&self.lease) != says(&lease) {
            self.since = now;
        }
        self.lease = lease;
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref()?.spec.as_ref()
    }

    /// Who holds it, if anybody does.
    fn holder(&self) -> Option<&str> {
        self.spec()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// When `identity` may take it: at once where nobody else holds it.
    fn free_at(&self, identity: &str) -> Instant {
        let held = self.holder().is_some_and(|holder| holder != identity);
        let seconds =
            self.spec().and_then(|spec| spec.lease_duration_seconds).filter(|_| held).unwrap_or_default();
        self.since + Duration::from_secs(seconds.try_into().unwrap_or_default())
    }
}

/// Takes, keeps and gives back the Lease.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    candidate: Candidate,
    fence: WriteFence,
    seen: ObservedRecord,
    /// What people read in the Lease; nothing is decided by it, since it may step.
    wall_clock: fn() -> Timestamp,
}

impl Elector {
    /// One that has seen nothing yet. The client limits requests to [`Candidate::request_limit`].
    pub fn new(client: kube::Client, candidate: Candidate, fence: WriteFence) -> Self {
        let api = Api::namespaced(client, &candidate.namespace);
        Self {
            api,
            candidate,
            fence,
            seen: ObservedRecord { lease: None, since: Instant::now() },
            wall_clock: Timestamp::now,
        }
    }

    /// The Lease's name.
    pub fn lease(&self) -> &str {
        &self.candidate.name
    }

    /// Waits until the Lease is ours; failures are survived.
    pub async fn acquire(&mut self) {
        let config = watch_config().fields(&format!("metadata.name={}", self.candidate.name));
        let mut changes = pin!(resilient_watch(self.api.clone(), config));
        tracing::info!(
            lease = self.candidate.name,
            identity = self.candidate.identity,
            "waiting for the lease"
        );
        let mut told = None;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => self.seen.see(Some(lease), Instant::now()),
                    Some(Ok(watcher::Event::Delete(_))) => self.seen.see(None, Instant::now()),
                    // The attempts tell of what is wrong.
                    Some(Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_)) | None => continue,
                },
                () = sleep_until(next) => match self.attempt().await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => {
                        tell_once(&error, &mut told);
                        next = Instant::now() + self.candidate.retry();
                        continue;
                    }
                },
            }
            next = self.seen.free_at(&self.candidate.identity).max(Instant::now());
        }
    }

    /// Takes the Lease if it is free, as it is now and not as the watch has told; answers whether it is ours.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.candidate.name).await?;
        self.seen.see(found, Instant::now());
        if Instant::now() < self.seen.free_at(&self.candidate.identity) {
            return Ok(false);
        }
        match self.write().await {
            Ok(()) => {
                tracing::info!(lease = self.candidate.name, identity = self.candidate.identity, "leads");
                Ok(true)
            }
            // Somebody else was quicker: what they wrote is seen with the next look.
            Err(error) if is_conflict(&error) => {
                let found = self.api.get_opt(&self.candidate.name).await?;
                self.seen.see(found, Instant::now());
                Ok(false)
            }
            Err(error) => Err(error),
        }
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
            "the lease is lost; the process ends, so that it begins anew as one that waits"
        );
    }

    async fn renew(&mut self) {
        let mut told = None;
        let mut pause = self.candidate.renewal();
        loop {
            sleep(pause).await;
            match self.write().await {
                Ok(()) => {
                    told = None;
                    pause = self.candidate.renewal();
                }
                Err(error) if is_conflict(&error) && !self.is_still_ours().await => return,
                Err(error) => {
                    tell_once(&error, &mut told);
                    pause = self.candidate.retry();
                }
            }
        }
    }

    /// Whether the Lease was changed otherwise than by a new leader: by hand, or by ourselves where an answer was lost.
    async fn is_still_ours(&mut self) -> bool {
        // Where nobody answers, it is until the deadline.
        let Ok(found) = self.api.get_opt(&self.candidate.name).await else { return true };
        self.seen.see(found, Instant::now());
        self.seen.holder().is_none_or(|holder| holder == self.candidate.identity)
    }

    /// Gives the Lease back, so that another takes over at once.
    pub async fn release(mut self) {
        let is_ours = self.fence.holds();
        self.fence.set(None);
        if !is_ours {
            return;
        }
        match timeout(RELEASE, self.give_back()).await {
            Ok(Ok(())) => tracing::info!(lease = self.candidate.name, "gave the lease back"),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease was not given back; it runs out"
            ),
            Err(_) => tracing::warn!("the lease was not given back in time; it runs out"),
        }
    }

    /// Twice, since a renewal that was cut off may have arrived all the same.
    async fn give_back(&mut self) -> Result<(), kube::Error> {
        match self.vacate().await {
            Err(error) if is_conflict(&error) && self.is_still_ours().await => self.vacate().await,
            other => other,
        }
    }

    async fn vacate(&mut self) -> Result<(), kube::Error> {
        let Some(lease) = self.seen.lease.as_mut() else { return Ok(()) };
        if let Some(spec) = &mut lease.spec {
            // As client-go does it: no holder, and a time so short that those who look at nothing else need not wait.
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        self.api.replace(&self.candidate.name, &PostParams::default(), lease).await.map(drop)
    }

    /// Writes the Lease in our name, as a change of exactly what was seen, and extends the mandate from before it was sent.
    async fn write(&mut self) -> Result<(), kube::Error> {
        let (started, lease) = (Instant::now(), self.ours((self.wall_clock)()));
        let written = match &self.seen.lease {
            Some(_) => self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await?,
            None => self.api.create(&PostParams::default(), &lease).await?,
        };
        self.seen.see(Some(written), Instant::now());
        self.fence.set(Some(started + self.candidate.deadline()));
        Ok(())
    }

    fn ours(&self, now: Timestamp) -> Lease {
        let Candidate { namespace, name, identity, duration } = &self.candidate;
        let before = self.seen.spec().cloned().unwrap_or_default();
        let renews = self.seen.holder() == Some(identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(identity.clone()),
            lease_duration_seconds: Some(duration.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.filter(|_| renews).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions + i32::from(!renews && self.seen.lease.is_some())),
            ..before
        };
        let new = || ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        };
        let metadata = self.seen.lease.as_ref().map_or_else(new, |lease| {
            let version = lease.resource_version();
            ObjectMeta { resource_version: version, ..lease.metadata.clone() }
        });
        Lease { metadata, spec: Some(spec) }
    }
}

/// Somebody else wrote it meanwhile, or made it.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn tell_once(error: &kube::Error, told: &mut Option<String>) {
    let text = Some(error.to_string());
    if *told != text {
        tracing::warn!(error = error as &dyn std::error::Error, "cannot write the lease; trying on");
        *told = text;
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

    fn nothing_seen() -> ObservedRecord {
        ObservedRecord { lease: None, since: Instant::now() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_hold_is_free_once_it_stayed_the_same_for_its_time() {
        let (mut seen, start) = (nothing_seen(), Instant::now());
        seen.see(Some(held_by("other", 1)), start);
        assert_eq!(seen.free_at("me"), start + Duration::from_secs(15));
        // Seeing the same again changes nothing; a renewal does, whatever times it speaks of.
        seen.see(Some(held_by("other", 1)), start + Duration::from_secs(9));
        assert_eq!(seen.free_at("me"), start + Duration::from_secs(15));
        seen.see(Some(held_by("other", -1_000_000)), start + Duration::from_secs(10));
        assert_eq!(seen.free_at("me"), start + Duration::from_secs(25));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_else_holds_is_free_at_once() {
        let (mut seen, start) = (nothing_seen(), Instant::now());
        for lease in [None, Some(held_by("", 1)), Some(held_by("me", 2)), Some(Lease::default())] {
            seen.see(lease, start);
            assert_eq!(seen.free_at("me"), start);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_mandate_ends_by_itself() {
        let fence = WriteFence::by_election();
        assert!(!fence.holds());
        fence.set(Some(Instant::now() + Duration::from_secs(10)));
        assert!(fence.clone().holds());
        fence.expired().await;
        assert!(!fence.holds());
        assert!(WriteFence::for_life().holds());
    }

    /// A clock that steps by an hour, forward and backward, each time somebody looks.
    fn stepping() -> Timestamp {
        static LOOKS: AtomicI64 = AtomicI64::new(0);
        Timestamp::from_second(1_800_000_000 + 3600 * (LOOKS.fetch_add(1, Ordering::Relaxed) % 3)).unwrap()
    }

    /// An elector whose writes are all taken as they are, and what it wrote.
    fn elector(fence: WriteFence, wall_clock: fn() -> Timestamp) -> (Elector, Arc<Mutex<Vec<Lease>>>) {
        let written = Arc::<Mutex<Vec<Lease>>>::default();
        let taken = written.clone();
        let answer = move |request: http::Request<Body>| {
            let taken = taken.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                taken.lock().push(serde_json::from_slice(&body).unwrap());
                Ok::<_, kube::Error>(http::Response::new(Body::from(body)))
            }
        };
        let candidate = Candidate {
            namespace: "n".to_owned(),
            name: "l".to_owned(),
            identity: "me".to_owned(),
            duration: Duration::from_secs(15),
        };
        let client = kube::Client::new(tower::service_fn(answer), "n");
        (Elector { wall_clock, ..Elector::new(client, candidate, fence) }, written)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_steps_neither_loses_nor_prolongs_a_mandate_nor_makes_writes() {
        for clock in [Timestamp::now, stepping] {
            let fence = WriteFence::by_election();
            let (mut elector, written) = elector(fence.clone(), clock);
            elector.write().await.unwrap();
            // Kept for an hour: a renewal each three seconds, and not one more.
            assert!(timeout(Duration::from_secs(3601), elector.keep_renewing()).await.is_err());
            assert!(fence.holds());
            assert_eq!(written.lock().len(), 1 + 3600 / 3);
            // Not renewed any more: it ends ten seconds after the last renewal was sent, one second ago.
            tokio::time::advance(Duration::from_millis(8990)).await;
            assert!(fence.holds());
            tokio::time::advance(Duration::from_millis(20)).await;
            assert!(!fence.holds());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_by_its_own_clock_alone() {
        let (mut elector, written) = elector(WriteFence::by_election(), stepping);
        for _ in 0..3 {
            elector.write().await.unwrap();
        }
        let (mut seen, start) = (nothing_seen(), Instant::now());
        for (second, lease) in (0..).zip(written.lock().clone()) {
            let now = start + Duration::from_secs(second);
            seen.see(Some(lease), now);
            assert_eq!(seen.free_at("another"), now + Duration::from_secs(15));
        }
    }
}
