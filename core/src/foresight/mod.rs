//! Simulation of the autoscalers.
//!
//! | module | content |
//! |---|---|
//! | [`time`] | points in simulated time |
//! | [`spec`] | settings of the HPA and of KEDA's scale loop, read from the ScaledObject of a plan |
//! | [`hpa`], [`keda`] | decisions of the HPA controller and of KEDA's scale loop |

pub mod hpa;
pub mod keda;
pub mod spec;
pub mod time;
