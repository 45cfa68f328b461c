//! Clients that do not retry.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Outcome of a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `None` without a response.
    pub status: Option<StatusCode>,
    /// The body, as far as it came.
    pub text: String,
    /// The body ended as its head promised.
    pub has_ended: bool,
    /// Time of the first token.
    pub first_token: Option<Instant>,
}

impl Answer {
    /// `true` if this is the one complete answer of an engine.
    pub fn is_complete(&self) -> bool {
        let ends =
            self.text.matches("[DONE]").count() + self.text.matches("finish_reason\":\"length").count();
        self.has_ended && ends == 1 && !self.text.contains("event: error")
    }
}

/// Body of a request for a chat completion.
pub fn body(model: &str, streams: bool, tokens: u32) -> Value {
    let messages = json!([{"role": "user", "content": "hello"}]);
    json!({"model": model, "stream": streams, "max_tokens": tokens, "messages": messages})
}

/// Sends one request and reads its answer.
pub async fn ask(url: String, body: Value) -> Answer {
    let mut answer = Answer::default();
    let _ = read(&url, body, &mut answer, Duration::ZERO).await;
    answer
}

async fn read(
    url: &str,
    body: Value,
    answer: &mut Answer,
    pause: Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let authority = url.trim_start_matches("http://");
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/v1/chat/completions")
        .header("host", authority)
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(body.to_string()))?;
    let response = sender.send_request(request).await?;
    answer.status = Some(response.status());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        answer.text.push_str(&String::from_utf8_lossy(&data));
        if answer.first_token.is_none() && answer.text.contains("content") {
            answer.first_token = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
    }
    answer.has_ended = true;
    connection.abort();
    Ok(())
}
