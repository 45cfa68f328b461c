//! Validated settings of the process, whatever they came from.

use std::time::Duration;

use crate::{cache::Scope, prometheus::ClientConfig, runtime::lease::Candidate, telemetry::server::Listen};
use kthena_keda_core::{domain::LabelSelector, intent::Profile};

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
    pub prometheus_client: ClientConfig,
    /// Whether to write the condition on ModelServings.
    pub write_conditions: bool,
    /// Where metrics and probes are served.
    pub listen: Listen,
    /// How it is decided who of several instances writes; without, this one does.
    pub election: Option<Candidate>,
    /// Which part of the work is this instance's.
    pub shard: Shard,
}

/// The part of the work that is one instance's, where several share it.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Which ModelServings, by their labels; without, all of them.
    pub selector: Option<LabelSelector>,
    /// The namespaces whose ModelServings these are; none named means all.
    pub namespaces: Vec<String>,
    /// Whether this is the instance that does what is to be done once for all models.
    pub cluster_duties: bool,
}

impl Shard {
    /// What is watched of kinds that belong to ModelServings.
    pub fn scopes(&self) -> Vec<Scope> {
        if self.namespaces.is_empty() {
            vec![None]
        } else {
            self.namespaces.iter().cloned().map(Some).collect()
        }
    }

    /// Whether there are ModelServings that are not this instance's.
    fn is_partial(&self) -> bool {
        self.selector.is_some() || !self.namespaces.is_empty()
    }

    /// What is watched of monitors, which may stand beside the router, too.
    pub fn scopes_with(&self, namespace: &str) -> Vec<Scope> {
        let router = self.scopes().iter().all(Option::is_some).then(|| Some(namespace.to_owned()));
        self.scopes().into_iter().chain(router).collect()
    }

    /// What is watched only to know how many models there are in all; nothing where that is known anyhow, or is not this instance's to know.
    pub fn cluster_opt_ins(&self) -> Vec<Scope> {
        if self.cluster_duties && self.is_partial() { vec![None] } else { Vec::new() }
    }
}
