//! Requests that are refused.

use std::time::Duration;

use harness::wait::until_asked;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::time::timeout;

use super::{
    client::{Response, ask, request, send},
    stand_in::StandIn,
};

fn is_refused_for_now(response: &Response) {
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers["retry-after"], "10");
}

fn sized(bytes: usize) -> Request<Full<hyper::body::Bytes>> {
    let body = json!({"model": "chat", "prompt": "x".repeat(bytes)}).to_string();
    request(body)
}

#[tokio::test]
async fn requests_beyond_the_most_are_refused_until_one_leaves() {
    let Some(stand_in) = StandIn::start(&["--max-requests=2", "--timeout=15s"]).await else { return };
    let to = stand_in.address;
    let held = [tokio::spawn(ask(to, "a", false)), tokio::spawn(ask(to, "b", true))];
    stand_in.holds(2).await;
    is_refused_for_now(&ask(to, "c", false).await.unwrap());
    held[0].abort();
    stand_in.holds(1).await;
    let _third = tokio::spawn(ask(to, "d", false));
    stand_in.holds(2).await;
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="requests"}"#).await, 1);
}

#[tokio::test]
async fn long_bodies_are_refused_alone_and_together() {
    let Some(stand_in) = StandIn::start(&["--max-body=100Ki", "--max-bodies=150Ki", "--timeout=15s"]).await
    else {
        return;
    };
    let to = stand_in.address;
    is_refused_for_now(&send(to, sized(120_000)).await.unwrap());
    let held = tokio::spawn(send(to, sized(90_000)));
    stand_in.holds(1).await;
    // The first body may still be on its way, and then two fit.
    let third = [send(to, sized(90_000)), send(to, sized(90_000))].map(tokio::spawn);
    let refused = async || stand_in.metric(r#"kthena_keda_hold_refused_total{cause="bodies"}"#).await;
    until_asked("one is refused", refused, |refused| *refused > 0).await;
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="body"}"#).await, 1);
    drop((held, third));
}

#[tokio::test]
async fn only_requests_for_the_model_are_held() {
    let Some(stand_in) = StandIn::start(&["--timeout=5s"]).await else { return };
    let to = stand_in.address;
    for (body, status) in [
        (r#"{"model": "other"}"#, StatusCode::NOT_FOUND),
        (r#"{"prompt": "x"}"#, StatusCode::BAD_REQUEST),
        ("no json", StatusCode::BAD_REQUEST),
    ] {
        let mut response = send(to, request(body)).await.unwrap();
        assert_eq!(response.status, status, "{body}");
        assert!(response.text().await.unwrap().contains(r#""error""#));
    }
    let other = Request::get("/admin").header("host", "model").body(Full::default()).unwrap();
    assert_eq!(send(to, other).await.unwrap().status, StatusCode::NOT_FOUND);
    stand_in.holds(0).await;
}

#[tokio::test]
async fn a_request_is_held_until_the_timeout() {
    let Some(stand_in) = StandIn::start(&["--timeout=2s"]).await else { return };
    let held = tokio::spawn(ask(stand_in.address, "a", false));
    stand_in.holds(1).await;
    let answer = timeout(Duration::from_secs(15), held).await.expect("an answer after the timeout");
    is_refused_for_now(&answer.unwrap().unwrap());
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="timeout"}"#).await, 1);
    stand_in.holds(0).await;
}
