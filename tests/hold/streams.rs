//! Streaming requests: comments while they wait, and responses that pass through.

use std::time::Duration;

use harness::wait::until_asked;
use http::StatusCode;
use tokio::time::sleep;

use super::{
    client::ask,
    engine::{Behaviour, Engine},
    stand_in::{StandIn, address},
};

#[tokio::test]
async fn a_stream_that_waits_gets_comments_and_then_the_answer() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.headers["content-type"], "text/event-stream");
    for _ in 0..2 {
        assert_eq!(response.next().await.unwrap().unwrap(), ": waiting for the model\n\n");
    }
    let engine = Engine::start(address(), Behaviour::Streams(Duration::ZERO)).await;
    stand_in.engines(&[engine.address]);
    let rest = response.text().await.unwrap();
    assert_eq!(rest.replace(": waiting for the model\n\n", ""), "data: a\n\ndata: a\n\n");
    assert_eq!(engine.ids(), ["a"]);
}

#[tokio::test]
async fn a_request_without_streaming_gets_no_comments() {
    let Some(stand_in) = StandIn::start(&["--timeout=4s"]).await else { return };
    let response = ask(stand_in.address, "a", false).await.unwrap();
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn errors_of_an_opened_stream_are_events() {
    for (behaviour, expected) in [
        (None, "did not become ready in time"),
        (Some(Behaviour::Dies), "the engine ended the connection"),
        (Some(Behaviour::DiesInStream), "the engine ended the connection"),
        (Some(Behaviour::Refuses), "data: \"a\""),
    ] {
        let Some(stand_in) = StandIn::start(&["--timeout=4s"]).await else { return };
        let mut response = ask(stand_in.address, "a", true).await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
        let engine = match behaviour {
            Some(behaviour) => Some(Engine::start(address(), behaviour).await),
            None => None,
        };
        stand_in.engines(&engine.iter().map(|engine| engine.address).collect::<Vec<_>>());
        let text = response.text().await.expect("the stream is complete");
        let (_, event) = text.split_once("\n\nevent: error\ndata: ").unwrap_or_else(|| panic!("{text}"));
        assert!(text.contains(expected) && event.ends_with("\n\n"), "{behaviour:?}: {text}");
        assert!(engine.is_none_or(|engine| engine.ids() == ["a"]));
    }
}

#[tokio::test]
async fn on_sigterm_an_opened_stream_ends_with_an_event() {
    let Some(mut stand_in) = StandIn::start(&[]).await else { return };
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    response.next().await.unwrap().unwrap();
    stand_in.process.signal("TERM");
    let text = response.text().await.unwrap();
    assert!(text.contains("event: error") && text.contains("the model is not ready"), "{text}");
}

#[tokio::test]
async fn the_first_event_passes_before_the_second_exists() {
    let Some(stand_in) = StandIn::start(&["--keep-alive-after=0"]).await else { return };
    let engine = Engine::start(address(), Behaviour::Streams(Duration::from_mins(10))).await;
    stand_in.engines(&[engine.address]);
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    assert_eq!(response.next().await.unwrap().unwrap(), "data: a\n\n");
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_engine_and_fills_no_buffer() {
    let Some(stand_in) = StandIn::start(&["--keep-alive-after=0"]).await else { return };
    let engine = Engine::start(address(), Behaviour::Floods).await;
    stand_in.engines(&[engine.address]);
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    response.next().await.unwrap().unwrap();
    let settled = async || {
        let before = engine.written();
        sleep(Duration::from_millis(500)).await;
        (before, engine.written())
    };
    let (_, written) = until_asked("the engine waits", settled, |(before, after)| before == after).await;
    // The sockets' buffers of the kernel, twice; the stand-in itself keeps far less.
    assert!(written < 32 << 20, "{written}");
    let (memory, _) = stand_in.process.memory().unwrap();
    let mut read = 0;
    while read < written {
        read += response.next().await.unwrap().unwrap().len();
    }
    until_asked("the engine goes on", async || engine.written(), |now| *now > written).await;
    let (after, _) = stand_in.process.memory().unwrap();
    assert!(after.abs_diff(memory) < 4096, "{memory} {after}");
}
