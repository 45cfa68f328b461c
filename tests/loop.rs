//! The complete chain with real components: load on Kthena's router scales models up and down, or leaves them
//! unchanged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "tests report failures by panicking"
)]

#[path = "loop"]
mod closed_loop {
    mod arrivals;
    mod backtest;
    mod booster;
    mod client;
    mod hold;
    mod lifecycle;
    mod outages;
    mod reasons;
    mod roles;
    mod scaling;
    mod shadow;
    mod shared;
    mod sharing;
    mod signals;
    mod stand_in;
    mod verdicts;
    mod zero;
}
