//! Everything that talks to the API server: client, discovery, writes, errors.

pub mod apply;
pub mod capabilities;
mod client;
mod counted;
mod error;
pub mod events;
mod overload;

pub use client::{Clients, connect};
pub use error::{Class, Error};
