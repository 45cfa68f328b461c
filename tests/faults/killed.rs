//! The operator itself ends, in order or not.

use std::time::Duration;

use harness::{
    Crds, OPERATOR, Settings,
    audit::{Log, Request},
    kinds,
};
use kube::api::ListParams;
use tokio::time::sleep;

use super::{
    burst::Burst,
    settled::settled,
    shared::{BINARY, World, stack},
};

#[tokio::test]
async fn a_restart_writes_nothing() {
    let (stack, _permit) = stack(&[Crds::kthena(), Crds::keda(), Crds::prometheus_operator()]).await;
    let operator = stack.start_operator(&Settings::new(BINARY));
    let models = stack.namespace().await;
    for i in 0..20 {
        models.model_serving(&format!("chat-{i}")).opted_in(&format!("llama-{i}")).create().await;
    }
    for i in 0..20 {
        let api = models.api(&harness::kinds::scaled_object());
        harness::wait::until(&api, &format!("chat-{i}"), "exists", |found| found.is_some()).await;
    }
    assert!(operator.terminate(), "SIGTERM ends it in order");
    let before = stack.writes().len();
    assert_eq!(before, 40, "one status and one ScaledObject each");
    let _operator = stack.start_operator(&Settings::new(BINARY));
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    let writes = stack.writes().split_off(before);
    assert!(
        writes.iter().all(|write| write.object_ref.name == "sentinel"),
        "{:?}",
        harness::audit::summary(&writes)
    );
    let refused: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(refused.is_empty(), "{:?}", harness::audit::summary(&refused));
}

/// Waits until the operator writes, but not for long: everything may be written by now.
async fn is_writing(log: &mut Log) -> bool {
    for _ in 0..250 {
        if log.fresh().iter().any(Request::is_write) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Each kill comes at a moment that the seed decides.
#[tokio::test]
async fn killed_again_and_again_during_a_burst_nothing_is_lost_or_changed() {
    const MODELS: usize = 500;
    let mut world = World::start().await;
    let burst = Burst::plain(&world.models, MODELS);
    let mut log = Log::of(&world.stack.control_plane, &OPERATOR);
    let (mut kills, mut midway) = (0, 0);
    while !burst.is_over() || kills < 8 {
        log.fresh();
        let operator = world.stack.start_operator(&Settings::new(BINARY));
        // A few before they have seen anything, most while they write.
        if world.random.below(4) > 0 {
            midway += usize::from(is_writing(&mut log).await);
        }
        sleep(world.random.millis(0, 300)).await;
        drop(operator);
        kills += 1;
    }
    burst.ends().await;
    assert!(midway >= 2, "only {midway} of {kills} were killed while they wrote");
    let mut operator = world.start_operator().await;
    settled(&world, &mut operator).await;
    // What a killed process had on the wire may still land after the next one has looked, and changes nothing then.
    for found in world.models.api(&kinds::scaled_object()).list(&ListParams::default()).await.unwrap() {
        assert_eq!(found.metadata.generation, Some(1), "{:?} was changed", found.metadata.name);
    }
    let written = harness::audit::summary(&world.stack.writes());
    let of_models = written.iter().filter(|(what, _)| {
        what.starts_with("patch scaledobjects") || what.starts_with("patch modelservings")
    });
    let (objects, writes) =
        of_models.fold((0, 0), |(objects, writes), (_, count)| (objects + 1, writes + count));
    assert_eq!(objects, 2 * MODELS, "{written:?}");
    assert!(
        writes - objects <= kills * 8,
        "{} writes more than were needed after {kills} kills: {written:?}",
        writes - objects
    );
}
