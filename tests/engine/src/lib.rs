//! Substitutes for the two ends of the chain: a mock inference engine, because real ones need GPUs, and a
//! load generator.
//!
//! Each runs on its own thread, so that it does not depend on the runtime of a single test.
#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod background;
mod counted;
mod load;
mod metrics;
mod server;

pub use load::{Counts, Load, LoadSettings};
pub use metrics::Dialect;
pub use server::{Engine, EngineSettings, MODEL};
