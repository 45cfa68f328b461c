//! The Kubernetes kinds we speak: minimal, lenient when read, strict when written; one file per kind.

pub mod annotations;
pub mod keda;
pub mod kthena;
pub(crate) mod lenient;
pub mod metadata;
pub mod monitoring;
pub mod profile;

pub(crate) use lenient::{BestEffort, Exists, Lenient, LenientDe, fields, lenient};
