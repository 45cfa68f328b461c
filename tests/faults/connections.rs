//! Faults of connections to the API server while many models are created and changed.

use std::time::{Duration, Instant};

use harness::{Fault, FaultProxy, proxy::Passed};
use rstest::rstest;
use tokio::time::sleep;

use super::{
    convergence::{converges, converges_within},
    shared::{Cluster, request_limit},
};

const MODELS: usize = 100;

/// Ends a fault, and checks that it hit at least one request and that the operator stayed within its
/// [`request_limit`].
fn end_fault(fault: Fault, proxy: &FaultProxy, started: Instant, requests: usize) {
    let Passed { asked, spoiled } = proxy.set(Fault::None);
    assert!(spoiled > 0, "no request met {fault:?}");
    let limit = request_limit(MODELS, started, requests);
    assert!(
        asked <= limit,
        "{asked} requests in {:?} of {fault:?}, above the limit of {limit}",
        started.elapsed()
    );
}

#[rstest]
#[case::at_their_start(Fault::Expired)]
#[case::midway(Fault::ExpiredMidway)]
#[tokio::test]
async fn recovers_from_expired_watches(#[case] fault: Fault) {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    proxy.set(fault);
    proxy.cut();
    burst.finished().await;
    cluster.delete_some_scaled_objects().await;
    sleep(cluster.random.millis(2000, 8000)).await;
    end_fault(fault, &proxy, started, 3);
    converges(&cluster, &mut operator).await;
}

/// Connections stay open and carry no bytes.
#[tokio::test]
async fn recovers_from_silent_connections() {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    proxy.set(Fault::Hang);
    burst.finished().await;
    sleep(cluster.random.millis(15_000, 30_000)).await;
    end_fault(Fault::Hang, &proxy, started, 1);
    converges(&cluster, &mut operator).await;
}

/// The rest of a started response never arrives; the operator must detect that by a timeout.
#[tokio::test]
async fn recovers_from_responses_that_never_end() {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    proxy.set(Fault::HangBodies);
    sleep(cluster.random.millis(1000, 5000)).await;
    end_fault(Fault::HangBodies, &proxy, started, 1);
    burst.finished().await;
    converges_within(Duration::from_secs(100), &cluster, &mut operator).await;
}

/// As with a network that drops connections without closing them: open watches stay silent, and new
/// connections work. The API server ends each watch after a minute; the operator must detect a missing end by
/// a timeout.
#[tokio::test]
async fn recovers_from_watches_that_stay_silent() {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let burst = cluster.start_burst_and_wait_midway(MODELS).await;
    let started = Instant::now();
    proxy.give_up_watches();
    burst.finished().await;
    cluster.delete_some_scaled_objects().await;
    converges_within(Duration::from_secs(75), &cluster, &mut operator).await;
    end_fault(Fault::None, &proxy, started, 3);
}

/// The watches keep working, so the operator sees every change while its requests fail.
#[tokio::test]
async fn recovers_from_a_period_of_one_failure() {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let fault = Fault::Status(if cluster.random.below(2) == 0 { 500 } else { 503 });
    let started = Instant::now();
    proxy.set(fault);
    let burst = cluster.start_burst(MODELS);
    burst.finished().await;
    sleep(cluster.random.millis(8000, 15_000)).await;
    end_fault(fault, &proxy, started, 1);
    converges(&cluster, &mut operator).await;
}

#[tokio::test]
async fn recovers_from_mixed_failures() {
    let mut cluster = Cluster::start().await;
    let (mut operator, proxy) = cluster.start_operator_behind_proxy().await;
    let fault = Fault::Mixed(cluster.random.number());
    let started = Instant::now();
    proxy.set(fault);
    let burst = cluster.start_burst(MODELS);
    burst.finished().await;
    sleep(cluster.random.millis(5000, 10_000)).await;
    end_fault(fault, &proxy, started, 3);
    converges(&cluster, &mut operator).await;
}
