//! Asks Prometheus the operator's own questions, with limits to time and size; KEDA's are its own.
//!
//! In: where Prometheus is and what is asked. Out: elements, or why there are none, in words for a message.

mod client;

pub use client::{Access, AccessError, Element, Prometheus};
