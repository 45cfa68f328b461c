//! Plans: the desired state of every object that the operator writes for a ModelServing, and the verdict on
//! it.
//!
//! In: [`Observed`], [`Capabilities`] and the defaults. Out: a [`Plan`]. Pure and total: bad input is a
//! [`Finding`], never an error. `run`, `render` and `explain` share [`plan`]. Read
//! [`plan`] first, then [`diagnose`].

mod booster;
mod demand;
mod diagnosis;
mod engine;
mod external_status;
mod finding;
mod label_selector;
mod latency;
mod pause;
mod pod_labels;
mod pod_monitor;
mod query_length;
mod roles;
mod router;
mod scaled_object;
mod scraping;
mod service_time;
mod shadow;
mod stand_in;
#[cfg(test)]
mod tests;
mod triggers;
mod unread;
mod verdict;
mod warnings;

pub use booster::{erasable_annotations, not_opted_in};
pub use diagnosis::{Link, LinkState, diagnose};
pub use finding::Finding;
pub use label_selector::canonical_selector;
pub use pause::PauseChange;
pub use roles::{ResolvedRole, RoleChange, RolePlan, RoleStatus, RolesPlan};
pub use router::{RouterPlan, assumed_service, plan_router};
pub use shadow::scaled_by;
pub use stand_in::{
    GateChange, StandInPlan, StandInRefusal, StandInState, fingerprint as stand_in_fingerprint,
    readiness_gate,
};
pub use triggers::{ServiceTimeQueries, TriggerSpec, Triggers};
pub use verdict::{Verdict, is_load_reason};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{
        annotations::{DEFAULT_PROFILE, MODEL_NAME},
        keda::ScaledObject,
        kthena::ModelServing,
        monitoring::PodMonitor,
    },
    domain::{Capabilities, Keda, quoted},
    intent::{self, AnnotationError, Annotations, CustomSignal, Intent, Profile, ProfileUnavailable},
    observed::{Observed, OwnedObject, Ownership, Readable},
};
use verdict::VerdictInputs;

/// Desired state of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired<T> {
    /// The object exists with this content.
    Apply(T),
    /// The object stays as it is, or absent.
    Keep,
    /// The object does not exist.
    Remove,
}

impl<T: Serialize> Desired<T> {
    /// The object to apply as JSON; `None` for the other two.
    ///
    /// # Errors
    /// If the object cannot be serialized.
    pub fn object(&self) -> serde_json::Result<Option<Value>> {
        match self {
            Self::Apply(object) => serde_json::to_value(object).map(Some),
            Self::Keep | Self::Remove => Ok(None),
        }
    }
}

/// Desired state of every object that the operator writes for one ModelServing.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The ScaledObject.
    pub scaled_object: Desired<Box<ScaledObject>>,
    /// Change of the pause of a ScaledObject that otherwise stays as it is.
    pub pause: Option<PauseChange>,
    /// The PodMonitor by which Prometheus scrapes the engines.
    pub pod_monitor: Desired<Box<PodMonitor>>,
    /// The pod that holds requests at zero, and its Service.
    pub stand_in: StandInPlan,
    /// `status.labelSelector`; never removed.
    pub selector: Desired<String>,
    /// The condition `AutoscalingReady`.
    pub condition: Desired<Verdict>,
    /// Problems that keep the model from being scaled, in the order of the chain.
    pub findings: Vec<Finding>,
    /// Notices that do not keep it from being scaled.
    pub warnings: Vec<String>,
    /// Verdict and its causes; `None` if the ModelServing is not opted in.
    pub explanation: Option<Explanation>,
    /// Objects and numbers of the roles.
    pub roles: RolesPlan,
    /// The ScaledObject whose decisions are simulated and which is not applied, for a model in shadow without findings.
    pub shadow: Option<Box<ScaledObject>>,
}

impl Plan {
    /// Every object to apply, as JSON.
    ///
    /// # Errors
    /// If an object cannot be serialized.
    pub fn objects(&self) -> serde_json::Result<Vec<Value>> {
        let Self {
            scaled_object,
            pause: _,
            pod_monitor,
            // It comes and goes with the ServingGroups, so that only the operator can make it.
            stand_in: _,
            selector: _,
            condition: _,
            findings: _,
            warnings: _,
            explanation: _,
            roles,
            shadow: _,
        } = self;
        let of_roles =
            roles.roles.iter().flat_map(|role| [role.object.object(), role.scaled_object.object()]);
        let own = [pod_monitor.object(), scaled_object.object()];
        own.into_iter().chain(of_roles).filter_map(Result::transpose).collect()
    }
}

/// A verdict and its causes.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Content of the condition.
    pub verdict: Verdict,
    /// Problems that keep the applied plan from working, causes before symptoms.
    pub runtime_findings: Vec<Finding>,
    /// Error of the operator's own check of the signals.
    pub probe_error: Option<String>,
    /// Settings and triggers, if they are valid.
    pub resolved: Option<ResolvedIntent>,
}

/// Complete settings of a ModelServing and the triggers that follow from them.
#[derive(Clone, Debug)]
pub struct ResolvedIntent {
    /// Settings.
    pub intent: Intent,
    /// Queries to Prometheus; those of all roles, if roles are scaled.
    pub triggers: Triggers,
    /// Settings and queries of each role that is scaled.
    pub roles: Vec<ResolvedRole>,
}

/// Plans everything that the operator writes for one ModelServing.
///
/// 1. The label selector is planned for every ModelServing, opted in or not.
/// 2. While the annotations of the ModelBooster that controls it are not known, everything else stays as it is.
/// 3. Without `kthena.io/model-name` the ModelServing is opted out: owned objects and the condition are
///    removed.
/// 4. Otherwise annotations, profile and `defaults` are resolved to an [`Intent`], and its signals to
///    [`Triggers`]. All errors become findings; so do missing APIs, competing autoscalers and foreign objects
///    with a generated name.
/// 5. With a finding no generated object is applied, and existing objects keep their last valid state. A
///    competing autoscaler and a dry run are the exceptions: the owned ScaledObject is removed.
/// 6. A kind that could not be read is not taken as absent: one that could change the plan is a finding, one
///    that only shows conflicts keeps a ScaledObject from being created, and every other is a warning.
/// 7. The verdict combines findings, a pause, and the problems that KEDA, the HPA and Prometheus report.
pub fn plan(observed: &Observed, capabilities: Capabilities, defaults: &Profile) -> Plan {
    let selector = label_selector::desired(&observed.model_serving, capabilities);
    if let Some(unread) = booster::unread(&observed.model_serving) {
        return booster::undecided(observed, selector, capabilities, unread);
    }
    match parse_annotations(observed, defaults) {
        None => opted_out(observed, selector),
        Some(annotations) => opted_in(observed, selector, annotations, capabilities, defaults),
    }
}

fn parse_annotations(
    observed: &Observed,
    defaults: &Profile,
) -> Option<Result<Annotations, Vec<AnnotationError>>> {
    if observed.model_serving.has_oversized_annotations() && observed.model_serving.is_opted_in() {
        return Some(Err(vec![AnnotationError::TooLarge]));
    }
    let annotations = observed.model_serving.effective_annotations();
    Annotations::parse(&annotations, custom_signals(observed, defaults))
}

/// Custom signals of the effective profile; `None` if there is no valid one.
fn custom_signals<'a>(observed: &'a Observed, defaults: &'a Profile) -> Option<&'a [CustomSignal]> {
    let name = observed.model_serving.profile();
    Profile::resolve(name, observed.namespace(), observed.profile.as_ref(), defaults)
        .ok()
        .map(|profile| profile.custom_signals.as_slice())
}

fn opted_out(observed: &Observed, selector: Desired<String>) -> Plan {
    // The condition goes last, and so not before the ScaledObject is known to be removed.
    let condition = match observed.model_serving.status.conditions.index {
        Some(_) if !unread::hides_scaled_object(observed) => Desired::Remove,
        _ => Desired::Keep,
    };
    Plan {
        scaled_object: removal(observed, observed.scaled_object_digest()),
        pause: None,
        pod_monitor: removal(observed, observed.pod_monitor.as_ref()),
        stand_in: StandInPlan::remove(observed, StandInState::Off),
        selector,
        condition,
        findings: Vec::new(),
        warnings: Vec::new(),
        explanation: None,
        roles: roles::removed(observed),
        shadow: None,
    }
}

/// Notice of an annotation that has no effect, since the ModelServing is not opted in.
pub fn mistyped_opt_in(model_serving: &ModelServing) -> Option<String> {
    let key = model_serving.mistyped_opt_in()?;
    Some(format!(
        "the annotation {} has no effect without {MODEL_NAME}, so this ModelServing is not scaled; set {MODEL_NAME} to the name that clients send",
        quoted(key)
    ))
}

/// Removes an object that the ModelServing controls. A marked object without a controller stays: it came from
/// GitOps and was never adopted.
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
    let (resolved, findings) = resolve(observed, annotations, capabilities, defaults);
    let stand_in = stand_in::plan(observed, resolved.as_ref(), &findings);
    let mut warnings = match (&resolved, capabilities.keda) {
        (Some(resolved), Some(keda)) if findings.is_empty() => {
            warnings::of(observed, resolved, capabilities, keda)
        }
        _ => Vec::new(),
    };
    warnings.extend(stand_in.state.warning());
    warnings.extend(booster::erasable_annotations(observed));
    let explanation = explain(observed, resolved, capabilities, &findings, &warnings);
    let condition = verdict::condition(observed, &explanation.verdict);
    let is_shadowed = observed.model_serving.is_in_shadow();
    let (scaled_object, pod_monitor) = match (&explanation.resolved, capabilities.keda) {
        (Some(resolved), Some(_)) if is_shadowed && findings.is_empty() => (
            removal(observed, observed.scaled_object_digest()),
            pod_monitor::desired(observed, resolved, capabilities),
        ),
        // Carried out like a pause, also where other annotations are invalid.
        _ if is_shadowed => (removal(observed, observed.scaled_object_digest()), Desired::Keep),
        // Two autoscalers would revert each other's changes, so the owned ScaledObject is removed. The other
        // one is never touched.
        _ if !observed.competing_autoscalers.is_empty() => {
            (removal(observed, observed.scaled_object_digest()), Desired::Keep)
        }
        (Some(resolved), Some(keda)) if findings.is_empty() => (
            of_groups(observed, resolved, &selector, keda),
            pod_monitor::desired(observed, resolved, capabilities),
        ),
        _ => (Desired::Keep, Desired::Keep),
    };
    let is_simulated = is_shadowed && findings.is_empty();
    let roles = of_roles(observed, explanation.resolved.as_ref(), &findings, capabilities);
    Plan {
        roles,
        pause: pause::change(observed, &scaled_object, capabilities.keda).filter(|_| !is_shadowed),
        scaled_object,
        pod_monitor,
        stand_in,
        selector,
        condition,
        findings,
        warnings,
        shadow: is_simulated.then(|| shadow::object(observed, &explanation, capabilities.keda)).flatten(),
        explanation: Some(explanation),
    }
}

/// The ScaledObject of the ServingGroups, whose number stays as it is while roles are scaled.
fn of_groups(
    observed: &Observed,
    resolved: &ResolvedIntent,
    selector: &Desired<String>,
    keda: Keda,
) -> Desired<Box<ScaledObject>> {
    if resolved.intent.roles.is_some() {
        return removal(observed, observed.scaled_object_digest());
    }
    if roles::are_scaled(observed) {
        return Desired::Keep;
    }
    scaled_object(observed, resolved, selector, keda)
}

/// Objects and numbers of the roles. They stay as they are while the settings are invalid, and go where the operator may not scale
/// roles, or another autoscaler does.
fn of_roles(
    observed: &Observed,
    resolved: Option<&ResolvedIntent>,
    findings: &[Finding],
    capabilities: Capabilities,
) -> RolesPlan {
    let is_contested = !observed.competing_autoscalers.is_empty() || !observed.role_autoscalers.is_empty();
    if !observed.asks_for_roles() || !observed.may_scale_roles || is_contested {
        return roles::removed(observed);
    }
    match (resolved, capabilities.keda) {
        (Some(resolved), Some(keda)) if findings.is_empty() => match &resolved.intent.roles {
            Some(roles) => roles::applied(observed, resolved, roles, keda),
            None => roles::removed(observed),
        },
        _ => roles::kept(observed, findings, capabilities.keda),
    }
}

/// Settings and triggers, if they are valid, and all problems that keep them from being applied, in the order
/// of the chain.
fn resolve(
    observed: &Observed,
    annotations: Result<Annotations, Vec<AnnotationError>>,
    capabilities: Capabilities,
    defaults: &Profile,
) -> (Option<ResolvedIntent>, Vec<Finding>) {
    let mut findings = preconditions(observed, capabilities);
    findings.extend(unread::inputs(observed));
    let intent = match annotations {
        Ok(_) if unread::hides_profile(observed) => None,
        Ok(annotations) => {
            merge_profile(annotations, observed, defaults).map_err(|finding| findings.push(finding)).ok()
        }
        Err(errors) => {
            findings.push(Finding::invalid(&errors));
            None
        }
    };
    let resolved = intent.and_then(|intent| {
        findings.extend(unsupported(observed, capabilities, &intent));
        let triggers = match unread::routing(observed, &intent) {
            unread if unread.is_empty() => all_triggers(observed, &intent),
            unread => Err(unread),
        };
        let (triggers, roles) = triggers.map_err(|errors| findings.extend(errors)).ok()?;
        Some(ResolvedIntent { intent, triggers, roles })
    });
    findings.extend(resolved.iter().flat_map(|resolved| roles::conflicts(observed, &resolved.roles)));
    findings.extend(resolved.as_ref().and_then(|resolved| pod_monitor::conflict(observed, resolved)));
    findings.sort_by_key(|finding| finding.reason);
    (resolved, findings)
}

fn all_triggers(observed: &Observed, intent: &Intent) -> Result<(Triggers, Vec<ResolvedRole>), Vec<Finding>> {
    match &intent.roles {
        Some(roles) => roles::triggers(observed, intent, roles),
        None => triggers::triggers(observed, intent).map(|triggers| (triggers, Vec::new())),
    }
}

fn explain(
    observed: &Observed,
    resolved: Option<ResolvedIntent>,
    capabilities: Capabilities,
    findings: &[Finding],
    warnings: &[String],
) -> Explanation {
    let is_shadowed = observed.model_serving.is_in_shadow();
    let of_roles = resolved.as_ref().filter(|resolved| resolved.intent.roles.is_some());
    let mut runtime_findings = match of_roles {
        Some(resolved) => roles::runtime_findings(observed, &resolved.intent),
        None => external_status::runtime_findings(observed, is_shadowed),
    };
    let mut probe_error = None;
    if let Some(resolved) = &resolved {
        runtime_findings.splice(0..0, external_status::selector(observed, &resolved.triggers));
        let signals = external_status::signals(observed, resolved);
        runtime_findings.extend(signals.runtime_findings);
        probe_error = signals.error;
        external_status::sort_causes_first(&mut runtime_findings);
    }
    let intent = resolved.as_ref().map(|resolved| &resolved.intent);
    let verdict = verdict::verdict(
        observed,
        &VerdictInputs {
            findings,
            runtime_findings: &runtime_findings,
            warnings,
            probe_error: probe_error.as_deref(),
            waiting: observed.waiting.as_ref().filter(|_| findings.is_empty()),
            intent,
            is_shadowed,
            pause: capabilities.keda.and_then(|keda| pause::requested(observed, keda)?.0),
        },
    );
    Explanation { verdict, runtime_findings, probe_error, resolved }
}

/// Keeps the ScaledObject back while it has no selector, without which the HPA stops, and while the old one
/// is being deleted.
fn scaled_object(
    observed: &Observed,
    resolved: &ResolvedIntent,
    selector: &Desired<String>,
    keda: Keda,
) -> Desired<Box<ScaledObject>> {
    let has_selector =
        matches!(selector, Desired::Apply(_)) || observed.model_serving.label_selector().is_some();
    if !has_selector || observed.scaled_object_ownership() == Ownership::Terminating {
        return Desired::Keep;
    }
    let (model_serving, ResolvedIntent { intent, triggers, .. }) = (&observed.model_serving, resolved);
    let target = scaled_object::model_serving(model_serving);
    let built = scaled_object::build(model_serving, target, intent, triggers, keda);
    built.map_or(Desired::Keep, Desired::Apply)
}

/// Owner reference of generated objects. It does not block deletion: KEDA's finalizer on the ScaledObject
/// would otherwise hold the ModelServing while KEDA is down.
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

/// Merges annotations and profile. The built-in defaults stand in for a missing profile only under the name
/// `default`.
fn merge_profile(
    annotations: Annotations,
    observed: &Observed,
    defaults: &Profile,
) -> Result<Intent, Finding> {
    let name = annotations.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let profile = Profile::resolve(name, observed.namespace(), observed.profile.as_ref(), defaults).map_err(
        |problem| match problem {
            ProfileUnavailable::NotAllowed => Finding::profile_not_allowed(name, observed.namespace()),
            ProfileUnavailable::NotFound => Finding::profile_not_found(name),
            ProfileUnavailable::Unusable(errors) => Finding::profile_invalid(name, errors),
        },
    )?;
    let profile = profile.clone().with_flag_defaults(defaults);
    intent::merge(annotations, &profile).map_err(|error| Finding::invalid(&[error]))
}

/// Other autoscalers and foreign objects that a ScaledObject would conflict with.
fn conflicts(observed: &Observed) -> impl Iterator<Item = Finding> {
    let competing = &observed.competing_autoscalers;
    let competing = (!competing.is_empty()).then(|| Finding::conflicting(competing));
    let name = observed.model_serving.scaled_object_name();
    let ownership = Finding::ownership::<ScaledObject>(observed.scaled_object_ownership(), &name);
    competing.into_iter().chain(ownership)
}

/// Problems that keep any ScaledObject from being applied, independent of the settings.
fn preconditions(observed: &Observed, capabilities: Capabilities) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !observed.model_serving.is_in_shadow() {
        findings.extend(conflicts(observed));
    }
    // Without ScaledObjects in discovery nothing is known of KEDA's fields either.
    if capabilities.keda.is_none() && observed.readable.scaled_objects != Readable::NotYet {
        findings.push(Finding::keda_not_installed());
    }
    if !capabilities.scale {
        findings.push(Finding::scale_subresource_missing());
    }
    findings
}

/// Bounds of the built-in defaults that would remove running ServingGroups or wake the model, where the bounds
/// that are applied now do not: the profile named `default` was deleted, which is not meant to change the fleet.
fn bounds_without_default(observed: &Observed, intent: &Intent) -> Option<Finding> {
    if observed.profile.is_some() || observed.model_serving.profile() != DEFAULT_PROFILE {
        return None;
    }
    let (applied_min, applied_max) = observed.scaled_object.as_ref()?.bounds?;
    let (min, max) = (intent.replicas.min(), intent.replicas.max());
    let current = observed.model_serving.replicas();
    if !intent.max_is_explicit && current > max && applied_max > max {
        return Some(Finding::default_would_remove_groups(max));
    }
    let wakes = !intent.min_is_explicit && current == 0 && min > 0 && applied_min == 0;
    wakes.then(|| Finding::default_would_wake(min))
}

/// Settings that are valid but not possible in this cluster.
fn unsupported(observed: &Observed, capabilities: Capabilities, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(roles) = &intent.roles {
        findings.extend(roles::findings(observed, capabilities, roles));
    } else {
        findings.extend(unsupported_bounds(observed, intent));
    }
    if intent.profile.prometheus.is_none() {
        findings.push(Finding::prometheus_not_configured());
    }
    if let Some(keda) = capabilities.keda {
        findings.extend(scaled_object::unsupported_by_keda(keda, intent));
    }
    findings
}

/// Bounds that would remove running ServingGroups, or wake the model.
fn unsupported_bounds(observed: &Observed, intent: &Intent) -> Vec<Finding> {
    let mut findings = Vec::new();
    let current = observed.model_serving.replicas();
    let is_opting_in = observed.scaled_object_ownership() == Ownership::Absent
        && observed.readable.scaled_objects == Readable::Yes;
    if is_opting_in && !intent.shadow && current > intent.replicas.max() && !intent.max_is_explicit {
        findings.push(Finding::would_remove_running_groups(current, intent.replicas.max()));
    }
    findings.extend(bounds_without_default(observed, intent));
    findings
}
