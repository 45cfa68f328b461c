//! Logs, metrics, traces and health of the process.

pub mod logs;
pub mod metrics;
pub mod server;
pub mod traces;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z.
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
