//! Requests that an engine answers.

use std::time::Duration;

use futures::future::join_all;
use harness::wait::until_asked;
use http::StatusCode;
use tokio::time::timeout;

use super::{
    client::{ask, get, request, send},
    engine::{Behaviour, Engine},
    stand_in::{StandIn, address},
};

#[tokio::test]
async fn every_held_request_reaches_one_engine_once() {
    let Some(stand_in) = StandIn::start(&["--keep-alive-after=0"]).await else { return };
    let to = stand_in.address;
    let clients: Vec<_> = (0..50)
        .map(|i| {
            tokio::spawn(async move {
                let mut response = ask(to, &format!("r{i:02}"), i % 2 == 0).await.unwrap();
                (response.status, response.text().await.unwrap())
            })
        })
        .collect();
    stand_in.holds(50).await;
    let engines = [
        Engine::start(address(), Behaviour::Answers).await,
        Engine::start(address(), Behaviour::Answers).await,
    ];
    stand_in.engines(&engines.each_ref().map(|engine| engine.address));
    for (i, client) in clients.into_iter().enumerate() {
        assert_eq!(client.await.unwrap(), (StatusCode::OK, format!("\"r{i:02}\"")));
    }
    let mut ids = [engines[0].ids(), engines[1].ids()].concat();
    ids.sort();
    assert_eq!(ids, (0..50).map(|i| format!("r{i:02}")).collect::<Vec<_>>());
    assert!(engines.iter().all(|engine| engine.ids().len() >= 15), "{:?}", engines[0].ids().len());
    assert_eq!(stand_in.metric("kthena_keda_hold_handed_over_total").await, 50);
    assert_eq!(stand_in.metric("kthena_keda_hold_wait_seconds_count").await, 50);
    stand_in.holds(0).await;
}

#[tokio::test]
async fn the_polls_of_the_router_are_answered_while_requests_are_held() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let to = stand_in.address;
    let _held = tokio::spawn(ask(to, "a", false));
    stand_in.holds(1).await;
    let polls = async { (get(to, "/metrics").await, get(to, "/v1/models").await) };
    let (metrics, models) = timeout(Duration::from_secs(5), polls).await.expect("answers at once");
    assert_eq!(metrics, (StatusCode::OK, String::new()));
    assert_eq!(models.0, StatusCode::OK);
    assert!(models.1.contains(r#""id":"chat""#), "{}", models.1);
}

#[tokio::test]
async fn a_request_beside_a_ready_engine_is_forwarded_as_it_is() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    let mut sent = request(r#"{"model": "chat", "id": "secret-body", "stream": false}"#);
    sent.headers_mut().insert("authorization", "Bearer secret-token".parse().unwrap());
    let mut response = send(stand_in.address, sent).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "\"secret-body\"");
    let head = engine.heads().remove(0);
    assert!(head.starts_with("POST /v1/completions HTTP/1.1"), "{head}");
    assert!(head.contains("authorization: Bearer secret-token"), "{head}");
}

#[tokio::test]
async fn no_header_and_no_body_is_logged() {
    let Some(stand_in) = StandIn::start(&["--log-level=trace"]).await else { return };
    let engine = Engine::start(address(), Behaviour::Dies).await;
    stand_in.engines(&[engine.address]);
    for body in [r#"{"model": "chat", "id": "secret-body"}"#, r#"{"model": "secret-name"}"#, "secret-text"] {
        let mut sent = request(body);
        sent.headers_mut().insert("authorization", "Bearer secret-token".parse().unwrap());
        let _ = send(stand_in.address, sent).await;
    }
    let log = stand_in.process.log();
    assert!(log.contains("engines are ready"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn requests_go_neither_to_the_stand_in_nor_round_in_circles() {
    let Some(stand_in) = StandIn::start(&["--timeout=3s"]).await else { return };
    let local = Engine::start("127.0.0.1".parse().unwrap(), Behaviour::Answers).await;
    stand_in.engines(&[stand_in.address, local.address]);
    let response = ask(stand_in.address, "a", false).await.unwrap();
    assert!(local.ids().is_empty());
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stand_in.metric("kthena_keda_hold_received_total").await, 1);
    // Two stand-ins that take each other for an engine.
    let other = StandIn::start(&["--timeout=3s"]).await.unwrap();
    stand_in.engines(&[other.address]);
    other.engines(&[stand_in.address]);
    let response = ask(stand_in.address, "b", false).await.unwrap();
    assert_eq!(response.status, StatusCode::LOOP_DETECTED);
    assert_eq!(other.metric("kthena_keda_hold_received_total").await, 0);
}

#[tokio::test]
async fn engines_are_looked_up_again_after_they_have_changed() {
    let Some(stand_in) = StandIn::start(&["--timeout=2s"]).await else { return };
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    assert_eq!(ask(stand_in.address, "a", false).await.unwrap().status, StatusCode::OK);
    stand_in.engines(&[]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ask(stand_in.address, "b", false).await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(engine.ids(), ["a"]);
}

#[tokio::test]
async fn many_clients_leave_without_a_trace() {
    let Some(stand_in) = StandIn::start(&["--max-requests=10"]).await else { return };
    let to = stand_in.address;
    for _ in 0..3 {
        let clients = (0..10).map(|i| tokio::spawn(async move { ask(to, "left", i % 2 == 0).await }));
        let clients: Vec<_> = clients.collect();
        stand_in.holds(10).await;
        for client in &clients {
            client.abort();
        }
        join_all(clients).await;
        stand_in.holds(0).await;
    }
    let engine = Engine::start(address(), Behaviour::Answers).await;
    stand_in.engines(&[engine.address]);
    ask(to, "stays", false).await.unwrap();
    let ids = async || engine.ids();
    until_asked("only the last client's request arrives", ids, |ids| ids == &["stays"]).await;
}
