//! Simulation of the autoscalers.
//!
//! | module | content |
//! |---|---|
//! | [`time`] | points in simulated time |
//! | [`spec`] | settings of the HPA and of KEDA's scale loop, read from the ScaledObject of a plan |
//! | [`hpa`], [`keda`] | decisions of the HPA controller and of KEDA's scale loop |
//! | [`prometheus`], [`law`] | samples of the router's series, and the demand signals computed from them |
//! | [`load`], [`fleet`] | requests; the router, the engines and the clients |
//! | [`simulation`] | all of them on one clock |

pub mod fleet;
pub mod hpa;
pub mod keda;
pub mod law;
pub mod load;
pub mod prometheus;
mod random;
pub mod report;
pub mod simulation;
pub mod spec;
pub mod time;
