//! An API server that fails, restarts, is overloaded, or has lost its store.

use std::time::{Duration, Instant};

use harness::{Crds, Fault, FaultProxy, OPERATOR, Settings, ask};
use rstest::rstest;
use tokio::time::sleep;

use super::{
    convergence::converges,
    shared::{BINARY, Cluster, request_limit, stack},
};

/// Number of requests in the operator's own metrics.
///
/// # Panics
/// If it is 0.
async fn sent_requests(operator: &harness::Process) -> usize {
    let sum = sent_requests_with(operator, &[]).await;
    assert!(sum > 0, "no requests in the operator's metrics");
    sum
}

/// Number of requests in the operator's own metrics with all of these labels.
async fn sent_requests_with(operator: &harness::Process, labels: &[&str]) -> usize {
    let (_, text) = ask(operator, "/metrics").await;
    let counts = text.lines().filter(|line| line.starts_with("rest_client_requests_total{"));
    let counts = counts.filter(|line| labels.iter().all(|label| line.contains(label)));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum()
}

#[tokio::test]
async fn recovers_from_a_killed_api_server_during_a_burst() {
    const MODELS: usize = 120;
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let (started, before) = (Instant::now(), sent_requests(&operator).await);
    cluster.stack.control_plane.stop_api_server();
    sleep(cluster.random.millis(500, 5000)).await;
    let requests = sent_requests(&operator).await - before;
    assert!(requests <= request_limit(MODELS, started, 1), "{requests} requests in {:?}", started.elapsed());
    cluster.stack.control_plane.start_api_server().await;
    burst.finished().await;
    converges(&cluster, &mut operator).await;
    let requests = sent_requests(&operator).await - before;
    assert!(requests <= request_limit(MODELS, started, 1), "{requests} requests in {:?}", started.elapsed());
}

#[derive(Clone, Copy)]
enum Outage {
    Hung,
    Killed,
}

/// Without etcd the API server serves its cache, and answers other requests late or with an error.
#[rstest]
#[case::hung(Outage::Hung)]
#[case::killed(Outage::Killed)]
#[tokio::test]
async fn recovers_from_an_etcd_outage_of_30_seconds_during_a_burst(#[case] outage: Outage) {
    const MODELS: usize = 120;
    let mut cluster = Cluster::start().await;
    let mut operator = cluster.start_operator().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let (started, before) = (Instant::now(), sent_requests(&operator).await);
    match outage {
        Outage::Hung => cluster.stack.control_plane.signal_etcd("STOP"),
        Outage::Killed => cluster.stack.control_plane.stop_etcd(),
    }
    sleep(Duration::from_secs(30)).await;
    let requests = sent_requests(&operator).await - before;
    assert!(requests <= request_limit(MODELS, started, 1), "{requests} requests in {:?}", started.elapsed());
    match outage {
        Outage::Hung => cluster.stack.control_plane.signal_etcd("CONT"),
        Outage::Killed => cluster.stack.control_plane.start_etcd(),
    }
    burst.finished().await;
    converges(&cluster, &mut operator).await;
}

#[rstest]
#[case::closed(Fault::Close)]
#[case::silent(Fault::Hang)]
#[case::failing(Fault::Status(500))]
#[case::overloaded(Fault::Busy(Duration::from_secs(1)))]
#[case::unavailable(Fault::Status(503))]
#[tokio::test]
async fn recovers_from_failures_at_start_and_later(#[case] fault: Fault) {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, fault).await;
    let settings = Settings::new(BINARY);
    let mut operator = settings.start(&stack.control_plane.folder, &proxy.kubeconfig());
    assert_eq!(ask(&operator, "/healthz").await.0, 200);
    let (code, text) = ask(&operator, "/readyz").await;
    assert!(code == 503 && text.contains("waiting for"), "{code} {text}");
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Fault::None);
    chat.scaled_object().await;
    proxy.set(fault);
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The caches have synced once, so a later failure of the API server does not make the operator unready.
    assert_eq!(ask(&operator, "/readyz").await.0, 200);
    proxy.set(Fault::None);
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    assert!(!operator.has_ended());
}

#[tokio::test]
async fn sends_no_writes_during_the_retry_after_of_an_overloaded_api_server() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
    let operator = Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig());
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    proxy.set(Fault::Busy(Duration::from_secs(9)));
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    let rejected = async || sent_requests_with(&operator, &["method=\"PATCH\"", "code=\"429\""]).await;
    harness::wait::until_asked("a write is rejected", rejected, |count| *count > 0).await;
    let before = rejected().await;
    // Without the Retry-After, the retries of the operator would send two or three more in that time, and
    // so would a requeue.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("8"))]).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(rejected().await, before);
    proxy.set(Fault::None);
    chat.scaled_object_until("has a maximum of 8", |found| found.data["spec"]["maxReplicaCount"] == 8).await;
}

#[tokio::test]
async fn terminates_in_time_while_a_write_hangs() {
    let (stack, _permit) = stack(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
    let operator = Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig());
    let models = stack.namespace().await;
    models.model_serving("first").opts_in().create().await.scaled_object().await;
    // The proxy accepts the next write and never answers it.
    proxy.set(Fault::HangWrites);
    models.model_serving("second").opts_in().create().await;
    harness::wait::until_asked("a write hangs", async || proxy.hanging(), |count| *count > 0).await;
    assert!(operator.terminate(), "the operator exits with 0 within its time limit");
}

#[tokio::test]
async fn recovers_from_a_restart_of_the_api_server() {
    let (mut stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let _operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    stack.control_plane.stop_api_server();
    stack.control_plane.start_api_server().await;
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
}
