//! The heart: what is there and what was asked for become what should be there.
//!
//! In: [`Observed`], [`Capabilities`] and the defaults. Out: a [`Plan`]. Pure and total: bad input is a [`Finding`], never an error.
//! `run` and `render` share it, so they cannot disagree.

mod companion;
mod finding;
mod name;
mod scaled_object;

pub use companion::canonical_selector;
pub use finding::{Finding, Reason};
pub use name::scaled_object_name;

use crate::{
    api::{keda::ScaledObject, kthena::ModelServing},
    intent::{self, Annotations, Intent, Profile},
    signals::RouterSeries,
};

/// What there is of one ModelServing.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ModelServing itself.
    pub model_serving: ModelServing,
    /// What stands under the name of its ScaledObject.
    pub scaled_object: Existing,
    /// How the router's series are found.
    pub router: RouterSeries,
}

/// What stands under a name that we would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// An object that we made, or may adopt.
    Ours,
    /// An object of somebody else.
    Foreign,
}

/// What the cluster's API can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What the installed KEDA knows; `None` without KEDA.
    pub keda: Option<Keda>,
    /// Whether ModelServings have the scale subresource (Kthena 0.3 or later).
    pub scale: bool,
}

/// What the installed KEDA knows, by the fields of its ScaledObject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keda {
    /// `initialCooldownPeriod`, since 2.14.
    pub initial_cooldown: bool,
    /// The annotations `paused-scale-in` and `paused-scale-out`, since 2.18.
    pub directional_pause: bool,
}

impl Capabilities {
    /// Everything that a current cluster has.
    pub const NEWEST: Self = Self { keda: Some(Keda { initial_cooldown: true, directional_pause: true }), scale: true };
}

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired<T> {
    /// It should look like this.
    Apply(T),
    /// It stays as it is, or absent.
    Keep,
    /// It should not exist.
    Remove,
}

/// Everything that is to be done about one ModelServing.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its ScaledObject.
    pub scaled_object: Desired<Box<ScaledObject>>,
    /// Its `status.labelSelector`; never removed.
    pub selector: Desired<String>,
    /// What keeps it from being scaled, the most important first.
    pub findings: Vec<Finding>,
    /// Whether it is opted in, and so gets a condition.
    pub opted_in: bool,
}

/// Plans everything about one ModelServing.
pub fn plan(observed: &Observed, capabilities: Capabilities, defaults: &Profile) -> Plan {
    let selector = companion::selector(&observed.model_serving, capabilities);
    let annotations = observed.model_serving.metadata.annotations.clone().unwrap_or_default();
    let Some(annotations) = Annotations::read(&annotations) else {
        let scaled_object = match observed.scaled_object {
            Existing::Ours => Desired::Remove,
            Existing::Nothing | Existing::Foreign => Desired::Keep,
        };
        return Plan { scaled_object, selector, findings: Vec::new(), opted_in: false };
    };
    let planned = annotations.map_err(|errors| Finding::invalid(&errors)).and_then(|annotations| asked_for(annotations, defaults));
    let (intent, mut findings) = match planned {
        Ok(intent) => (Some(intent), Vec::new()),
        Err(finding) => (None, vec![finding]),
    };
    findings.extend(obstacles(observed, capabilities, intent.as_ref()));
    let scaled_object = match (&intent, capabilities.keda) {
        (Some(intent), Some(keda)) if findings.is_empty() => {
            scaled_object::build(observed, intent, keda).map_or(Desired::Keep, Desired::Apply)
        }
        _ => Desired::Keep,
    };
    findings.sort_by_key(|finding| finding.reason);
    Plan { scaled_object, selector, findings, opted_in: true }
}

fn asked_for(annotations: Annotations, defaults: &Profile) -> Result<Intent, Finding> {
    match &annotations.profile {
        Some(name) if name != "default" => Err(Finding::profile_not_found(name)),
        _ => intent::merge(annotations, defaults).map_err(|error| Finding::invalid(&[error])),
    }
}

/// Whatever keeps a ScaledObject from being applied, besides bad annotations.
fn obstacles(observed: &Observed, capabilities: Capabilities, intent: Option<&Intent>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if observed.scaled_object == Existing::Foreign {
        findings.push(Finding::name_conflict(&scaled_object_name(&observed.model_serving)));
    }
    if capabilities.keda.is_none() {
        findings.push(Finding::keda_not_installed());
    }
    if !capabilities.scale {
        findings.push(Finding::scale_subresource_missing());
    }
    if let Some(intent) = intent {
        findings.extend(unfit(observed, capabilities, intent));
    }
    findings
}

/// Whatever is valid in itself but cannot be had here.
fn unfit(observed: &Observed, capabilities: Capabilities, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    let current = observed.model_serving.replicas();
    let opting_in = observed.scaled_object == Existing::Nothing;
    if opting_in && current > intent.replicas.max() && !intent.max_is_explicit {
        findings.push(Finding::would_cut_running_fleet(current, intent.replicas.max()));
    }
    if intent.profile.prometheus.is_none() {
        findings.push(Finding::prometheus_not_configured());
    }
    if let Some(keda) = capabilities.keda {
        findings.extend(scaled_object::beyond(keda, intent));
    }
    findings
}
