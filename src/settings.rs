//! Validated settings of the process.

use std::time::Duration;

use crate::{cache::Scope, prometheus::ClientConfig, runtime::lease::Candidate, telemetry::server::Listen};
use kthena_keda_core::{domain::LabelSelector, intent::Profile};

/// Settings that `run` and `render` share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Settings of every ModelServing whose annotations and profile leave them open.
    pub defaults: Profile,
    /// Namespace of kthena-router.
    pub router_namespace: String,
    /// Scale roles, for which the operator changes their numbers in ModelServings.
    pub scale_roles: bool,
}

/// Settings of `run`.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// Interval of discovery while an API is missing.
    pub discovery: Duration,
    /// Interval of the signal probe.
    pub probe_interval: Duration,
    /// Credentials of the operator's own Prometheus queries.
    pub prometheus_client: ClientConfig,
    /// Write the condition on ModelServings.
    pub write_conditions: bool,
    /// Address of metrics and probes.
    pub listen: Listen,
    /// Export numbers and loading times of each model.
    pub model_metrics: bool,
    /// Leader election; without it this instance always leads.
    pub election: Option<Candidate>,
    /// The ModelServings of this instance.
    pub shard: Shard,
    /// Dry runs.
    pub shadow: ShadowSettings,
}

/// Settings of dry runs.
#[derive(Clone, Copy, Debug)]
pub struct ShadowSettings {
    /// Models that are observed at most.
    pub max: usize,
    /// Period of the HPA controller of the cluster.
    pub hpa_sync_period: Duration,
}

/// The ModelServings and duties of one instance, where several share the work.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Label selector of the ModelServings; all of them without it.
    pub selector: Option<LabelSelector>,
    /// Namespaces of the ModelServings; empty for all.
    pub namespaces: Vec<String>,
    /// This instance writes the objects that exist once for all models.
    pub cluster_duties: bool,
    /// Image of the stand-in pods that this instance makes; without it, it makes none.
    pub stand_in_image: Option<String>,
}

impl Shard {
    /// The watches of kinds that belong to ModelServings.
    pub fn scopes(&self) -> Vec<Scope> {
        if self.namespaces.is_empty() {
            return vec![None];
        }
        self.namespaces.iter().cloned().map(Some).collect()
    }

    /// `true` if there are ModelServings of other instances.
    fn is_partial(&self) -> bool {
        self.selector.is_some() || !self.namespaces.is_empty()
    }

    /// The watches of monitors, which may be in the router's namespace, too.
    pub fn scopes_with(&self, router_namespace: &str) -> Vec<Scope> {
        let mut scopes = self.scopes();
        if scopes.iter().all(Option::is_some) {
            scopes.push(Some(router_namespace.to_owned()));
        }
        scopes
    }

    /// The watches of ModelBoosters, whose annotations count for ModelServings: all of them where this instance counts the opted-in
    /// models of the whole cluster.
    pub fn booster_scopes(&self) -> Vec<Scope> {
        if self.cluster_duties { vec![None] } else { self.scopes() }
    }

    /// The watches of stand-ins and their Services; none where this instance makes none.
    pub fn stand_in_scopes(&self) -> Vec<Scope> {
        if self.stand_in_image.is_some() { self.scopes() } else { Vec::new() }
    }

    /// The watch that counts the opted-in models of the whole cluster; none where this instance has all models, or no cluster duties.
    pub fn cluster_opt_ins(&self) -> Vec<Scope> {
        if self.cluster_duties && self.is_partial() { vec![None] } else { Vec::new() }
    }
}
