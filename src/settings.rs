//! Validated settings of the process, whatever they came from.

use crate::intent::Profile;

/// What `run` and `render` need to know besides the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every ModelServing gets that does not say otherwise.
    pub defaults: Profile,
    /// The namespace in which kthena-router runs.
    pub router_namespace: String,
}
