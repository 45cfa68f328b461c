//! Failures, and the exit code of each.

use std::process::ExitCode;

use crate::prometheus::RangeError;
use kthena_keda_core::foresight::{backtest::Unfit, recommend::Refused};

/// Failure of a backtest, with a text for users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum Failure {
    /// Flags, files, annotations or the model.
    #[error("{0}")]
    Input(String),
    /// Prometheus is not reachable, or refuses.
    #[error("{0}")]
    Prometheus(String),
    /// The data does not suffice.
    #[error("{0}")]
    Unfit(String),
    /// A condition of `--fail-if` holds.
    #[error("{0}")]
    Check(String),
}

impl Failure {
    /// Invalid input, from any error.
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(in crate::cli) fn input(error: impl ToString) -> Self {
        Self::Input(error.to_string())
    }

    pub(in crate::cli) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Input(_) => 1,
            Self::Prometheus(_) => 2,
            Self::Unfit(_) => 3,
            Self::Check(_) => 4,
        })
    }
}

impl From<RangeError> for Failure {
    fn from(error: RangeError) -> Self {
        Self::Prometheus(error.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Unfit(refused.to_string())
    }
}

impl From<Unfit> for Failure {
    fn from(error: Unfit) -> Self {
        Self::Unfit(error.to_string())
    }
}
