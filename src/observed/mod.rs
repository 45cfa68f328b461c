//! What is there: one [`Observed`] per ModelServing, whatever source it came from; and one [`ObservedRouter`].
//!
//! In: objects as the API server sends them. Out: digests that keep only what plans and reports depend on.

mod generated;
mod hpa;
pub mod live;
mod manifests;
mod monitor;
mod network;
mod policy;
mod profile;
mod rivals;
mod router;
mod scaled_object;
mod selected;
mod sight;
mod stores;
mod told;

pub use generated::{Existing, Fingerprint, Generated};
pub use hpa::{HpaDigest, LiveHpa, ScaleTarget};
pub use manifests::Manifests;
pub use monitor::{LivePodMonitor, LiveServiceMonitor, MonitorDigest, Scrapes};
pub use network::{Destination, LiveModelRoute, LiveModelServer, Network, RouteDigest, Routing, Server, ServerDigest};
pub use policy::{LiveBinding, LivePolicy, PolicyDigest};
pub use profile::ProfileDigest;
pub use rivals::{Autoscalers, Rival};
pub use router::{Key, ObservedRouter, RouterPort, RouterService};
pub use scaled_object::{LiveScaledObject, ScaledObjectDigest};
pub use selected::{Mismatch, Mismatches, mismatch};
pub use sight::{Answered, Checks, Sight, Sights, Source};
pub use stores::{Said, Stores};
pub use told::{Told, about, settle};

use std::sync::Arc;

use crate::{api::kthena::ModelServing, intent::Profile, signals::RouterSeries};

/// What there is of one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// What stands under the name of its ScaledObject.
    pub scaled_object: Option<ScaledObjectDigest>,
    /// The HPA that KEDA makes for it.
    pub hpa: Option<HpaDigest>,
    /// Whoever else scales it.
    pub rivals: Vec<Rival>,
    /// What stands under the name of its PodMonitor.
    pub pod_monitor: Option<Generated>,
    /// How the router's series are found.
    pub router: RouterSeries,
    /// Who sets the number of ServingGroups although autoscalers did before.
    pub second_writer: Option<String>,
    /// Why the API server did not take what was planned the last time.
    pub refusal: Option<String>,
    /// What Prometheus showed last.
    pub sights: Arc<Sights>,
    /// How its selector fails to match its ServingGroups, where somebody counted.
    pub mismatch: Option<Mismatch>,
    /// How clients' requests reach its pods.
    pub routing: Routing,
    /// The profile that it names, or the one named `default`: what it gives, or what is wrong with it; none where there is none.
    pub profile: Option<Result<Profile, String>>,
}

impl Observed {
    /// Whose the object under the name of its ScaledObject is.
    pub fn existing(&self) -> Existing {
        self.whose(self.generated())
    }

    /// What stands under the name of its ScaledObject, as far as that is ours to write.
    pub fn generated(&self) -> Option<&Generated> {
        self.scaled_object.as_ref().map(|found| &found.generated)
    }

    /// Whose the object under the name of its PodMonitor is.
    pub fn existing_pod_monitor(&self) -> Existing {
        self.whose(self.pod_monitor.as_ref())
    }

    fn whose(&self, found: Option<&Generated>) -> Existing {
        found.map_or(Existing::Nothing, |digest| digest.existing(self.model_serving.metadata.uid.as_deref()))
    }
}
