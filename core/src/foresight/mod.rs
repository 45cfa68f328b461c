//! Simulation of the autoscalers.
//!
//! | module | content |
//! |---|---|
//! | [`time`] | points in simulated time |
//! | [`spec`] | settings of the HPA and of KEDA's scale loop, read from the ScaledObject of a plan |
//! | [`hpa`], [`keda`] | decisions of the HPA controller and of KEDA's scale loop |
//! | [`autoscaler`], [`resume`] | both of them for one model, on values as they come; the same after a restart |
//! | [`prometheus`], [`law`] | samples of the router's series, and the demand signals computed from them |
//! | [`latency`] | samples of the engines' latencies, and the signal computed from them |
//! | [`random`] | seeded pseudo-random numbers |
//! | [`load`], [`fleet`] | requests; the router, the engines and the clients |
//! | [`simulation`] | all of them on one clock, request by request |
//! | [`sizing`] | cases and figures by which demand signals are compared |
//! | [`history`] | recorded series of a model, and their file |
//! | [`load_file`] | arrivals in a CSV file |
//! | [`settings`], [`overrides`] | settings of a model, read back from its ScaledObject, and changes to try |
//! | [`fluid`], [`waits`] | a fleet that is simulated for weeks, and its waiting times |
//! | [`workload`] | requests of a history or of a file |
//! | [`backtest`] | the settings on recorded values and on other requests, on one clock |
//! | [`report`] | results as a table, as JSON and as CSV |
//! | [`cost`] | GPU-hours of models |
//! | [`recommend`] | settings that the past of a model speaks for, with their evidence |

pub mod autoscaler;
pub mod backtest;
pub mod cost;
pub mod fleet;
pub mod fluid;
pub mod gpus;
pub mod history;
pub mod hpa;
pub mod keda;
pub mod latency;
pub mod law;
pub mod load;
pub mod load_file;
pub mod overrides;
pub mod prometheus;
pub mod random;
pub mod recommend;
pub mod report;
pub mod resume;
pub mod settings;
pub mod simulation;
pub mod sizing;
pub mod spec;
pub mod time;
pub mod waits;
pub mod workload;
