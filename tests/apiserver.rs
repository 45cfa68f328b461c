//! The operator against a real API server with the real CRDs of Kthena, KEDA and the Prometheus Operator,
//! under the RBAC permissions that the chart grants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report failures by panicking"
)]

mod apiserver {
    mod annotations;
    mod backtest;
    mod booster;
    mod conflicts;
    mod engines;
    mod explain;
    mod keda_releases;
    mod label_selector;
    mod large_objects;
    mod metrics;
    mod permissions;
    mod plans;
    mod profiles;
    mod roles;
    mod router_monitor;
    mod routing;
    mod samples;
    mod scaled_object;
    mod service_time;
    mod shadow;
    mod shared;
    mod slow_prometheus;
    mod stand_in;
}
