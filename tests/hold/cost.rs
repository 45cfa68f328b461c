//! Memory and CPU of a stand-in.

use std::{fs, time::Duration};

use tokio::time::sleep;

use super::{
    client::ask,
    engine::{Behaviour, Engine},
    stand_in::{StandIn, address},
};

/// Memory that is not a part of the binary's file, in KiB: the binary of a release is a tenth of a test's.
fn own_memory(stand_in: &StandIn) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", stand_in.process.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn at_rest_a_stand_in_takes_little_memory_and_no_time() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    ask(stand_in.address, "a", false).await.unwrap();
    let before = stand_in.process.cpu().unwrap();
    sleep(Duration::from_secs(10)).await;
    let used = stand_in.process.cpu().unwrap().saturating_sub(before);
    let (memory, _) = stand_in.process.memory().unwrap();
    eprintln!(
        "at rest: {} KiB, {memory} KiB with the binary; {used:?} of CPU in 10 s",
        own_memory(&stand_in)
    );
    assert!(own_memory(&stand_in) <= 8 << 10);
    assert!(used <= Duration::from_millis(20), "{used:?}");
}

#[tokio::test]
async fn a_thousand_held_requests_fit_into_64_mib_and_reach_an_engine_once() {
    let Some(stand_in) = StandIn::start(&["--max-requests=1000"]).await else { return };
    let to = stand_in.address;
    let clients: Vec<_> = (0..1000)
        .map(|i| {
            tokio::spawn(async move {
                ask(to, &format!("{i:04}"), i % 2 == 0).await.unwrap().text().await.unwrap()
            })
        })
        .collect();
    stand_in.holds(1000).await;
    sleep(Duration::from_secs(2)).await;
    let held = own_memory(&stand_in);
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    for client in clients {
        client.await.unwrap();
    }
    let (_, peak) = stand_in.process.memory().unwrap();
    eprintln!("1,000 held: {held} KiB; peak with the binary {peak} KiB");
    assert!(held <= 64 << 10, "{held}");
    assert_eq!(engine.ids(), (0..1000).map(|i| format!("{i:04}")).collect::<Vec<_>>());
}
