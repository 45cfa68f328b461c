//! What `render` prints for the samples, and properties of every query, without a cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

mod golden {
    mod direction;
    mod docs;
    mod kinds;
    mod queries;
    mod render;
}
