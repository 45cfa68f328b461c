//! The chart: installation with the real helm, RBAC permissions, dashboard, alerts, admission policy and
//! leader election.
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
    mod operator_policy;
    mod permissions;
    mod policy;
    mod release;
    mod roles;
    mod shards;
    mod templates;
    mod tenants;
    mod upgrade;
}
