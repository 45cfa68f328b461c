//! The complete chain with real vLLM engines on CPUs, run by `make soak-vllm`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::large_futures,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "tests report failures by panicking"
)]

mod vllm {
    pub mod draining;
    pub mod held;
    pub mod shared;
    pub mod signals;
    pub mod step;
    pub mod streams;
}
