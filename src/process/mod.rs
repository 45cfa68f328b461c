//! What any controller process needs: delays, followed kinds, an orderly end.

pub mod backoff;
pub mod follow;
pub mod gate;
