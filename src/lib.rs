//! kthena-keda generates a KEDA ScaledObject for each Kthena ModelServing that opts in with one annotation,
//! keeps it correct, and reports in a condition why the ModelServing scales or does not.
//!
//! The reconcile of one ModelServing, in [`controllers::model_serving`], calls five functions in this order:
//!
//! ```text
//! observe → plan → write_status → apply → record
//! ```
//!
//! The crate `kthena-keda-core` decides; this crate watches, writes and serves:
//!
//! ```text
//! telemetry, cache, runtime ← watch, cluster, prometheus ← hold ← settings ← sources ← controllers ← app ← cli
//! ```
//!
//! No folder imports one to its right; `tests/golden/direction.rs` checks that. `cli` is the only folder that
//! knows flags, environment variables and standard output. [`hold`] is a program of its own, which uses only `telemetry`.

pub mod app;
pub mod cache;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod hold;
pub mod prometheus;
pub mod runtime;
pub mod settings;
pub mod sources;
pub mod telemetry;
pub mod watch;
