//! What goes wrong around the operator, and to it, while it works. Each test has a control plane of its own, and what is left to chance
//! is decided by a seed: `FAULT_SEED=…` repeats a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

mod faults {
    mod api_server;
    mod burst;
    mod co_writers;
    mod connections;
    mod definitions;
    mod killed;
    mod neighbours;
    mod settled;
    mod shared;
    mod webhooks;
}
