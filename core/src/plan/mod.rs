//! The heart: what is there and what was asked for become what should be there.
//!
//! In: [`Observed`], [`Capabilities`] and the defaults. Out: a [`Plan`]. Pure and total: bad input is a [`Finding`], never an error.
//! `run` and `render` share it, so they cannot disagree.

mod demand;
mod diagnosis;
mod engine;
mod external_status;
mod finding;
mod label_selector;
mod pod_monitor;
mod router;
mod scaled_object;
mod triggers;
mod verdict;

pub use diagnosis::{Link, LinkState, diagnose};
pub use finding::Finding;
pub use label_selector::canonical_selector;
pub use router::{RouterPlan, assumed_service, plan_router};
pub use verdict::{Verdict, is_load_reason, stable_part};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::domain::{Capabilities, Keda};
use crate::{
    api::{
        annotations::DEFAULT_PROFILE,
        keda::{MetricType, ScaledObject},
        kthena::ModelServing,
        monitoring::PodMonitor,
    },
    intent::{self, AnnotationError, Annotations, CustomSignal, Intent, Profile, ProfileUnavailable},
    observed::{Observed, OwnedObject, Ownership},
};
pub use triggers::{TriggerSpec, Triggers};
use verdict::{HELP, VerdictInputs};

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
    /// The PodMonitor that has its engines scraped.
    pub pod_monitor: Desired<Box<PodMonitor>>,
    /// Its `status.labelSelector`; never removed.
    pub selector: Desired<String>,
    /// Its condition.
    pub condition: Desired<Verdict>,
    /// What keeps it from being scaled, the most important first.
    pub findings: Vec<Finding>,
    /// What is worth knowing although it does not.
    pub warnings: Vec<String>,
    /// How the condition came about; none without autoscaling.
    pub explanation: Option<Explanation>,
}

/// How a condition came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What it says.
    pub verdict: Verdict,
    /// What keeps what is applied from working, the most important first.
    pub troubles: Vec<Finding>,
    /// Why the signals could not be looked at.
    pub check: Option<String>,
    /// What was asked for, and what is measured for it, where that is valid.
    pub resolved: Option<ResolvedIntent>,
}

/// What was asked for, and what is measured for it.
#[derive(Clone, Debug)]
pub struct ResolvedIntent {
    /// The complete settings.
    pub intent: Intent,
    /// The questions to Prometheus.
    pub triggers: Triggers,
}

/// Plans everything about one ModelServing.
pub fn plan(observed: &Observed, capabilities: Capabilities, defaults: &Profile) -> Plan {
    let selector = label_selector::desired(&observed.model_serving, capabilities);
    let annotations = observed.model_serving.annotations.iter().cloned().collect();
    match Annotations::read(&annotations, custom_signals(observed, defaults)) {
        None => opted_out(observed, selector),
        Some(annotations) => opted_in(observed, selector, annotations, capabilities, defaults),
    }
}

/// The signals of the profile that counts; unknown where that cannot be had.
fn custom_signals<'a>(observed: &'a Observed, defaults: &'a Profile) -> Option<&'a [CustomSignal]> {
    let name = observed.model_serving.profile();
    Profile::resolve(name, observed.profile.as_ref(), defaults)
        .ok()
        .map(|profile| profile.custom_signals.as_slice())
}

fn opted_out(observed: &Observed, selector: Desired<String>) -> Plan {
    let condition = match observed.model_serving.status.conditions.place {
        Some(_) => Desired::Remove,
        None => Desired::Keep,
    };
    Plan {
        scaled_object: removal(observed, observed.owned_scaled_object()),
        pod_monitor: removal(observed, observed.pod_monitor.as_ref()),
        selector,
        condition,
        findings: Vec::new(),
        warnings: Vec::new(),
        explanation: None,
    }
}

/// What came through GitOps and was never adopted belongs to whoever put it there.
fn removal<T>(observed: &Observed, found: Option<&OwnedObject>) -> Desired<T> {
    let uid = observed.model_serving.metadata.uid.as_deref();
    match found {
        Some(found) if found.ownership(uid) == Ownership::Owned && found.is_controlled_by(uid) => {
            Desired::Remove
        }
        _ => Desired::Keep,
    }
}

fn opted_in(
    observed: &Observed,
    selector: Desired<String>,
    annotations: Result<Annotations, Vec<AnnotationError>>,
    capabilities: Capabilities,
    defaults: &Profile,
) -> Plan {
    let (resolved, findings) = decide(observed, annotations, capabilities, defaults);
    let warnings = match (&resolved, capabilities.keda) {
        (Some(resolved), Some(keda)) if findings.is_empty() => {
            warnings(observed, resolved, capabilities, keda)
        }
        _ => Vec::new(),
    };
    let explanation = explain(observed, resolved, &findings, &warnings);
    let condition = verdict::condition(observed, &explanation.verdict);
    let (scaled_object, pod_monitor) = match (&explanation.resolved, capabilities.keda) {
        // Two autoscalers would undo each other's work: ours steps back, and theirs is never touched.
        _ if !observed.competing_autoscalers.is_empty() => {
            (removal(observed, observed.owned_scaled_object()), Desired::Keep)
        }
        (Some(resolved), Some(keda)) if findings.is_empty() => (
            scaled_object(observed, resolved, &selector, keda),
            pod_monitor::desired(observed, resolved, capabilities),
        ),
        _ => (Desired::Keep, Desired::Keep),
    };
    Plan {
        scaled_object,
        pod_monitor,
        selector,
        condition,
        findings,
        warnings,
        explanation: Some(explanation),
    }
}

/// What was asked for, where that is valid, and everything that keeps it from being applied, the most important first.
fn decide(
    observed: &Observed,
    annotations: Result<Annotations, Vec<AnnotationError>>,
    capabilities: Capabilities,
    defaults: &Profile,
) -> (Option<ResolvedIntent>, Vec<Finding>) {
    let mut findings = missing_apis(observed, capabilities);
    let intent = annotations
        .map_err(|errors| Finding::invalid(&errors))
        .and_then(|annotations| asked_for(annotations, observed, defaults));
    let resolved = match intent {
        Ok(intent) => {
            findings.extend(unsupported(observed, capabilities, &intent));
            let triggers = triggers::triggers(observed, &intent).map_err(|found| findings.extend(found)).ok();
            triggers.map(|triggers| ResolvedIntent { intent, triggers })
        }
        Err(finding) => {
            findings.push(finding);
            None
        }
    };
    findings.extend(resolved.as_ref().and_then(|resolved| pod_monitor::conflict(observed, resolved)));
    findings.sort_by_key(|finding| finding.reason);
    (resolved, findings)
}

fn explain(
    observed: &Observed,
    resolved: Option<ResolvedIntent>,
    findings: &[Finding],
    warnings: &[String],
) -> Explanation {
    let mut troubles = external_status::troubles(observed);
    let mut check = None;
    if let Some(resolved) = &resolved {
        troubles.splice(0..0, external_status::selector(observed, &resolved.triggers));
        let looked = external_status::signals(observed, resolved);
        troubles.extend(looked.troubles);
        check = looked.check;
        external_status::sort_causes_first(&mut troubles);
    }
    let intent = resolved.as_ref().map(|resolved| &resolved.intent);
    let verdict = verdict::verdict(
        observed,
        &VerdictInputs { findings, troubles: &troubles, warnings, check: check.as_deref(), intent },
    );
    Explanation { verdict, troubles, check, resolved }
}

/// The HPA stops without a selector, and what is being deleted cannot be brought back.
fn scaled_object(
    observed: &Observed,
    resolved: &ResolvedIntent,
    selector: &Desired<String>,
    keda: Keda,
) -> Desired<Box<ScaledObject>> {
    let is_selected =
        matches!(selector, Desired::Apply(_)) || observed.model_serving.label_selector().is_some();
    if !is_selected || observed.ownership() == Ownership::Terminating {
        return Desired::Keep;
    }
    let built =
        scaled_object::build(&observed.model_serving, &resolved.intent, &resolved.triggers.triggers, keda);
    built.map_or(Desired::Keep, Desired::Apply)
}

/// Controls what is generated. It does not block deletion: KEDA's finalizer would otherwise hold up the ModelServing while KEDA is away.
fn owner(model_serving: &ModelServing) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: ModelServing::API_VERSION.to_owned(),
        kind: ModelServing::KIND.to_owned(),
        name: model_serving.metadata.name.clone()?,
        uid: model_serving.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: Some(false),
    })
}

fn warnings(
    observed: &Observed,
    resolved: &ResolvedIntent,
    capabilities: Capabilities,
    keda: Keda,
) -> Vec<String> {
    let ResolvedIntent { intent, triggers } = resolved;
    let mut warnings: Vec<String> = scaled_object::ignored_by_keda(keda, intent).into_iter().collect();
    if pod_monitor::is_needed(resolved) && !capabilities.pod_monitors {
        warnings.push(
            "the cluster does not serve PodMonitors, so the engines are not scraped by us; install the Prometheus Operator".to_owned(),
        );
    }
    warnings.extend(observed.second_writer.iter().map(|manager| {
        format!("{manager} set spec.replicas after autoscaling began, which undoes it; have {manager} leave that field alone, see {HELP}#somebody-resets-the-number-of-servinggroups")
    }));
    warnings.extend(external_status::harmless_mismatch(observed, triggers));
    let levels = triggers.triggers.iter().filter(|trigger| trigger.metric_type == MetricType::Value);
    warnings.extend(levels.map(|trigger| {
        format!(
            "{} is a Value: while no ServingGroup is ready the HPA takes it for 0 and scales to the minimum",
            trigger.name
        )
    }));
    warnings
}

/// Without a profile of that name the built-in defaults apply, unless it was asked for.
fn asked_for(annotations: Annotations, observed: &Observed, defaults: &Profile) -> Result<Intent, Finding> {
    let name = annotations.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile =
        Profile::resolve(name, observed.profile.as_ref(), defaults).map_err(|problem| match problem {
            ProfileUnavailable::NotFound => Finding::profile_not_found(name),
            ProfileUnavailable::Unusable(errors) => Finding::profile_unusable(name, errors),
        })?;
    let profile = profile.clone().with_fallback(defaults);
    intent::merge(annotations, &profile).map_err(|error| Finding::invalid(&[error]))
}

/// What keeps any ScaledObject from being applied here, whatever was asked for.
fn missing_apis(observed: &Observed, capabilities: Capabilities) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !observed.competing_autoscalers.is_empty() {
        findings.push(Finding::conflicting(&observed.competing_autoscalers));
    }
    if observed.ownership() == Ownership::Foreign {
        findings.push(Finding::name_conflict::<ScaledObject>(&observed.model_serving.scaled_object_name()));
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
fn unsupported(observed: &Observed, capabilities: Capabilities, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    let current = observed.model_serving.replicas();
    let opting_in = observed.ownership() == Ownership::Absent;
    if opting_in && current > intent.replicas.max() && !intent.max_is_explicit {
        findings.push(Finding::would_cut_running_fleet(current, intent.replicas.max()));
    }
    if intent.profile.prometheus.is_none() {
        findings.push(Finding::prometheus_not_configured());
    }
    if let Some(keda) = capabilities.keda {
        findings.extend(scaled_object::unsupported_by_keda(keda, intent));
    }
    findings
}
