//! Starts the real control plane, its neighbours and the operator, for tests, demo and benchmarks.
//!
//! Everything runs on free loopback ports, in a folder of its own, and dies with the process that started it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test says what went wrong by panicking"
)]

pub mod audit;
pub mod certificates;
pub mod chain;
pub mod control_plane;
pub mod crds;
pub mod model_serving;
pub mod neighbours;
mod network;
pub mod objects;
pub mod operator;
pub mod owned;
pub mod process;
pub mod proxy;
pub mod random;
pub mod release;
pub mod stack;
pub mod wait;
pub mod web;

pub use certificates::Identity;
pub use chain::{Chain, ChainSettings, Model};
pub use crds::Crds;
pub use model_serving::{ModelServing, ModelServingBuilder, condition};
pub use operator::{OPERATOR, Settings, ask, explain};
pub use process::Process;
pub use proxy::{Fault, FaultProxy};
pub use random::Random;
pub use release::Release;
pub use stack::{Namespace, Stack, kinds};
