//! The two ends of the chain that cannot be had for real: an inference engine, which needs GPUs, and the clients' load.
//!
//! Each runs on a thread of its own, so that neither belongs to the runtime of any one test.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test says what went wrong by panicking"
)]

mod background;
mod counted;
mod load;
mod metrics;
mod server;

pub use load::{Counts, Load, LoadSettings};
pub use metrics::Dialect;
pub use server::{Engine, EngineSettings};
