//! Sources of [`Observed`](kthena_keda_core::observed::Observed): the watches of `run`, one read of the cluster, or manifests.

mod caches;
pub mod index_keys;
pub mod kinds;
pub mod live;
mod loading_times;
mod manifests;
mod model_digest;
mod observe;
mod pod_check;
mod pod_pages;
mod probe_cache;
mod related;
mod reported;
mod selector_check;
mod shadow_cache;
mod stand_in_check;

pub use caches::Caches;
pub use loading_times::LoadingTimes;
pub use manifests::Manifests;
pub use model_digest::{ModelServingDigest, OptIn};
pub use pod_check::waiting_pods;
pub use pod_pages::pod_metadata;
pub use probe_cache::{ProbeCache, SelectorMismatches, WaitingModels};
pub use reported::{LastReported, LastReports};
pub use selector_check::selector_mismatch;
pub use shadow_cache::ShadowCache;
pub use stand_in_check::stand_in;
