//! The chart: installed by the real helm, run with its own rights, watched by its own dashboard and alerts, and guarded by its own policy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "tests report failures by panicking"
)]

#[path = "chart"]
mod chart {
    mod commands;
    mod election;
    mod policy;
    mod promises;
    mod release;
    mod rights;
    mod shards;
    mod templates;
}
