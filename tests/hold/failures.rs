//! Engines that fail, and the end of the process.

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
async fn a_request_that_an_engine_received_is_never_sent_again() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engines =
        [Engine::start(address(), Behaviour::Dies).await, Engine::start(address(), Behaviour::Dies).await];
    stand_in.engines(&engines.each_ref().map(|engine| engine.address));
    for id in ["a", "b", "c"] {
        let response = ask(stand_in.address, id, false).await.unwrap();
        assert_eq!(response.status, StatusCode::BAD_GATEWAY);
        assert!(!response.headers.contains_key("retry-after"));
    }
    sleep(Duration::from_secs(2)).await;
    let mut ids = [engines[0].ids(), engines[1].ids()].concat();
    ids.sort();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="engine"}"#).await, 3);
}

#[tokio::test]
async fn an_engine_that_refuses_the_connection_is_passed_over() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engine = Engine::start(address(), Behaviour::Answers).await;
    let (to, refuses) = (stand_in.address, address());
    stand_in.engines(&[refuses, engine.address]);
    let clients: Vec<_> =
        (0..8).map(|i| tokio::spawn(async move { ask(to, &format!("{i}"), false).await })).collect();
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(engine.ids().len(), 8);
    // The only one refuses: the request waits until it listens.
    drop(engine);
    stand_in.engines(&[refuses]);
    sleep(Duration::from_millis(1500)).await;
    let client = tokio::spawn(ask(to, "late", false));
    stand_in.holds(1).await;
    sleep(Duration::from_secs(2)).await;
    let engine = Engine::start(refuses, Behaviour::Answers).await;
    assert_eq!(client.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(engine.ids(), ["late"]);
}

#[tokio::test]
async fn a_response_that_the_engine_does_not_complete_is_not_completed() {
    let Some(stand_in) = StandIn::start(&["--keep-alive-after=0"]).await else { return };
    let engine = Engine::start(address(), Behaviour::DiesInStream).await;
    stand_in.engines(&[engine.address]);
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.next().await.unwrap().unwrap(), "data: a\n\n");
    assert!(response.next().await.unwrap().is_err());
    assert_eq!(engine.ids(), ["a"]);
}

#[tokio::test]
async fn an_error_of_the_engine_is_passed_on() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engine = Engine::start(address(), Behaviour::Refuses).await;
    stand_in.engines(&[engine.address]);
    let mut response = ask(stand_in.address, "too long", false).await.unwrap();
    assert_eq!(
        (response.status, response.text().await.unwrap().as_str()),
        (StatusCode::BAD_REQUEST, "\"too long\"")
    );
}

#[tokio::test]
async fn on_sigterm_held_requests_are_refused_and_streams_end_by_themselves() {
    let Some(mut stand_in) = StandIn::start(&["--keep-alive-after=0"]).await else { return };
    let to = stand_in.address;
    let engine = Engine::start(address(), Behaviour::Streams(Duration::from_secs(4))).await;
    stand_in.engines(&[engine.address]);
    let mut stream = ask(to, "stream", true).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "data: stream\n\n");
    stand_in.engines(&[]);
    sleep(Duration::from_millis(1500)).await;
    let held = tokio::spawn(ask(to, "held", false));
    stand_in.holds(1).await;
    stand_in.process.signal("TERM");
    let refused = held.await.unwrap().unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(stream.next().await.unwrap().unwrap(), "data: stream\n\n");
    assert!(stream.next().await.is_none());
    drop((stream, refused));
    assert!(stand_in.process.terminate(), "exits with 0");
    assert_eq!(engine.ids(), ["stream"]);
}

#[tokio::test]
async fn on_sigterm_held_requests_still_go_to_a_ready_engine() {
    let Some(mut stand_in) = StandIn::start(&[]).await else { return };
    let to = stand_in.address;
    let clients: Vec<_> =
        (0..30).map(|i| tokio::spawn(async move { ask(to, &format!("{i}"), false).await })).collect();
    stand_in.holds(30).await;
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    stand_in.process.signal("TERM");
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap().status, StatusCode::OK);
    }
    assert_eq!(engine.ids().len(), 30);
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_ends_the_request_at_the_engine() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engine = Engine::start(address(), Behaviour::Streams(Duration::from_mins(1))).await;
    stand_in.engines(&[engine.address]);
    let mut response = ask(stand_in.address, "a", true).await.unwrap();
    response.next().await.unwrap().unwrap();
    assert!(!engine.is_cut());
    drop(response);
    until_asked("the engine sees that the client left", async || engine.is_cut(), |is_cut| *is_cut).await;
}
