//! The operator against a real API server with the real definitions of its neighbours, under the rights that it is shipped with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

mod apiserver {
    mod annotations;
    mod companion;
    mod conflicts;
    mod engines;
    mod explain;
    mod keda_releases;
    mod plans;
    mod profiles;
    mod router_monitor;
    mod routing;
    mod samples;
    mod scaled_object;
    mod shared;
}
