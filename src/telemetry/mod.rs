//! What the process tells of itself: logs, metrics, traces, and whether it is well.

pub mod logs;
pub mod metrics;
pub mod scraped;
pub mod server;
pub mod traces;
