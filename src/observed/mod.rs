//! What is there: one [`Observed`] per ModelServing, whatever source it came from; and one [`ObservedRouter`].
//!
//! In: objects as the API server sends them. Out: digests that keep only what plans and reports depend on.

mod generated;
mod manifests;
mod monitor;
mod network;
mod profile;
mod router;
mod scaled_object;
mod stores;

pub use generated::{Existing, Fingerprint, Generated};
pub use manifests::Manifests;
pub use monitor::{LivePodMonitor, LiveServiceMonitor, MonitorDigest, Scrapes};
pub use network::{Destination, LiveModelRoute, LiveModelServer, Network, RouteDigest, Routing, Server, ServerDigest};
pub use profile::ProfileDigest;
pub use router::{Key, ObservedRouter, RouterPort, RouterService};
pub use scaled_object::LiveScaledObject;
pub use stores::Stores;

use crate::{api::kthena::ModelServing, intent::Profile, signals::RouterSeries};

/// What there is of one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// What stands under the name of its ScaledObject.
    pub scaled_object: Option<Generated>,
    /// What stands under the name of its PodMonitor.
    pub pod_monitor: Option<Generated>,
    /// How the router's series are found.
    pub router: RouterSeries,
    /// How clients' requests reach its pods.
    pub routing: Routing,
    /// The profile that it names, or the one named `default`: what it gives, or what is wrong with it; none where there is none.
    pub profile: Option<Result<Profile, String>>,
}

impl Observed {
    /// Whose the object under the name of its ScaledObject is.
    pub fn existing(&self) -> Existing {
        self.whose(self.scaled_object.as_ref())
    }

    /// Whose the object under the name of its PodMonitor is.
    pub fn existing_pod_monitor(&self) -> Existing {
        self.whose(self.pod_monitor.as_ref())
    }

    fn whose(&self, found: Option<&Generated>) -> Existing {
        found.map_or(Existing::Nothing, |digest| digest.existing(self.model_serving.metadata.uid.as_deref()))
    }
}
