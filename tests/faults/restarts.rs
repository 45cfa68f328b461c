//! The operator is terminated or killed.

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
    convergence::converges,
    shared::{BINARY, Cluster, stack},
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
    assert!(operator.terminate(), "the operator exits with 0 on SIGTERM");
    let before = stack.writes().len();
    assert_eq!(before, 40, "one status and one ScaledObject per model");
    let _operator = stack.start_operator(&Settings::new(BINARY));
    models.model_serving("sentinel").opted_in("sentinel").create().await.scaled_object().await;
    let writes = stack.writes().split_off(before);
    assert!(
        writes.iter().all(|write| write.object_ref.name == "sentinel"),
        "{:?}",
        harness::audit::summary(&writes)
    );
    let forbidden: Vec<_> = stack.requests().into_iter().filter(|request| request.code() == 403).collect();
    assert!(forbidden.is_empty(), "{:?}", harness::audit::summary(&forbidden));
}

/// `true` as soon as the operator writes; `false` after 5 s without a write, since everything may be written
/// already.
async fn is_writing(log: &mut Log) -> bool {
    for _ in 0..250 {
        if log.fresh().iter().any(Request::is_write) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

/// The seed determines the moment of each kill.
#[tokio::test]
async fn repeated_kills_during_a_burst_lose_and_change_nothing() {
    const MODELS: usize = 500;
    let mut cluster = Cluster::start().await;
    let burst = Burst::start_uniform(&cluster.models, MODELS);
    let mut log = Log::of(&cluster.stack.control_plane, &OPERATOR);
    let (mut kills, mut midway) = (0, 0);
    while !burst.is_finished() || kills < 8 {
        log.fresh();
        let operator = cluster.stack.start_operator(&Settings::new(BINARY));
        // A few are killed before their caches sync, most while they write.
        if cluster.random.below(4) > 0 {
            midway += usize::from(is_writing(&mut log).await);
        }
        sleep(cluster.random.millis(0, 300)).await;
        drop(operator);
        kills += 1;
    }
    burst.finished().await;
    assert!(midway >= 2, "only {midway} of {kills} kills hit a writing operator");
    let mut operator = cluster.start_operator().await;
    converges(&cluster, &mut operator).await;
    // A request of a killed process can arrive after the next process has listed the objects; it must not
    // change them.
    for found in cluster.models.api(&kinds::scaled_object()).list(&ListParams::default()).await.unwrap() {
        assert_eq!(found.metadata.generation, Some(1), "{:?} was changed", found.metadata.name);
    }
    let written = harness::audit::summary(&cluster.stack.writes());
    let of_models = written.iter().filter(|(what, _)| {
        what.starts_with("patch scaledobjects") || what.starts_with("patch modelservings")
    });
    let (objects, writes) =
        of_models.fold((0, 0), |(objects, writes), (_, count)| (objects + 1, writes + count));
    assert_eq!(objects, 2 * MODELS, "{written:?}");
    assert!(
        writes - objects <= kills * 8,
        "{} redundant writes after {kills} kills: {written:?}",
        writes - objects
    );
}
