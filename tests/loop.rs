//! The whole chain for real: load on Kthena's router scales a model up, down and not at all, as it should.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "a test says what went wrong by panicking"
)]

#[path = "loop"]
mod closed_loop {
    mod holding;
    mod lifecycle;
    mod reasons;
    mod scaling;
    mod shared;
    mod sharing;
    mod signals;
    mod verdicts;
    mod zero;
}
