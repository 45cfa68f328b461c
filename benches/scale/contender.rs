//! Whoever does the job: a process, what it asks of the API server, and what both of them spend on it.

use std::time::{Duration, Instant};

use harness::{
    OPERATOR, Process, Stack,
    audit::{Log, Request},
};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::time::sleep;

/// How often the audit log is looked at; what happened when, it says itself.
const LOOK: Duration = Duration::from_millis(100);
/// How long anything may take for each model; tens of milliseconds are usual.
const PATIENCE: Duration = Duration::from_millis(200);

/// A process that is measured. All that measure speak to the API server by other names.
pub struct Contender<'a> {
    stack: &'a Stack,
    client: Client,
    log: Log,
    /// The processes that share the job.
    pub processes: Vec<Process>,
    began: Began,
}

struct Began {
    at: Timestamp,
    cpu: Vec<Duration>,
    server_cpu: Duration,
    watched: f64,
}

/// What one part of the job took.
#[derive(Debug)]
pub struct Span {
    /// From its beginning to the last answer to a write of a model or of its objects, in seconds.
    pub seconds: f64,
    /// Writes that were answered.
    pub writes: usize,
    /// Requests that change nothing, watches included.
    pub reads: usize,
    /// What each process spent, in CPU seconds.
    pub cpu: Vec<f64>,
    /// What the API server spent, in CPU seconds.
    pub server_cpu: f64,
    /// What the API server sent on watches, in bytes.
    pub watched: f64,
}

impl<'a> Contender<'a> {
    /// Begins to measure; `start` starts the processes.
    pub async fn start(stack: &'a Stack, start: impl FnOnce() -> Vec<Process>) -> Self {
        let log = Log::of(&stack.control_plane, &OPERATOR);
        let began = Began { at: Timestamp::now(), cpu: Vec::new(), server_cpu: Duration::ZERO, watched: 0.0 };
        let mut this = Self { stack, client: stack.client().await, log, processes: Vec::new(), began };
        this.begin().await;
        this.processes = start();
        this
    }

    /// Begins another part of the job.
    pub async fn begin(&mut self) {
        self.log.fresh();
        let (cpu, server_cpu, watched) = (self.cpu(), server_cpu(self.stack), watched(&self.client).await);
        self.began = Began { at: Timestamp::now(), cpu, server_cpu, watched };
    }

    /// Waits until so many writes of models and of their objects are answered and nothing happens any more.
    pub async fn until_written(&mut self, writes: usize) -> Span {
        let limit =
            Instant::now() + Duration::from_secs(30) + PATIENCE * u32::try_from(writes).unwrap_or(u32::MAX);
        let mut requests = Vec::new();
        let of_models = |requests: &[Request]| requests.iter().filter(|request| is_of_model(request)).count();
        while of_models(&requests) < writes {
            assert!(Instant::now() < limit, "{} of {writes} writes were made in time", of_models(&requests));
            sleep(LOOK).await;
            requests.extend(self.log.fresh());
        }
        self.until_quiet().await;
        requests.extend(self.log.fresh());
        self.span(&requests).await
    }

    /// What was asked and spent since the beginning.
    pub async fn span(&self, requests: &[Request]) -> Span {
        let written = requests
            .iter()
            .filter(|request| is_of_model(request))
            .map(Request::at)
            .max()
            .unwrap_or(self.began.at);
        let before = self.began.cpu.iter().copied().chain(std::iter::repeat(Duration::ZERO));
        Span {
            seconds: written.duration_since(self.began.at).as_secs_f64(),
            writes: count(requests),
            reads: requests.len() - count(requests),
            cpu: self
                .cpu()
                .into_iter()
                .zip(before)
                .map(|(now, before)| (now.saturating_sub(before)).as_secs_f64())
                .collect(),
            server_cpu: (server_cpu(self.stack).saturating_sub(self.began.server_cpu)).as_secs_f64(),
            watched: watched(&self.client).await - self.began.watched,
        }
    }

    /// Waits until it works no more; answers when it stopped, in seconds from the beginning.
    pub async fn until_quiet(&self) -> f64 {
        let mut last = (self.total(), Timestamp::now());
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = self.total();
            // The kernel counts in steps of 10 ms; at rest there is one of them now and then.
            if now.saturating_sub(last.0) > Duration::from_millis(10) {
                last = (now, Timestamp::now());
            }
            if Timestamp::now().duration_since(last.1).as_secs_f64() > 1.5 {
                return last.1.duration_since(self.began.at).as_secs_f64();
            }
        }
    }

    /// What was asked since the last time.
    pub fn requests(&mut self) -> Vec<Request> {
        self.log.fresh()
    }

    /// Memory that is resident, now and at the most, of the largest process, in MiB.
    #[expect(clippy::cast_precision_loss, reason = "it is far from that large")]
    pub fn memory(&self) -> (f64, f64) {
        let all = self
            .processes
            .iter()
            .filter_map(Process::memory)
            .map(|(now, peak)| (now as f64 / 1024.0, peak as f64 / 1024.0));
        all.fold((0.0, 0.0), |most, one| (f64::max(most.0, one.0), f64::max(most.1, one.1)))
    }

    fn cpu(&self) -> Vec<Duration> {
        self.processes.iter().map(|process| process.cpu().unwrap_or_default()).collect()
    }

    fn total(&self) -> Duration {
        self.cpu().into_iter().sum()
    }
}

/// How many models use a profile is written a second later, so that many of them are counted at once; events are written at leisure.
fn is_of_model(request: &Request) -> bool {
    request.is_write() && !["autoscalingprofiles", "events"].contains(&request.object_ref.resource.as_str())
}

fn count(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.is_write()).count()
}

/// Waits until the API server has done what it does by itself after it starts, and after many writes.
pub async fn settled(stack: &Stack) {
    let mut before = server_cpu(stack);
    loop {
        sleep(Duration::from_secs(1)).await;
        let now = server_cpu(stack);
        if now.saturating_sub(before) < Duration::from_millis(150) {
            return;
        }
        before = now;
    }
}

fn server_cpu(stack: &Stack) -> Duration {
    stack.control_plane.api_server().and_then(Process::cpu).unwrap_or_default()
}

/// What the API server has sent on watches of the kinds that matter here, in bytes. Whoever measures does not watch meanwhile.
///
/// Source: Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/metrics/metrics.go`.
async fn watched(client: &Client) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = client.request_text(request).await.expect("metrics");
    let groups = ["serving.volcano.sh", "keda.sh", "kthena.io", "monitoring.coreos.com"];
    let sums = text.lines().filter(|line| {
        line.starts_with("apiserver_watch_events_sizes_sum{")
            && groups.iter().any(|group| line.contains(group))
    });
    sums.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
