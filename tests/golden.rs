//! Output of `render`, properties of queries, generated tables and the direction of imports, all without a
//! cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests report failures by panicking, and skipped parts on standard output"
)]

mod golden {
    mod backtest;
    mod cost;
    mod direction;
    mod docs;
    mod kinds;
    mod page;
    mod queries;
    mod recommend;
    mod release;
    mod render;
}
