//! Faults of the operator and of the components around it. Each test has its own control plane. A seed
//! determines the random choices: `FAULT_SEED=…` repeats a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report failures by panicking"
)]

mod faults {
    mod api_server;
    mod burst;
    mod competing_writers;
    mod connections;
    mod convergence;
    mod crds;
    mod dependencies;
    mod restarts;
    mod roles_and_stand_ins;
    mod shared;
    mod webhooks;
}
