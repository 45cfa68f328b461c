//! Clients that read an answer to its end and report its outcome.

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

/// An answer, as far as it came.
#[derive(Debug, Default)]
pub struct Answer {
    /// `None` without a response.
    pub status: Option<u16>,
    pub text: String,
    /// The body ended as its head promised.
    pub has_ended: bool,
    /// Time of the first token of a stream.
    pub first_token: Option<std::time::Instant>,
}

/// A request that was sent.
pub type Asked = JoinHandle<Answer>;

impl Answer {
    /// `true` if this is exactly one complete answer of the engine.
    pub fn is_complete(&self) -> bool {
        let ends = self.text.matches("\"finish_reason\":\"").count();
        let is_one = self.has_ended && ends == 1 && !self.text.contains("event: error");
        self.status == Some(200)
            && is_one
            && self.text.matches("[DONE]").count() == usize::from(self.is_stream())
    }

    fn is_stream(&self) -> bool {
        self.text.contains("chat.completion.chunk")
    }
}

/// Sends a request once, and waits for its answer for as long as the connection is open.
pub fn ask(router: &str, model: &str, streams: bool, tokens: u32) -> Asked {
    let url = format!("{router}/v1/chat/completions");
    let body = json!({"model": model, "stream": streams, "max_tokens": tokens, "messages": [{"role": "user", "content": "x"}]});
    tokio::spawn(async move {
        let mut answer = Answer::default();
        // The answer shows how far it came.
        let _ = receive(&url, body.to_string(), &mut answer).await;
        answer
    })
}

async fn receive(url: &str, body: String, answer: &mut Answer) -> Result<(), reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.post(url).header("content-type", "application/json").body(body);
    let mut response = request.send().await?;
    answer.status = Some(response.status().as_u16());
    while let Some(chunk) = response.chunk().await? {
        answer.text.push_str(&String::from_utf8_lossy(&chunk));
        if answer.first_token.is_none() && answer.is_stream() {
            answer.first_token = Some(std::time::Instant::now());
        }
    }
    answer.has_ended = true;
    Ok(())
}
