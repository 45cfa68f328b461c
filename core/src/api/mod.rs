//! The Kubernetes kinds that the operator reads and writes, one file per kind, with only the fields that it
//! uses.
//!
//! Decoding is lenient, because one object that fails to decode would stop a watch; encoding is strict.

pub mod annotations;
pub mod keda;
pub mod kthena;
pub(crate) mod lenient;
pub mod metadata;
pub mod model_serving_role;
pub mod monitoring;
pub mod profile;
pub mod stand_in;

pub(crate) use lenient::{BestEffort, Exists, Lenient, LenientDe, fields, lenient};
