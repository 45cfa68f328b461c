//! A contender: the measured processes, their requests, and the CPU time that they and the API server use.

use std::time::{Duration, Instant};

use harness::{
    OPERATOR, Process, Stack,
    audit::{Log, Request},
};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::time::sleep;

/// Interval of reads of the audit log; the log has its own timestamps.
const LOG_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit per write; tens of milliseconds are usual.
const WRITE_LIMIT: Duration = Duration::from_millis(200);

/// Measured processes. They use the operator's service account; the benchmark itself uses another identity.
pub struct Contender<'a> {
    stack: &'a Stack,
    client: Client,
    log: Log,
    /// Processes that share the work.
    pub processes: Vec<Process>,
    baseline: Baseline,
}

/// Counters at the start of the present part.
struct Baseline {
    at: Timestamp,
    cpu: Vec<Duration>,
    server_cpu: Duration,
    watched: f64,
}

/// Cost of one part of a benchmark.
#[derive(Debug)]
pub struct Span {
    /// Seconds from the start of the part to the last completed write of a model or its objects.
    pub seconds: f64,
    /// Completed writes.
    pub writes: usize,
    /// Other requests, including watches.
    pub reads: usize,
    /// CPU seconds of each process.
    pub cpu: Vec<f64>,
    /// CPU seconds of the API server.
    pub server_cpu: f64,
    /// Bytes that the API server sent on watches.
    pub watched: f64,
}

impl<'a> Contender<'a> {
    /// Starts measuring, and then the processes by `start`.
    pub async fn start(stack: &'a Stack, start: impl FnOnce() -> Vec<Process>) -> Self {
        let log = Log::of(&stack.control_plane, &OPERATOR);
        let baseline =
            Baseline { at: Timestamp::now(), cpu: Vec::new(), server_cpu: Duration::ZERO, watched: 0.0 };
        let mut this = Self { stack, client: stack.client().await, log, processes: Vec::new(), baseline };
        this.begin().await;
        this.processes = start();
        this
    }

    /// Starts another part.
    pub async fn begin(&mut self) {
        self.log.fresh();
        let (cpu, server_cpu, watched) = (self.cpu(), server_cpu(self.stack), watched(&self.client).await);
        self.baseline = Baseline { at: Timestamp::now(), cpu, server_cpu, watched };
    }

    /// Waits until this many writes of models and their objects are complete and the processes are idle.
    pub async fn until_written(&mut self, writes: usize) -> Span {
        let limit = Instant::now()
            + Duration::from_secs(30)
            + WRITE_LIMIT * u32::try_from(writes).unwrap_or(u32::MAX);
        let mut requests = Vec::new();
        while model_writes(&requests) < writes {
            let complete = model_writes(&requests);
            assert!(Instant::now() < limit, "timeout: {complete} of {writes} writes are complete");
            sleep(LOG_INTERVAL).await;
            requests.extend(self.log.fresh());
        }
        self.until_quiet().await;
        requests.extend(self.log.fresh());
        self.span(&requests).await
    }

    /// Cost since the start of the part, for these requests.
    pub async fn span(&self, requests: &[Request]) -> Span {
        let last_write = requests
            .iter()
            .filter(|request| is_model_write(request))
            .map(Request::at)
            .max()
            .unwrap_or(self.baseline.at);
        let before = self.baseline.cpu.iter().copied().chain(std::iter::repeat(Duration::ZERO));
        Span {
            seconds: last_write.duration_since(self.baseline.at).as_secs_f64(),
            writes: writes(requests),
            reads: requests.len() - writes(requests),
            cpu: self
                .cpu()
                .into_iter()
                .zip(before)
                .map(|(now, before)| (now.saturating_sub(before)).as_secs_f64())
                .collect(),
            server_cpu: (server_cpu(self.stack).saturating_sub(self.baseline.server_cpu)).as_secs_f64(),
            watched: watched(&self.client).await - self.baseline.watched,
        }
    }

    /// Waits until the processes are idle for 1.5 s; returns the seconds from the start of the part to their
    /// last work.
    pub async fn until_quiet(&self) -> f64 {
        let mut last = (self.total(), Timestamp::now());
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = self.total();
            // The kernel counts in steps of 10 ms, of which an idle process uses one now and then.
            if now.saturating_sub(last.0) > Duration::from_millis(10) {
                last = (now, Timestamp::now());
            }
            if Timestamp::now().duration_since(last.1).as_secs_f64() > 1.5 {
                return last.1.duration_since(self.baseline.at).as_secs_f64();
            }
        }
    }

    /// Requests since the last call.
    pub fn requests(&mut self) -> Vec<Request> {
        self.log.fresh()
    }

    /// Present and peak resident memory of the largest process, in MiB.
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
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

/// Excludes leases, the status of profiles, which the operator writes a second later for many models at once, and
/// events, which it writes in the background.
fn is_model_write(request: &Request) -> bool {
    request.is_write()
        && !["autoscalingprofiles", "events", "leases"].contains(&request.object_ref.resource.as_str())
}

fn model_writes(requests: &[Request]) -> usize {
    requests.iter().filter(|request| is_model_write(request)).count()
}

fn writes(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.is_write()).count()
}

/// Waits until the API server has finished its own work after its start or after many writes.
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

/// Bytes that the API server has sent on watches of the relevant kinds. The benchmark itself has no watch
/// open meanwhile.
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
