//! Scale-in while streams are in flight: their outcome for clients, by the way in which an engine is stopped.

use std::{collections::BTreeMap, time::Duration};

use harness::{RealEngine, neighbours::vllm::Change, wait::until_asked_within};
use tokio::time::{interval, sleep};

use super::{
    shared::{Engines, LOADED, engine},
    streams::{Ended, Outcome, open},
};

/// A stream takes 20 s.
const TOKENS: u32 = 400;
/// Streams at the time of the scale-in.
const STREAMS: usize = 8;

struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    grace_seconds: u32,
    pre_stop_seconds: u32,
}

const CASES: [Case; 3] = [
    Case { name: "default", arguments: &[], grace_seconds: 30, pre_stop_seconds: 0 },
    Case {
        name: "shutdown-timeout",
        arguments: &["--shutdown-timeout", "60"],
        grace_seconds: 70,
        pre_stop_seconds: 0,
    },
    Case { name: "pre-stop", arguments: &[], grace_seconds: 60, pre_stop_seconds: 30 },
];

#[tokio::test]
async fn scales_in_while_streams_are_in_flight() {
    let Some(engines) = Engines::quick().await else { return };
    for Case { name, arguments, grace_seconds, pre_stop_seconds } in CASES {
        let settings = RealEngine { grace_seconds, pre_stop_seconds, ..engine(8, "64M", arguments) };
        let minimum = "autoscaling.kthena.io/min-replicas";
        let chat = engines.model(name, &settings, |builder| builder.annotated(minimum, "1")).await;
        chat.serving.annotate(&[(minimum, Some("2"))]).await;
        engines.has_ready(&chat, 2).await;
        // The router reads the engines' metrics before it routes to them.
        sleep(Duration::from_secs(3)).await;

        let router = &engines.chain.router.url;
        let streams: Vec<_> = (0..STREAMS).map(|_| open(router, name, TOKENS)).collect();
        sleep(Duration::from_secs(5)).await;
        let before = engines.vllm.changes().len();
        chat.serving.annotate(&[(minimum, None), ("autoscaling.kthena.io/max-replicas", Some("1"))]).await;
        chat.has_replicas(1).await;
        // Requests that arrive while the pod terminates.
        let (mut later, mut ticks) = (Vec::new(), interval(Duration::from_millis(500)));
        for _ in 0..20 {
            ticks.tick().await;
            later.push(open(router, name, 5));
        }
        println!("{name}: streams in flight: {:?}", outcomes(streams).await);
        println!("{name}: requests afterwards: {:?}", outcomes(later).await);
        let stopped = async || {
            let changes = engines.vllm.changes();
            changes[before..].iter().find_map(|(pod, change)| match change {
                Change::Stopped(time, code) => Some((pod.clone(), *time, *code)),
                Change::Ready(_) | Change::Failed(_) => None,
            })
        };
        let stopped = until_asked_within(LOADED, "the engine ends", stopped, Option::is_some).await;
        println!("{name}: the engine ended: {stopped:?} (pod, time since SIGTERM, code)");
        engines.delete(&chat).await;
    }
}

/// Counts of the outcomes, with the longest time of each in seconds.
async fn outcomes(streams: Vec<tokio::task::JoinHandle<Ended>>) -> BTreeMap<String, (usize, u64)> {
    let mut counts = BTreeMap::<String, (usize, u64)>::new();
    for stream in streams {
        let (outcome, time): (Outcome, Duration) = stream.await.unwrap();
        let (count, longest) = counts.entry(format!("{outcome:?}")).or_default();
        *count += 1;
        *longest = (*longest).max(time.as_secs());
    }
    counts
}
