//! Requests that are refused.

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

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
    let Some(stand_in) = StandIn::start(&["--max-requests=2"]).await else { return };
    let to = stand_in.address;
    let held = [tokio::spawn(ask(to, "a", false)), tokio::spawn(ask(to, "b", true))];
    stand_in.holds(2).await;
    is_refused_for_now(&ask(to, "c", false).await.unwrap());
    held[0].abort();
    stand_in.holds(1).await;
    let _third = tokio::spawn(ask(to, "d", false));
    stand_in.holds(2).await;
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="requests"}"#).await as u32, 1);
}

#[tokio::test]
async fn long_bodies_are_refused_alone_and_together() {
    let Some(stand_in) = StandIn::start(&["--max-body=100KiB", "--max-bodies=150KiB"]).await else { return };
    let to = stand_in.address;
    is_refused_for_now(&send(to, sized(120_000)).await.unwrap());
    let held = tokio::spawn(send(to, sized(90_000)));
    stand_in.holds(1).await;
    let refused = async || stand_in.metric(r#"kthena_keda_hold_refused_total{cause="bodies"}"#).await;
    // The first body may still be on its way.
    while refused().await < 1.0 {
        let response = tokio::spawn(send(to, sized(90_000)));
        if let Ok(response) = tokio::time::timeout(std::time::Duration::from_secs(2), response).await {
            is_refused_for_now(&response.unwrap().unwrap());
        }
    }
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="body"}"#).await as u32, 1);
    held.abort();
}

#[tokio::test]
async fn only_requests_for_the_model_are_held() {
    let Some(stand_in) = StandIn::start(&[]).await else { return };
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
    is_refused_for_now(&ask(stand_in.address, "a", false).await.unwrap());
    assert_eq!(stand_in.metric(r#"kthena_keda_hold_refused_total{cause="timeout"}"#).await as u32, 1);
    stand_in.holds(0).await;
}
