//! kthena-keda gives a Kthena ModelServing correct, safe and explained autoscaling by KEDA for one annotation.
//!
//! The tree tells the story of one ModelServing:
//!
//! ```text
//!  observed   →   intent   →    plan    →   apply   →   report
//!  what is there  what was      what should  the writes  condition
//!                 asked for     be there
//! ```
//!
//! `intent`, `promql`, `signals` and `plan` are pure: no client, clock, environment, `async` or log.
//! `cli` is the only place that knows flags, environment and standard output.

pub mod api;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod intent;
pub mod observed;
pub mod plan;
pub mod process;
pub mod prometheus;
pub mod promql;
pub mod settings;
pub mod signals;
pub mod telemetry;
