//! Reads for how long an overloaded API server refuses requests.
//!
//! It responds with plain text and a `Retry-After` header (Kubernetes
//! `staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`), of which kube keeps only the
//! text. All other refusals are a `Status`, which has the same number in its details.

use std::time::Duration;

use http::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use tower::BoxError;

use crate::runtime::delays::RETRY_AFTER_MAX;

/// The API server is overloaded and refuses requests for this long.
#[derive(Debug, thiserror::Error)]
#[error("overloaded; retry after {0:?}")]
pub(super) struct Overloaded(pub(super) Duration);

/// Turns the response of an overloaded API server into [`Overloaded`], with at most [`RETRY_AFTER_MAX`].
pub(super) fn map_overload<B>(response: Result<Response<B>, BoxError>) -> Result<Response<B>, BoxError> {
    let response = response?;
    let is_overloaded = response.status() == StatusCode::TOO_MANY_REQUESTS && !is_json(response.headers());
    match retry_after_seconds(response.headers()).filter(|_| is_overloaded) {
        Some(seconds) => Err(Overloaded(Duration::from_secs(seconds).min(RETRY_AFTER_MAX)).into()),
        None => Ok(response),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/json"))
}

fn retry_after_seconds(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Error;

    fn response(code: u16, content_type: &str, retry_after: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(code).header("Content-Type", content_type);
        if let Some(retry_after) = retry_after {
            response = response.header("Retry-After", retry_after);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn retry_after_of_an_overloaded_api_server_is_honoured_up_to_a_minute() {
        for (retry_after, pause) in [("7", Duration::from_secs(7)), ("18446744073709551615", RETRY_AFTER_MAX)]
        {
            let overloaded = response(429, "text/plain; charset=utf-8", Some(retry_after));
            let error = map_overload(Ok(overloaded)).unwrap_err();
            assert_eq!(Error::from(kube::Error::Service(error)).overload(), Some(pause));
        }
    }

    #[test]
    fn other_responses_are_left_to_kube() {
        for (code, content_type, retry_after) in [
            (200, "text/plain", Some("7")),
            (429, "application/json", Some("7")),
            (429, "text/plain", None),
            (429, "text/plain", Some("tomorrow")),
            (503, "text/plain", Some("7")),
        ] {
            let mapped = map_overload(Ok(response(code, content_type, retry_after)));
            assert!(mapped.is_ok(), "{code} {content_type} {retry_after:?}");
        }
    }
}
