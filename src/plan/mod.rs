//! The heart: what is there and what was asked for become what should be there.
//!
//! In: [`Observed`], [`Capabilities`] and the defaults. Out: a [`Plan`]. Pure and total: bad input is a [`Finding`], never an error.
//! `run` and `render` share it, so they cannot disagree.

mod companion;
mod finding;
mod name;
mod router;
mod scaled_object;
mod verdict;

pub use companion::canonical_selector;
pub use finding::{Finding, Reason};
pub use name::scaled_object_name;
pub use router::{RouterPlan, SERVICE_MONITOR, assumed_service, plan_router};
pub use verdict::{Status, Verdict};

use crate::{
    api::keda::ScaledObject,
    intent::{self, AnnotationError, Annotations, DEFAULT_PROFILE, Intent, Profile},
    observed::{Existing, Observed},
};

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
    /// Its condition.
    pub condition: Desired<Verdict>,
    /// What keeps it from being scaled, the most important first.
    pub findings: Vec<Finding>,
}

/// Plans everything about one ModelServing.
pub fn plan(observed: &Observed, capabilities: Capabilities, defaults: &Profile) -> Plan {
    let selector = companion::selector(&observed.model_serving, capabilities);
    let annotations = observed.model_serving.metadata.annotations.clone().unwrap_or_default();
    match Annotations::read(&annotations) {
        None => opted_out(observed, selector),
        Some(annotations) => opted_in(observed, selector, annotations, capabilities, defaults),
    }
}

fn opted_out(observed: &Observed, selector: Desired<String>) -> Plan {
    // What came through GitOps and was never adopted belongs to whoever put it there.
    let uid = observed.model_serving.metadata.uid.as_deref();
    let controls = observed.scaled_object.as_ref().is_some_and(|found| found.is_controlled_by(uid));
    let scaled_object = match observed.existing() {
        Existing::Ours if controls => Desired::Remove,
        Existing::Ours | Existing::Nothing | Existing::Leaving | Existing::Foreign => Desired::Keep,
    };
    let condition = match observed.model_serving.status.autoscaling_ready {
        Some(_) => Desired::Remove,
        None => Desired::Keep,
    };
    Plan { scaled_object, selector, condition, findings: Vec::new() }
}

fn opted_in(
    observed: &Observed,
    selector: Desired<String>,
    annotations: Result<Annotations, Vec<AnnotationError>>,
    capabilities: Capabilities,
    defaults: &Profile,
) -> Plan {
    let asked = annotations.map_err(|errors| Finding::invalid(&errors)).and_then(|annotations| asked_for(annotations, observed, defaults));
    let mut findings = cluster_lacks(observed, capabilities);
    let intent = asked.map_err(|finding| findings.push(finding)).ok();
    if let Some(intent) = &intent {
        findings.extend(unfit(observed, capabilities, intent));
    }
    findings.sort_by_key(|finding| finding.reason);
    let scaled_object = match (&intent, capabilities.keda) {
        (Some(intent), Some(keda)) if findings.is_empty() && may_apply(observed, &selector) => {
            scaled_object::build(observed, intent, keda).map_or(Desired::Keep, Desired::Apply)
        }
        _ => Desired::Keep,
    };
    let condition = verdict::condition(observed, &findings);
    Plan { scaled_object, selector, condition, findings }
}

/// The HPA stops without a selector, and what is being deleted cannot be brought back.
fn may_apply(observed: &Observed, selector: &Desired<String>) -> bool {
    let selected = matches!(selector, Desired::Apply(_)) || observed.model_serving.label_selector().is_some();
    selected && observed.existing() != Existing::Leaving
}

/// Without a profile of that name the built-in defaults apply, unless it was asked for.
fn asked_for(annotations: Annotations, observed: &Observed, defaults: &Profile) -> Result<Intent, Finding> {
    let name = annotations.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile = match &observed.profile {
        Some(Ok(profile)) => profile.clone().or(defaults),
        Some(Err(errors)) => return Err(Finding::profile_unusable(name, errors)),
        None if name == DEFAULT_PROFILE => defaults.clone(),
        None => return Err(Finding::profile_not_found(name)),
    };
    intent::merge(annotations, &profile).map_err(|error| Finding::invalid(&[error]))
}

/// What keeps any ScaledObject from being applied here, whatever was asked for.
fn cluster_lacks(observed: &Observed, capabilities: Capabilities) -> Vec<Finding> {
    let mut findings = Vec::new();
    if observed.existing() == Existing::Foreign {
        findings.push(Finding::name_conflict(&scaled_object_name(&observed.model_serving)));
    }
    if capabilities.keda.is_none() {
        findings.push(Finding::keda_not_installed());
    }
    if !capabilities.scale {
        findings.push(Finding::scale_subresource_missing());
    }
    findings
}

/// Whatever is valid in itself but cannot be had here.
fn unfit(observed: &Observed, capabilities: Capabilities, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    let current = observed.model_serving.replicas();
    let opting_in = observed.existing() == Existing::Nothing;
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
