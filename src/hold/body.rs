//! Bodies of requests: read completely, within the limits.

use std::{borrow::Cow, time::Duration};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use tokio::time::timeout;

use super::{admission::Place, refusal::Refusal};

/// Longest pause within a body.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest time and size of a body that is read only to be ignored, so that its client reads the response.
const IGNORED: (Duration, usize) = (Duration::from_secs(5), 4 << 20);

/// Reads a body into the place of its request.
///
/// # Errors
/// If it is too long, or not complete.
pub async fn read(body: &mut Incoming, place: &mut Place) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = timeout(PAUSE, body.frame()).await.map_err(|_| Refusal::BodyIncomplete)? {
        let frame = frame.map_err(|_| Refusal::BodyIncomplete)?;
        let Some(data) = frame.data_ref() else { continue };
        place.grow(data.len())?;
        // A copy: the frames are parts of larger buffers of the connection.
        bytes.extend_from_slice(data);
    }
    bytes.shrink_to_fit();
    Ok(bytes.into())
}

/// Reads and drops the rest of a body. A connection that ends with unread data loses its response.
pub async fn ignore(mut body: Incoming) {
    let (time, mut left) = IGNORED;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    let _ = timeout(time, rest).await;
}

/// The fields of a request that decide about it; nothing else of a body is looked at.
#[derive(Debug, Deserialize)]
pub struct Summary<'a> {
    /// Model name.
    #[serde(borrow)]
    pub model: Option<Cow<'a, str>>,
    /// The client expects server-sent events.
    pub stream: Option<bool>,
}

impl<'a> Summary<'a> {
    /// # Errors
    /// If the body is no JSON object.
    pub fn of(body: &'a [u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|_| Refusal::InvalidBody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_needs_a_json_object() {
        let summary = Summary::of(br#"{"messages": [{"model": "x"}], "model": "a\u0062", "stream": true}"#);
        let summary = summary.unwrap();
        assert_eq!((summary.model.as_deref(), summary.stream), (Some("ab"), Some(true)));
        assert!(Summary::of(br#"{"stream": null}"#).unwrap().stream.is_none());
        for body in ["", "x", "[]", r#"{"model": 1}"#, r#"{"model": "a"} x"#, r#"{"model":"a","model":"b"}"#]
        {
            assert_eq!(Summary::of(body.as_bytes()).unwrap_err(), Refusal::InvalidBody, "{body}");
        }
    }
}
