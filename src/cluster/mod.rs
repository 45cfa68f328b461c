//! Access to the API server: clients, discovery, writes, events and error classes.

mod client;
pub mod discovery;
mod error;
pub mod events;
mod page_limit;
mod request_metrics;
mod retry_after;
pub mod server_side_apply;

pub use client::{Clients, connect};
pub use error::{Class, Error};
