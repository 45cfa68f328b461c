//! Errors, and their closed set of classes, which decides log level, metric and delay.

use std::{io, time::Duration};

use super::retry_after::Overloaded;
use crate::{
    runtime::delays::{RETRY_AFTER_MAX, RETRY_BLOCKED_MAX, RETRY_REJECTED_MAX, RETRY_TRANSIENT_MAX},
    telemetry::server::Listen,
};

/// An error of anything outside the pure core.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account gives access to a cluster.
    #[error("no cluster configuration found; set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The kubeconfig cannot be read, or lacks the context.
    #[error("cannot use the kubeconfig: {0}; correct KUBECONFIG, or the name of the context")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The settings of the operator's own Prometheus client are unusable.
    #[error(transparent)]
    Prometheus(#[from] crate::prometheus::ClientConfigError),
    /// The address for metrics and probes is taken, or is not an address of this machine.
    #[error("cannot listen on {0}: {1}; set another address with --listen")]
    Listen(Listen, #[source] io::Error),
    /// Another instance may lead by now.
    #[error("lost the leader lease {0}")]
    LeaseLost(String),
    /// The API server rejected a request, or did not respond.
    #[error("request to the API server failed: {0}")]
    Api(#[source] Box<kube::Error>),
    /// Another writer changed the object during every attempt.
    #[error("another writer changed the object during every attempt")]
    Contended,
    /// The name of an object to create is taken.
    #[error("it exists and has another owner, so the operator does not change it; rename or delete it")]
    Occupied,
    /// A response of the API server lacks something that every such object has.
    #[error("unexpected response of the API server: {0} is missing")]
    Malformed(&'static str),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Overload, outage or a lost race; heals by itself.
    Transient,
    /// An RBAC permission is missing.
    Forbidden,
    /// An admission webhook denies the object or does not respond, which may change at any time.
    Denied,
    /// The API server or an admission webhook rejects the object as invalid.
    Rejected,
    /// The API server does not serve the kind.
    Unserved,
    /// Anything that should not happen.
    Bug,
}

impl Class {
    /// The class as metrics carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Forbidden => "forbidden",
            Self::Denied => "denied",
            Self::Rejected => "rejected",
            Self::Unserved => "unserved",
            Self::Bug => "bug",
        }
    }

    /// `true` for a rejection that is reported in the condition, since a person may have to act: a missing permission, a webhook
    /// that denies or does not answer, an invalid object.
    pub const fn needs_action(self) -> bool {
        match self {
            Self::Forbidden | Self::Denied | Self::Rejected => true,
            Self::Transient | Self::Unserved | Self::Bug => false,
        }
    }

    /// Longest delay before the next try; retrying faster does not help where a person has to act.
    pub const fn longest_delay(self) -> Duration {
        match self {
            Self::Transient | Self::Denied => RETRY_TRANSIENT_MAX,
            Self::Forbidden | Self::Unserved => RETRY_BLOCKED_MAX,
            Self::Rejected | Self::Bug => RETRY_REJECTED_MAX,
        }
    }
}

impl Error {
    /// Class of the error.
    pub fn class(&self) -> Class {
        match self {
            Self::Contended => Class::Transient,
            // The owner of the other object may delete it at any time.
            Self::Occupied => Class::Denied,
            Self::Config(_)
            | Self::Kubeconfig(_)
            | Self::Prometheus(_)
            | Self::Listen(..)
            | Self::LeaseLost(_)
            | Self::Malformed(_) => Class::Bug,
            Self::Api(error) if is_denied(error) => Class::Denied,
            Self::Api(error) if is_namespace_terminating(error) => Class::Transient,
            Self::Api(error) => match code(error) {
                Some(401 | 403) => Class::Forbidden,
                Some(404) => Class::Unserved,
                // Server-side apply fails with 500 for a field that the schema lacks; discovery decides which
                // fields are sent.
                Some(400 | 422) => Class::Rejected,
                _ => Class::Transient,
            },
        }
    }

    /// Pause that an overloaded API server requests for all requests, at most [`RETRY_AFTER_MAX`]; `None` for any other error.
    pub fn overload(&self) -> Option<Duration> {
        let Self::Api(error) = self else { return None };
        let kube::Error::Service(error) = &**error else { return None };
        error.downcast_ref::<Overloaded>().map(|Overloaded(pause)| *pause)
    }

    /// Delay that the response requests before this request is retried, at most [`RETRY_AFTER_MAX`]; zero without one.
    pub fn retry_after(&self) -> Duration {
        let Self::Api(error) = self else { return Duration::ZERO };
        let kube::Error::Api(status) = &**error else { return Duration::ZERO };
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX)
    }

    /// Text for users: of an API server's `Status` the message, and of a failed connection its cause.
    pub fn user_message(&self) -> String {
        match self {
            Self::Api(error) => match &**error {
                kube::Error::Api(status) => status.message.clone(),
                other => root_cause(other).to_string(),
            },
            other => other.to_string(),
        }
    }

    /// `true` if an RBAC permission is missing; not if the caller is not authenticated.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(403))
    }

    /// `true` if the object was changed or deleted before it was written.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(409))
    }

    /// `true` if a patch for one version of an object may have met another; reading the object again decides.
    ///
    /// A JSON patch whose test fails is rejected as invalid, without a more specific reason (Kubernetes
    /// `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).
    pub fn is_stale_write(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(code(error), Some(409 | 422)))
    }

    /// [`Error::Contended`] for a patch whose test of the resource version failed, and any other error as it is.
    ///
    /// The rejection of an invalid object has the same code, but names the invalid fields.
    #[must_use]
    pub fn or_contended(self) -> Self {
        let Self::Api(error) = &self else { return self };
        let kube::Error::Api(status) = &**error else { return self };
        let has_causes = status.details.as_ref().is_some_and(|details| !details.causes.is_empty());
        let is_rejection = has_causes || status.message.starts_with(WEBHOOK_DENIAL);
        if self.is_stale_write() && !is_rejection { Self::Contended } else { self }
    }

    /// `true` if the namespace is being deleted and accepts no new objects.
    pub fn is_namespace_terminating(&self) -> bool {
        matches!(self, Self::Api(error) if is_namespace_terminating(error))
    }

    /// `true` if the object or its kind does not exist.
    ///
    /// The status code decides, since the response for a kind that is not served is plain text without a
    /// reason.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(404))
    }
}

/// Start of the message of a webhook's denial.
const WEBHOOK_DENIAL: &str = "admission webhook ";

/// `true` if an admission webhook denied the request or could not be called.
///
/// A denial has the code of a missing permission, and a failed call that of the API server's own failures;
/// only the text differs (Kubernetes `apiserver/pkg/admission/plugin/webhook/errors` and
/// `apiserver/pkg/util/webhook/error.go`).
fn is_denied(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    match status.code {
        403 => status.message.starts_with(WEBHOOK_DENIAL),
        500 => status.message.contains("failed calling webhook "),
        _ => false,
    }
}

/// `true` if a namespace that is being deleted accepts no new objects (Kubernetes
/// `apiserver/pkg/admission/plugin/namespace/lifecycle`).
fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && (causes.any(|cause| cause.reason == "NamespaceTerminating")
            || status.message.ends_with("because it is being terminated"))
}

fn root_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn forbidden(message: &str) -> Error {
        kube::Error::Api(Box::new(Status { code: 403, message: message.to_owned(), ..Status::default() }))
            .into()
    }

    /// A proxy or a webhook may send any number.
    #[test]
    fn a_retry_after_of_hours_is_cut_to_a_minute() {
        let details = serde_json::from_value(serde_json::json!({"retryAfterSeconds": u32::MAX})).unwrap();
        let status = Status { code: 403, details, ..Status::default() };
        assert_eq!(Error::from(kube::Error::Api(Box::new(status))).retry_after(), RETRY_AFTER_MAX);
    }

    #[test]
    fn awaits_the_end_of_a_namespace() {
        let error = forbidden(
            "scaledobjects.keda.sh \"chat\" is forbidden: unable to create new content in namespace n because it is being terminated",
        );
        assert_eq!((error.class(), error.is_namespace_terminating()), (Class::Transient, true));
        let error = forbidden("scaledobjects.keda.sh is forbidden: User \"x\" cannot patch resource");
        assert_eq!((error.class(), error.is_namespace_terminating()), (Class::Forbidden, false));
    }
}
