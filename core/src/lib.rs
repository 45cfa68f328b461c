//! The decisions of kthena-keda, without a client, a clock, an async runtime, a lock or a log.
//!
//! ```text
//! domain ← api ← promql, signals ← intent ← observed ← plan
//! ```
//!
//! No module imports one to its right. Start with [`plan::plan`]: it turns [`observed::Observed`] into a [`plan::Plan`].

pub mod api;
pub mod domain;
pub mod intent;
pub mod observed;
pub mod plan;
pub mod promql;
pub mod signals;
