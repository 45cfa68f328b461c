//! Validated settings of the process, whatever they came from.

use std::time::Duration;

use crate::{intent::Profile, prometheus::Access};

/// What `run` and `render` need to know besides the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every ModelServing gets that does not say otherwise.
    pub defaults: Profile,
    /// The namespace in which kthena-router runs.
    pub router_namespace: String,
}

/// What only `run` needs to know.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// How often the cluster is asked for a kind that is missing.
    pub discovery: Duration,
    /// How often Prometheus is asked whether the signals are there.
    pub check: Duration,
    /// How the operator itself is let in there.
    pub access: Access,
    /// Whether to write the condition on ModelServings.
    pub write_conditions: bool,
}
