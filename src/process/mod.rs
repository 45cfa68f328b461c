//! What any controller process needs: delays, followed kinds, an election, an orderly end.

pub mod backoff;
pub mod digests;
pub mod follow;
pub mod gate;
pub mod index;
mod known;
pub mod lease;
mod merge;
