//! An API server that fails, restarts, or lost its store.

use std::time::{Duration, Instant};

use harness::{Crds, Fault, FaultProxy, OPERATOR, Settings, ask};
use rstest::rstest;
use tokio::time::sleep;

use super::{
    settled::settled,
    shared::{BINARY, World, most_requests, stack},
};

/// How many requests of any kind a running operator says that it has sent.
async fn sent(operator: &harness::Process) -> usize {
    let sum = sent_with(operator, &[]).await;
    assert!(sum > 0, "it has asked nothing, or does not count");
    sum
}

/// How many of those it counts with all of these labels.
async fn sent_with(operator: &harness::Process, labels: &[&str]) -> usize {
    let (_, text) = ask(operator, "/metrics").await;
    let counts = text.lines().filter(|line| line.starts_with("rest_client_requests_total{"));
    let counts = counts.filter(|line| labels.iter().all(|label| line.contains(label)));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum()
}

#[tokio::test]
async fn an_api_server_that_is_killed_during_a_burst() {
    const MODELS: usize = 120;
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let (began, before) = (Instant::now(), sent(&operator).await);
    world.stack.control_plane.stop_api_server();
    sleep(world.random.millis(500, 5000)).await;
    let asked = sent(&operator).await - before;
    assert!(asked <= most_requests(MODELS, began, 1), "{asked} requests in {:?}", began.elapsed());
    world.stack.control_plane.start_api_server().await;
    burst.ends().await;
    settled(&world, &mut operator).await;
    let asked = sent(&operator).await - before;
    assert!(asked <= most_requests(MODELS, began, 1), "{asked} requests in {:?}", began.elapsed());
}

#[derive(Clone, Copy)]
enum Outage {
    Hung,
    Killed,
}

/// The API server answers what it has in its cache, and everything else late or with an error.
#[rstest]
#[case::hung(Outage::Hung)]
#[case::killed(Outage::Killed)]
#[tokio::test]
async fn a_store_that_is_away_for_half_a_minute_during_a_burst(#[case] outage: Outage) {
    const MODELS: usize = 120;
    let mut world = World::start().await;
    let mut operator = world.start_operator().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let (began, before) = (Instant::now(), sent(&operator).await);
    match outage {
        Outage::Hung => world.stack.control_plane.signal_etcd("STOP"),
        Outage::Killed => world.stack.control_plane.stop_etcd(),
    }
    sleep(Duration::from_secs(30)).await;
    let asked = sent(&operator).await - before;
    assert!(asked <= most_requests(MODELS, began, 1), "{asked} requests in {:?}", began.elapsed());
    match outage {
        Outage::Hung => world.stack.control_plane.signal_etcd("CONT"),
        Outage::Killed => world.stack.control_plane.start_etcd(),
    }
    burst.ends().await;
    settled(&world, &mut operator).await;
}

#[rstest]
#[case::closed(Fault::Close)]
#[case::silent(Fault::Hang)]
#[case::failing(Fault::Status(500))]
#[case::overloaded(Fault::Busy(Duration::from_secs(1)))]
#[case::unavailable(Fault::Status(503))]
#[tokio::test]
async fn an_api_server_that_fails_at_start_and_later(#[case] fault: Fault) {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, fault).await;
    let settings = Settings::new(BINARY);
    let mut operator = settings.start(&stack.control_plane.folder, &proxy.kubeconfig());
    assert_eq!(ask(&operator, "/healthz").await.0, 200);
    let (code, what) = ask(&operator, "/readyz").await;
    assert!(code == 503 && what.contains("waiting for"), "{code} {what}");
    let models = stack.namespace().await;
    let chat = models.model_serving("chat").opts_in().create().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.set(Fault::None);
    chat.scaled_object().await;
    proxy.set(fault);
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // It has seen everything once; an API server that fails later is no reason to send it away.
    assert_eq!(ask(&operator, "/readyz").await.0, 200);
    proxy.set(Fault::None);
    chat.scaled_object_until("has a maximum of 7", |found| found.data["spec"]["maxReplicaCount"] == 7).await;
    assert!(!operator.has_ended());
}

#[tokio::test]
async fn an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
    let operator = Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig());
    let chat = stack.namespace().await.model_serving("chat").opts_in().create().await;
    chat.scaled_object().await;
    proxy.set(Fault::Busy(Duration::from_secs(9)));
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("7"))]).await;
    let refused = async || sent_with(&operator, &["method=\"PATCH\"", "code=\"429\""]).await;
    harness::wait::until_asked("a write is refused", refused, |count| *count > 0).await;
    let before = refused().await;
    // Its own delays would bring another two or three within that, and so would whatever else wakes the model.
    chat.annotate(&[("autoscaling.kthena.io/max-replicas", Some("8"))]).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(refused().await, before);
    proxy.set(Fault::None);
    chat.scaled_object_until("has a maximum of 8", |found| found.data["spec"]["maxReplicaCount"] == 8).await;
}

#[tokio::test]
async fn told_to_end_it_does_so_whatever_hangs() {
    let (stack, _permit) = stack(&[Crds::kthena_0_4(), Crds::keda()]).await;
    let proxy = FaultProxy::start(&stack.control_plane, &OPERATOR, Fault::None).await;
    let operator = Settings::new(BINARY).start(&stack.control_plane.folder, &proxy.kubeconfig());
    let models = stack.namespace().await;
    models.model_serving("first").opts_in().create().await.scaled_object().await;
    // Its next write is taken and never answered.
    proxy.set(Fault::HangWrites);
    models.model_serving("second").opts_in().create().await;
    harness::wait::until_asked("a write hangs", async || proxy.hanging(), |count| *count > 0).await;
    assert!(operator.terminate(), "it ends in order within its time");
}

#[tokio::test]
async fn an_api_server_that_restarts() {
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
