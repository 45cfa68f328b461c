//! What happens to requests on their way, while many models come and change.

use std::time::{Duration, Instant};

use harness::{Fault, FaultProxy, proxy::Passed};
use rstest::rstest;
use tokio::time::sleep;

use super::{
    settled::{settled, settled_within},
    shared::{World, most_requests},
};

const MODELS: usize = 100;

/// Ends a fault, and sees that the operator met it, and did not ask more than it should for that.
fn ends(fault: Fault, proxy: &FaultProxy, began: Instant, requests: usize) {
    let Passed { asked, spoiled } = proxy.set(Fault::None);
    assert!(spoiled > 0, "nothing met {fault:?}");
    let most = most_requests(MODELS, began, requests);
    assert!(asked <= most, "{asked} requests in {:?} of {fault:?}, and not {most}", began.elapsed());
}

#[rstest]
#[case::when_they_begin(Fault::Expired)]
#[case::while_they_stand(Fault::ExpiredMidway)]
#[tokio::test]
async fn watches_that_are_too_old(#[case] fault: Fault) {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    proxy.set(fault);
    proxy.cut();
    burst.ends().await;
    world.lose_some().await;
    sleep(world.random.millis(2000, 8000)).await;
    ends(fault, &proxy, began, 3);
    settled(&world, &mut operator).await;
}

/// No bytes, and no end of the connection either.
#[tokio::test]
async fn silence_for_a_while() {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    proxy.set(Fault::Hang);
    burst.ends().await;
    sleep(world.random.millis(15_000, 30_000)).await;
    ends(Fault::Hang, &proxy, began, 1);
    settled(&world, &mut operator).await;
}

/// What was answered in part then never gets the rest, which the operator has to notice by itself.
#[tokio::test]
async fn answers_that_never_end() {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    proxy.set(Fault::HangBodies);
    sleep(world.random.millis(1000, 5000)).await;
    ends(Fault::HangBodies, &proxy, began, 1);
    burst.ends().await;
    settled_within(Duration::from_secs(100), &world, &mut operator).await;
}

/// As a network does that has lost connections without telling either end: whatever stands is silent for good, and new ones pass. The API
/// server ends a watch after a minute, which the operator has to notice by itself.
#[tokio::test]
async fn watches_that_are_silent_for_good() {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let burst = world.in_the_midst_of_a_burst(MODELS).await;
    let began = Instant::now();
    proxy.give_up_watches();
    burst.ends().await;
    world.lose_some().await;
    settled_within(Duration::from_secs(75), &world, &mut operator).await;
    ends(Fault::None, &proxy, began, 3);
}

/// The watches go on, so that the operator sees all that it cannot do.
#[tokio::test]
async fn failures_of_one_kind_for_a_while() {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let fault = Fault::Status(if world.random.below(2) == 0 { 500 } else { 503 });
    let began = Instant::now();
    proxy.set(fault);
    let burst = world.burst(MODELS);
    burst.ends().await;
    sleep(world.random.millis(8000, 15_000)).await;
    ends(fault, &proxy, began, 1);
    settled(&world, &mut operator).await;
}

#[tokio::test]
async fn failures_of_every_kind_mixed() {
    let mut world = World::start().await;
    let (mut operator, proxy) = world.start_operator_behind_proxy().await;
    let fault = Fault::Mixed(world.random.number());
    let began = Instant::now();
    proxy.set(fault);
    let burst = world.burst(MODELS);
    burst.ends().await;
    sleep(world.random.millis(5000, 10_000)).await;
    ends(fault, &proxy, began, 3);
    settled(&world, &mut operator).await;
}
