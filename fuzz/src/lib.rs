//! What must hold whatever comes in: each check takes any bytes and panics where a promise is broken.
//!
//! `fuzz_targets/` has each of them driven by libFuzzer, which starts from `corpus/`.
#![forbid(unsafe_code)]
#![allow(clippy::missing_panics_doc, reason = "a check says what is wrong by panicking")]

mod annotations;
mod lines;
mod model_serving;
mod prometheus;
mod promql;
mod schema;

pub use annotations::annotations;
pub use model_serving::model_serving;
pub use prometheus::prometheus;
pub use promql::promql;
