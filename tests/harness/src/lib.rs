//! Starts a real control plane, the components around it and the operator, for tests, demo and benchmarks.
//!
//! All processes listen on free loopback ports, keep their files in a folder of their own and end with the
//! process that started them. [`Stack`] is a control plane with CRDs and RBAC; [`Chain`] adds Prometheus,
//! KEDA, the HPA and Kthena.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
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
mod past_requests;
pub mod process;
pub mod proxy;
pub mod random;
pub mod release;
mod scraped_operator;
pub mod stack;
pub mod wait;
pub mod web;

pub use audit::Request;
pub use certificates::Identity;
pub use chain::{Chain, ChainSettings, Model};
pub use crds::Crds;
pub use model_serving::{ModelServing, ModelServingBuilder, RealEngine, condition};
pub use operator::{OPERATOR, Settings, ask, explain};
pub use past_requests::past_requests;
pub use process::Process;
pub use proxy::{Fault, FaultProxy};
pub use random::Random;
pub use release::Release;
pub use stack::{Namespace, Stack, kinds};
