//! Fuzz checks. Each takes arbitrary bytes and panics if an invariant is violated.
//!
//! libFuzzer runs each check as a target in `fuzz_targets/`, starting from the inputs in `corpus/`.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a check fails by panicking")]

mod annotations;
mod history;
mod lines;
mod model_serving;
mod prometheus;
mod promql;
mod schema;

pub use annotations::annotations;
pub use history::history;
pub use model_serving::model_serving;
pub use prometheus::prometheus;
pub use promql::promql;
