//! One closed set of error classes: it decides the log level and the delay.

use std::{io, time::Duration};

use super::retry_after::Overloaded;
use crate::telemetry::server::Listen;

/// What went wrong in the shell around the pure core.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the cluster.
    #[error("cannot find a cluster: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The kubeconfig has no such context, or cannot be read.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The operator cannot ask Prometheus as it was told to.
    #[error(transparent)]
    Prometheus(#[from] crate::prometheus::ClientConfigError),
    /// Metrics and probes cannot be served.
    #[error("cannot listen on {0}: {1}; name another address with --listen")]
    Listen(Listen, #[source] io::Error),
    /// Somebody else may lead by now.
    #[error("the lease {0} is lost")]
    LeaseLost(String),
    /// The API server refused or did not answer.
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// Somebody else changed the object three times while we tried to.
    #[error("the status was changed by somebody else each time it was written")]
    Contended,
    /// An object of the API server lacks what every object has.
    #[error("an object without {0}")]
    Malformed(&'static str),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Heals by itself: overload, outage, a lost race.
    Transient,
    /// A right is missing.
    Forbidden,
    /// A webhook does not accept the object as things are, or does not answer; that may change at any time.
    Denied,
    /// The API server or a webhook does not accept the object.
    Rejected,
    /// The kind is not served.
    Unserved,
    /// Should not happen.
    Bug,
}

impl Class {
    /// The word that metrics carry.
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

    /// Whether somebody has to do something before it can succeed.
    pub const fn needs_action(self) -> bool {
        match self {
            Self::Forbidden | Self::Denied | Self::Rejected => true,
            Self::Transient | Self::Unserved | Self::Bug => false,
        }
    }

    /// The longest delay before the next try; retrying faster does not heal what people have to.
    pub const fn longest_delay(self) -> Duration {
        match self {
            Self::Transient | Self::Denied => Duration::from_secs(30),
            Self::Forbidden | Self::Unserved => Duration::from_mins(5),
            Self::Rejected | Self::Bug => Duration::from_mins(10),
        }
    }
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Contended => Class::Transient,
            Self::Config(_)
            | Self::Kubeconfig(_)
            | Self::Prometheus(_)
            | Self::Listen(..)
            | Self::LeaseLost(_)
            | Self::Malformed(_) => Class::Bug,
            Self::Api(error) if is_denied(error) => Class::Denied,
            Self::Api(error) => match code(error) {
                Some(401 | 403) => Class::Forbidden,
                Some(404) => Class::Unserved,
                // Server-side apply answers 500 for a field that the schema lacks; everything that we send is gated by it.
                Some(400 | 422) => Class::Rejected,
                _ => Class::Transient,
            },
        }
    }

    /// How long the API server asks to be left alone by everybody, which it does where it is overloaded.
    pub fn overload(&self) -> Option<Duration> {
        let Self::Api(error) = self else { return None };
        let kube::Error::Service(error) = &**error else { return None };
        error.downcast_ref::<Overloaded>().map(|Overloaded(rest)| *rest)
    }

    /// How long to wait before the same is asked again, as the answer says.
    pub fn retry_after(&self) -> Duration {
        let Self::Api(error) = self else { return Duration::ZERO };
        let kube::Error::Api(status) = &**error else { return Duration::ZERO };
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Duration::from_secs(seconds.into())
    }

    /// What it says to people: of an API server's answer the text alone.
    pub fn user_message(&self) -> String {
        match self {
            Self::Api(error) => match &**error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// Whether the object changed, or went, before it was written.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(409))
    }

    /// Whether a change that was made for one version of an object may have met another; the object tells.
    ///
    /// A JSON patch whose test fails is refused as invalid, with no more of a reason (Kubernetes
    /// `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`).
    pub fn is_stale_write(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(code(error), Some(409 | 422)))
    }

    /// Whether the object or its kind does not exist.
    ///
    /// By code alone: for a kind that is not served the answer is plain text, without a reason.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(404))
    }
}

/// A webhook's refusal has the code of a missing right, and one that could not be asked that of the API server's own failures; only the
/// text tells (Kubernetes `apiserver/pkg/admission/plugin/webhook/errors` and `apiserver/pkg/util/webhook/error.go`).
fn is_denied(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    match status.code {
        403 => status.message.starts_with("admission webhook "),
        500 => status.message.contains("failed calling webhook "),
        _ => false,
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
