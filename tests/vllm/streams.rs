//! Clients that read a stream to its end and report its outcome.

use std::time::Duration;

use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

/// Time without data after which a client gives up.
const SILENCE: Duration = Duration::from_secs(10);

/// Outcome of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ended with `[DONE]`.
    Complete,
    /// The response had another status than 200.
    Status(u16),
    /// There was no response.
    NoResponse,
    /// The connection ended before `[DONE]`.
    Cut,
    /// No data came for a while, and the connection stayed open.
    Silent,
}

/// A stream that has ended, and the time until then.
pub type Ended = (Outcome, Duration);

/// Starts a request with a response of `tokens` tokens.
pub fn open(router: &str, model: &str, tokens: u32) -> JoinHandle<Ended> {
    let url = format!("{router}/v1/chat/completions");
    let body = json!({"model": model, "stream": true, "max_tokens": tokens, "messages": [{"role": "user", "content": "x"}]});
    tokio::spawn(async move {
        let started = Instant::now();
        (read(&url, body.to_string()).await, started.elapsed())
    })
}

async fn read(url: &str, body: String) -> Outcome {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(url).header("content-type", "application/json").body(body);
    let Ok(mut response) = request.send().await else { return Outcome::NoResponse };
    if response.status() != 200 {
        return Outcome::Status(response.status().as_u16());
    }
    let mut tail = String::new();
    loop {
        match timeout(SILENCE, response.chunk()).await {
            Err(_) => return Outcome::Silent,
            Ok(Ok(Some(chunk))) => tail.push_str(&String::from_utf8_lossy(&chunk)),
            Ok(_) if tail.contains("[DONE]") => return Outcome::Complete,
            Ok(_) => return Outcome::Cut,
        }
    }
}
