//! The decisions of kthena-keda, without a client, a clock, an async runtime, a lock or a log.
//!
//! ```text
//! domain ← api ← promql ← signals ← intent ← observed ← plan ← foresight
//! ```
//!
//! No module imports one to its right.
//!
//! | module | content |
//! |---|---|
//! | [`domain`] | values that are validated once, condition reasons, names of generated objects |
//! | [`api`] | Kubernetes kinds, lenient when read and strict when written |
//! | [`promql`], [`signals`] | query text, and the catalogue of signals |
//! | [`intent`] | annotations and profile, resolved to complete settings or all errors |
//! | [`observed`] | the inputs of a plan as plain data, one [`observed::Observed`] per ModelServing |
//! | [`plan`] | the desired state of every written object, and the verdict |
//! | [`foresight`] | simulation of the HPA, of KEDA and of the fleet that they scale |
//!
//! Start with [`plan::plan`]: it turns [`observed::Observed`] into a [`plan::Plan`]. `plan/tests/` has a case
//! for every decision.

pub mod api;
pub mod domain;
pub mod foresight;
pub mod intent;
pub mod observed;
pub mod plan;
pub mod promql;
pub mod signals;
