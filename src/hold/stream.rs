//! Streams that were opened before an engine was ready: comments keep the connection open, and errors become events.

use std::{convert::Infallible, pin::Pin, time::Duration};

use futures::{Stream, stream};
use http::{Response, StatusCode, response};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::{Bytes, Frame};
use tokio::time::{Interval, interval};

use super::{delivery::EngineBody, metrics::Metrics, refusal::Refusal};

/// A comment of server-sent events, which clients ignore.
const COMMENT: Bytes = Bytes::from_static(b": waiting for the model\n\n");
/// Most of an engine's error that is passed on, in bytes.
const ERROR_MAX: usize = 16 << 10;

/// The delivery of a request, in progress.
pub type Deliver = Pin<Box<dyn Future<Output = Result<Response<EngineBody>, Refusal>> + Send>>;

enum Phase {
    Waiting { deliver: Deliver, comments: Interval },
    Passing(EngineBody),
    Ended,
}

/// Events of a response whose status is already sent: comments until the engine answers, then its events. An error is the last event.
pub fn events(
    deliver: Deliver,
    every: Duration,
    metrics: Metrics,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
    let begin = Phase::Waiting { deliver, comments: interval(every) };
    stream::unfold((begin, metrics), async |(phase, metrics)| {
        let (bytes, phase) = next(phase, &metrics).await?;
        Some((Ok(Frame::data(bytes)), (phase, metrics)))
    })
}

async fn next(mut phase: Phase, metrics: &Metrics) -> Option<(Bytes, Phase)> {
    loop {
        phase = match phase {
            Phase::Waiting { mut deliver, mut comments } => {
                tokio::select! {
                    biased;
                    result = &mut deliver => match answered(result, metrics).await {
                        Ok(body) => Phase::Passing(body),
                        Err(event) => return Some((event, Phase::Ended)),
                    },
                    _ = comments.tick() => return Some((COMMENT, Phase::Waiting { deliver, comments })),
                }
            }
            Phase::Passing(mut body) => {
                let Ok(frame) = body.frame().await? else {
                    metrics.refused(Refusal::EngineFailed);
                    return Some((event(&Refusal::EngineFailed.body()), Phase::Ended));
                };
                // Anything but data is trailers, which a stream of events does not have.
                if let Ok(data) = frame.into_data() {
                    return Some((data, Phase::Passing(body)));
                }
                Phase::Passing(body)
            }
            Phase::Ended => return None,
        };
    }
}

/// The body of a successful response, or the event for an error.
async fn answered(
    result: Result<Response<EngineBody>, Refusal>,
    metrics: &Metrics,
) -> Result<EngineBody, Bytes> {
    match result {
        Ok(response) if response.status().is_success() => Ok(response.into_body()),
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ERROR_MAX).collect().await.map(Collected::to_bytes);
            Err(event(&engine_error(&head, &body.unwrap_or_default())))
        }
        Err(refusal) => {
            metrics.refused(refusal);
            Err(event(&refusal.body()))
        }
    }
}

/// The engine's error on one line, or its status if it is no JSON.
fn engine_error(head: &response::Parts, body: &[u8]) -> String {
    let error: Result<serde_json::Value, _> = serde_json::from_slice(body);
    error.map_or_else(|_| status_error(head.status), |error| error.to_string())
}

fn status_error(status: StatusCode) -> String {
    let code = status.as_u16();
    let message = format!("the engine responded with status {code}");
    serde_json::json!({"error": {"message": message, "type": "kthena_keda_hold", "code": code}}).to_string()
}

fn event(data: &str) -> Bytes {
    // After a line that the engine left incomplete, the event begins on a line of its own.
    format!("\n\nevent: error\ndata: {data}\n\n").into()
}
