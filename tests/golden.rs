//! Output of `render`, properties of queries, generated tables and the direction of imports, all without a
//! cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report failures by panicking"
)]

mod golden {
    mod direction;
    mod docs;
    mod kinds;
    mod queries;
    mod render;
}
