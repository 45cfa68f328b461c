//! Watches that survive kinds that are missing, forbidden or failing.

mod failures;
mod gated;
mod multi_namespace;
mod reflect;

pub use gated::{Gate, watch};
pub use reflect::{Withdrawal, reflect};
