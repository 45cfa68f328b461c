//! Watches that survive a kind that is missing, forbidden or failing.

mod gated;
mod multi_namespace;
mod reflect;

pub use gated::{Gate, watch};
pub use reflect::reflect;
