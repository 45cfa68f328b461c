//! Hears how long an overloaded API server wants to be left alone.
//!
//! It answers with plain text and a header (Kubernetes `staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`), of
//! which kube keeps the text. Whatever is refused elsewhere comes as a `Status`, which says the same in its details.

use std::time::Duration;

use http::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use tower::BoxError;

/// The longest that is believed: whatever stands before the API server may say anything.
const LONGEST: Duration = Duration::from_mins(1);

/// The API server is overloaded.
#[derive(Debug, thiserror::Error)]
#[error("overloaded; it asks to be left alone for {0:?}")]
pub(super) struct Overloaded(pub(super) Duration);

/// Makes such an answer an error that says how long.
pub(super) fn heard<B>(answer: Result<Response<B>, BoxError>) -> Result<Response<B>, BoxError> {
    let answer = answer?;
    let is_overloaded = answer.status() == StatusCode::TOO_MANY_REQUESTS && !is_json(answer.headers());
    match seconds(answer.headers()).filter(|_| is_overloaded) {
        Some(seconds) => Err(Overloaded(Duration::from_secs(seconds).min(LONGEST)).into()),
        None => Ok(answer),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content = headers.get(http::header::CONTENT_TYPE).and_then(|content| content.to_str().ok());
    content.is_some_and(|content| content.starts_with("application/json"))
}

fn seconds(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Error;

    fn answer(code: u16, content: &str, after: Option<&str>) -> Response<()> {
        let mut answer = Response::builder().status(code).header("Content-Type", content);
        if let Some(after) = after {
            answer = answer.header("Retry-After", after);
        }
        answer.body(()).unwrap()
    }

    #[test]
    fn an_overloaded_api_server_is_left_alone_for_as_long_as_it_asks() {
        for (after, rest) in [("7", Duration::from_secs(7)), ("18446744073709551615", LONGEST)] {
            let error = heard(Ok(answer(429, "text/plain; charset=utf-8", Some(after)))).unwrap_err();
            assert_eq!(Error::from(kube::Error::Service(error)).overload(), Some(rest));
        }
    }

    #[test]
    fn every_other_answer_is_read_by_kube() {
        for (code, content, after) in [
            (200, "text/plain", Some("7")),
            (429, "application/json", Some("7")),
            (429, "text/plain", None),
            (429, "text/plain", Some("tomorrow")),
            (503, "text/plain", Some("7")),
        ] {
            assert!(heard(Ok(answer(code, content, after))).is_ok(), "{code} {content} {after:?}");
        }
    }
}
