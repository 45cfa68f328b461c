//! Requests that get no answer of an engine.

use http::StatusCode;

/// Reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many requests are held as allowed.
    TooManyRequests,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// All bodies together are longer than allowed.
    TooManyBytes,
    /// No engine became ready in time.
    Timeout,
    /// The process ends, and no engine is ready.
    Stopping,
    /// The client sent no body in time, or ended the connection.
    BodyIncomplete,
    /// The body is no JSON object with a model name.
    InvalidBody,
    /// The request is for another model.
    UnknownModel,
    /// No path of an inference request.
    UnknownPath,
    /// The request comes from a stand-in.
    Loop,
    /// The engine ended the connection before its answer was complete; it may have processed the request.
    EngineFailed,
}

/// Seconds after which a client may try again.
pub const RETRY_AFTER_SECONDS: u32 = 10;

impl Refusal {
    /// Status of the response.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TooManyRequests
            | Self::BodyTooLarge
            | Self::TooManyBytes
            | Self::Timeout
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyIncomplete => StatusCode::REQUEST_TIMEOUT,
            Self::InvalidBody => StatusCode::BAD_REQUEST,
            Self::UnknownModel | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::EngineFailed => StatusCode::BAD_GATEWAY,
        }
    }

    /// `true` if the same request may succeed later. It is then certain that no engine has received it.
    pub const fn is_retryable(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE)
    }

    /// Value of the metrics' label.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::TooManyRequests => "requests",
            Self::BodyTooLarge => "body",
            Self::TooManyBytes => "bodies",
            Self::Timeout => "timeout",
            Self::Stopping => "stopping",
            Self::BodyIncomplete | Self::InvalidBody | Self::UnknownPath | Self::Loop => "invalid",
            Self::UnknownModel => "model",
            Self::EngineFailed => "engine",
        }
    }

    /// Message for the client.
    pub const fn message(self) -> &'static str {
        match self {
            Self::TooManyRequests => {
                "the model is not ready, and too many requests wait for it; try again later"
            }
            Self::BodyTooLarge => {
                "the model is not ready, and the request is too long to wait for it; try again later"
            }
            Self::TooManyBytes => {
                "the model is not ready, and the requests that wait for it are too long in total; try again later"
            }
            Self::Timeout => "the model did not become ready in time; try again later",
            Self::Stopping => "the model is not ready; try again later",
            Self::BodyIncomplete => "the body of the request is incomplete",
            Self::InvalidBody => "invalid body: expected a JSON object with the field model",
            Self::UnknownModel => "the model does not exist",
            Self::UnknownPath => "the path does not exist",
            Self::Loop => "the request was forwarded to its sender",
            Self::EngineFailed => {
                "the engine ended the connection; the request was not sent again, because the engine may have processed it"
            }
        }
    }

    /// The error as JSON, in the form that clients of engines expect.
    pub fn body(self) -> String {
        let status = self.status().as_u16();
        serde_json::json!({"error": {"message": self.message(), "type": "kthena_keda_hold", "code": status}})
            .to_string()
    }
}
