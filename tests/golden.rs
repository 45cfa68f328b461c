//! What `render` prints for the samples, and properties of every query, without a cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report failures by panicking"
)]

mod golden {
    mod direction;
    mod docs;
    mod queries;
    mod render;
}
