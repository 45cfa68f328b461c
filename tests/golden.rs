//! What `render` prints for the samples, and properties of every query, without a cluster.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

mod golden {
    mod purity;
    mod queries;
    mod render;
}
