//! The process of a stand-in, with clients and engines that misbehave. Names resolve by a hosts file; the tests of the
//! loop have a name server and the router.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::large_futures,
    reason = "tests report failures by panicking"
)]

mod hold {
    mod client;
    mod cost;
    mod engine;
    mod failures;
    mod hand_over;
    mod limits;
    mod stand_in;
    mod streams;
}
