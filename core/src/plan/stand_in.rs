//! The stand-in of a model at zero: a pod that the router takes for an engine, and that holds the requests until a
//! ServingGroup is ready; and the Service by which it finds the engines.
//!
//! The pod carries the labels that the ModelServers select, so that the router sends it requests (Kthena
//! `pkg/kthena-router/controller/modelserver_controller.go`), and none by which Kthena's controllers or the HPA find pods.

mod pod;
mod refusal;

pub use pod::readiness_gate;
pub use refusal::StandInRefusal;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::Value;

use super::{Desired, Finding, ResolvedIntent, removal, verdict};
use crate::{
    api::kthena::{ModelServing, Role},
    domain::{Hold, Pause},
    intent::Intent,
    observed::{Fingerprint, Observed, Ownership, Readable, Server, StandInDigest},
};

/// Kthena's labels of pods (`pkg/apis/workload/v1alpha1/labels.go`).
const KTHENA: &str = "modelserving.volcano.sh/";
const NAME: &str = "modelserving.volcano.sh/name";
const ENTRY: &str = "modelserving.volcano.sh/entry";
const ROLE: &str = "modelserving.volcano.sh/role";

/// Desired state of the stand-in of a model.
#[derive(Clone, Debug)]
pub struct StandInPlan {
    /// The pod.
    pub pod: Desired<Box<Pod>>,
    /// The headless Service of the engines.
    pub service: Desired<Box<Service>>,
    /// Change of the readiness gate of the pod, which may be one that is yet to be created: its watch may show nothing
    /// after the creation, so no later plan would open the gate.
    pub gate: Option<GateChange>,
    /// State, for reports.
    pub state: StandInState,
}

/// Change of the readiness gate of a stand-in: `true` opens it, so that the router sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateChange(pub bool);

/// State of the stand-in of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandInState {
    /// The settings ask for none.
    Off,
    /// The settings ask for one, and it is not made.
    Refused(StandInRefusal),
    /// It stays as it is, because a kind that it depends on could not be read, with the reason.
    Kept(String),
    /// No ServingGroup is ready, so it takes requests, or will do so once it is ready.
    Holds,
    /// ServingGroups serve the requests.
    Idle,
}

impl StandInPlan {
    /// The objects to apply, as JSON.
    ///
    /// # Errors
    /// If an object cannot be serialized.
    pub fn objects(&self) -> serde_json::Result<Vec<Value>> {
        [self.service.object(), self.pod.object()].into_iter().filter_map(Result::transpose).collect()
    }

    /// Leaves everything as it is.
    pub(super) fn keep(state: StandInState) -> Self {
        Self { pod: Desired::Keep, service: Desired::Keep, gate: None, state }
    }

    /// Removes the pod, and the Service once the pod has ended: until then it may hand requests over.
    pub(super) fn remove(observed: &Observed, state: StandInState) -> Self {
        let (pod, service) = (&observed.stand_in.pod, &observed.stand_in.service);
        Self {
            pod: removal(observed, pod.as_ref().map(|found| &found.owned)),
            service: if pod.is_some() { Desired::Keep } else { removal(observed, service.as_ref()) },
            gate: None,
            state,
        }
    }
}

impl StandInState {
    /// Notice for the condition.
    pub(super) fn warning(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.warning(),
            Self::Kept(reason) => Some(reason.clone()),
            Self::Off | Self::Holds | Self::Idle => None,
        }
    }
}

/// Plans the stand-in of an opted-in model. `findings` keep the ScaledObject from being applied: without one that wakes
/// the model, requests would be held in vain.
pub(super) fn plan(
    observed: &Observed,
    resolved: Option<&ResolvedIntent>,
    findings: &[Finding],
) -> StandInPlan {
    let refuse = |refusal| StandInPlan::remove(observed, StandInState::Refused(refusal));
    let Some(resolved) = resolved else { return unresolved(observed, findings) };
    let Some(hold) = wanted(&resolved.intent) else {
        return StandInPlan::remove(observed, StandInState::Off);
    };
    if observed.model_serving.is_in_shadow() {
        return refuse(StandInRefusal::Shadow);
    }
    if let Some(finding) = findings.iter().find(|finding| !finding.reason.is_unknown()) {
        return refuse(StandInRefusal::NotScaled(finding.reason));
    }
    if !findings.is_empty() {
        return kept(observed, StandInState::Off);
    }
    if resolved.intent.roles.is_some() {
        return refuse(StandInRefusal::ScalesRoles);
    }
    if is_paused(observed, &resolved.intent) {
        return refuse(StandInRefusal::Paused);
    }
    let Some(image) = observed.stand_in.image.as_deref() else {
        return refuse(StandInRefusal::NotEnabled);
    };
    if let Some(unread) = unread(observed) {
        return kept(observed, StandInState::Kept(unread));
    }
    let endpoint = match Endpoint::of(observed) {
        Ok(endpoint) => endpoint,
        Err(refusal) => return refuse(refusal),
    };
    if let Some(conflict) = name_conflict(observed) {
        return kept(observed, StandInState::Refused(conflict));
    }
    let content = pod::Content { model_serving: &observed.model_serving, endpoint: &endpoint, hold, image };
    desired(observed, &content)
}

/// The settings are invalid or not known, and so it is not known either whether they ask for a stand-in.
fn unresolved(observed: &Observed, findings: &[Finding]) -> StandInPlan {
    match findings.first() {
        _ if findings.iter().any(|finding| finding.reason.is_unknown()) => kept(observed, StandInState::Off),
        Some(finding) if observed.stand_in.pod.is_some() => {
            let refusal = StandInRefusal::NotScaled(finding.reason);
            StandInPlan::remove(observed, StandInState::Refused(refusal))
        }
        _ => StandInPlan::remove(observed, StandInState::Off),
    }
}

/// The limits of held requests, if the settings ask for it and the model may be at zero.
fn wanted(intent: &Intent) -> Option<Hold> {
    // While roles are scaled, no bounds of the ServingGroups are in force, and the profile shows that zero was meant.
    let bounds = if intent.roles.is_some() { intent.profile.replicas } else { intent.replicas };
    intent.profile.hold.filter(|_| bounds.min() == 0)
}

/// `true` if nothing wakes the model.
fn is_paused(observed: &Observed, intent: &Intent) -> bool {
    intent.pause == Some(Pause::ScaleOut) || verdict::pause(observed, Some(intent)).is_some()
}

fn unread(observed: &Observed) -> Option<String> {
    let effect = "the stand-in pod that holds requests at zero stays as it is";
    let readable = &observed.readable;
    let servers = readable.unread_servers().filter(|_| readable.servers != Readable::Yes);
    readable.unread_stand_ins().or(servers).map(|unread| unread.message(effect))
}

fn name_conflict(observed: &Observed) -> Option<StandInRefusal> {
    let is_foreign = |ownership| ownership == Ownership::Foreign;
    let kind = if is_foreign(observed.stand_in_ownership()) {
        "Pod"
    } else if is_foreign(observed.stand_in_service_ownership()) {
        "Service"
    } else {
        return None;
    };
    Some(StandInRefusal::NameConflict { kind, name: observed.model_serving.stand_in_name() })
}

/// Leaves the objects as they are. The gate of the pod follows the model, unless the pod cannot be read.
fn kept(observed: &Observed, state: StandInState) -> StandInPlan {
    let is_readable = observed.readable.unread_stand_ins().is_none();
    let gate = is_readable.then(|| gate(observed, &Desired::Keep, is_needed(observed))).flatten();
    StandInPlan { gate, ..StandInPlan::keep(state) }
}

/// `true` while no ServingGroup serves the requests. While ServingGroups are deleted, the router has dropped their pods already.
fn is_needed(observed: &Observed) -> bool {
    let model_serving = &observed.model_serving;
    model_serving.replicas() == 0 || model_serving.status.available_replicas.unwrap_or_default() == 0
}

/// State of the objects for a model that may have a stand-in.
fn desired(observed: &Observed, content: &pod::Content<'_>) -> StandInPlan {
    let model_serving = &observed.model_serving;
    let is_asleep = model_serving.replicas() == 0;
    let is_needed = is_needed(observed);
    let found = observed.stand_in.pod.as_ref();
    let pod = match (observed.stand_in_ownership(), found) {
        (Ownership::Absent, _) if is_needed => Desired::Apply(Box::new(pod::pod(content))),
        (Ownership::Owned, Some(found)) => owned_pod(observed, found, content, is_needed, is_asleep),
        _ => Desired::Keep,
    };
    let service = match observed.stand_in_service_ownership() {
        Ownership::Absent | Ownership::Owned if is_needed || found.is_some() => {
            Desired::Apply(Box::new(pod::service(content)))
        }
        Ownership::Owned => removal(observed, observed.stand_in.service.as_ref()),
        _ => Desired::Keep,
    };
    let gate = gate(observed, &pod, is_needed);
    let state = match &observed.stand_in.rejection {
        Some(rejection) => StandInState::Refused(StandInRefusal::Rejected(rejection.clone())),
        None if is_needed => StandInState::Holds,
        None => StandInState::Idle,
    };
    StandInPlan { pod, service, gate, state }
}

/// Change of the gate of a pod of the operator that is created or stays.
fn gate(observed: &Observed, pod: &Desired<Box<Pod>>, is_needed: bool) -> Option<GateChange> {
    let is_open = match (pod, observed.stand_in_ownership()) {
        (Desired::Remove, _) => return None,
        (Desired::Apply(_), Ownership::Absent) => false,
        (_, Ownership::Owned) => {
            observed.stand_in.pod.as_ref()?.gate.as_ref().is_some_and(|gate| gate.is_open)
        }
        _ => return None,
    };
    (is_open != is_needed).then_some(GateChange(is_needed))
}

/// State of a pod that exists. One with other settings is replaced only while the model sleeps: while it wakes, the pod
/// probably holds requests.
fn owned_pod(
    observed: &Observed,
    found: &StandInDigest,
    content: &pod::Content<'_>,
    is_needed: bool,
    is_asleep: bool,
) -> Desired<Box<Pod>> {
    if found.has_ended || (!is_needed && observed.stand_in.is_over) {
        return Desired::Remove;
    }
    if !is_needed {
        return Desired::Keep;
    }
    let desired = pod::pod(content);
    match found.owned.fingerprint == fingerprint(&desired) {
        true => Desired::Apply(Box::new(desired)),
        false if is_asleep => Desired::Remove,
        false => Desired::Keep,
    }
}

/// Fingerprint of the live pod that equals this one.
pub fn fingerprint(pod: &Pod) -> Fingerprint {
    Fingerprint::of_desired(&pod.metadata, &())
}

/// Place of the engines in the router's eyes: labels and ports.
struct Endpoint {
    /// Labels that all ModelServers select.
    labels: BTreeMap<String, String>,
    /// Labels that the engines have, and the stand-in does not have all of.
    engines: BTreeMap<String, String>,
    /// Ports of the engines.
    ports: BTreeSet<u16>,
    /// Names that a request may ask for when it arrives.
    models: BTreeSet<String>,
}

impl Endpoint {
    fn of(observed: &Observed) -> Result<Self, StandInRefusal> {
        let servers = &observed.routing.servers;
        let ports: BTreeSet<u16> = servers.iter().filter_map(|server| server.port).collect();
        if ports.is_empty() {
            return Err(StandInRefusal::NoModelServer);
        }
        servers.iter().try_for_each(check)?;
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let labels = common_labels(servers).ok_or_else(|| StandInRefusal::conflicting_labels(&names))?;
        let engines = engines(&observed.model_serving, &labels, &names)?;
        let routed = observed.routing.names.iter().map(|name| name.name.clone());
        let rewritten = servers.iter().filter_map(|server| server.model.clone());
        Ok(Self { labels, engines, ports, models: routed.chain(rewritten).collect() })
    }
}

fn check(server: &Server) -> Result<(), StandInRefusal> {
    if server.disaggregated {
        return Err(StandInRefusal::Disaggregated(server.name.clone()));
    }
    if server.is_tls {
        return Err(StandInRefusal::Tls(server.name.clone()));
    }
    let is_of_groups =
        |label: &&String| label.starts_with(KTHENA) && ![NAME, ENTRY].contains(&label.as_str());
    match server.labels.keys().find(is_of_groups) {
        Some(label) => Err(StandInRefusal::GroupLabel { server: server.name.clone(), label: label.clone() }),
        None => Ok(()),
    }
}

/// The labels of all ModelServers together; `None` if two of them differ in a value.
fn common_labels(servers: &[Server]) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in servers.iter().flat_map(|server| &server.labels) {
        if labels.insert(key.clone(), value.clone()).is_some_and(|before| before != *value) {
            return None;
        }
    }
    Some(labels)
}

/// Labels of the entry pods of the role that the ModelServers select. The stand-in has neither the label of a role, nor
/// that of entry pods unless a ModelServer selects it.
fn engines(
    model_serving: &ModelServing,
    labels: &BTreeMap<String, String>,
    servers: &[&str],
) -> Result<BTreeMap<String, String>, StandInRefusal> {
    let is_selected =
        |role: &&Role| labels.iter().all(|(key, value)| model_serving.labels_entry_pods(role, key, value));
    let roles: Vec<&Role> = model_serving.spec.template.roles.iter().filter(is_selected).collect();
    let mut engines = labels.clone();
    let keys = match roles.as_slice() {
        [] => return Err(StandInRefusal::conflicting_labels(servers)),
        [_] => &[NAME, ENTRY, ROLE][..],
        _ if labels.contains_key(ENTRY) => return Err(StandInRefusal::several_roles(servers)),
        _ => &[NAME, ENTRY][..],
    };
    let role = roles.first();
    engines.extend(keys.iter().filter_map(|key| {
        let value = role.and_then(|role| model_serving.entry_pod_label(role, key))?;
        Some(((*key).to_owned(), value.to_owned()))
    }));
    Ok(engines)
}
