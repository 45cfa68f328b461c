//! Problems that KEDA, the HPA and Prometheus report of a plan that is valid, with the remedy if it is known.

use super::{
    Finding, ResolvedIntent,
    demand::depends_on_names,
    finding, scraping,
    triggers::Triggers,
    verdict::{HELP, has_reported},
};
use crate::{
    api::{keda::MetricType, kthena::ModelServing},
    domain::{Reason, SUGGESTIONS_MAX, nearest, quoted},
    intent::Intent,
    observed::{
        Backend, ConditionDigest, Destination, NameTraffic, Observed, ProbeResult, ProbeTarget, RoutedName,
        ServerBackend, Usage, WaitingPods, find_condition, normalize_message,
    },
};

/// Effect and remedy of a trigger without data.
const NO_DATA: &str = "Prometheus does not answer KEDA, or has no data for a query, so replicas stay as they are; run kthena-keda explain to see which query has no data";

const TOO_LONG: &str = "a query is too long for Prometheus or a proxy in front of it, so KEDA has no data and replicas stay as they are; raise the limit of the proxy, let prometheus.url lead past it, or route fewer names and adapters to this model";

/// Known external errors: a reason or a part of a message, with its effect and remedy.
///
/// Sources: KEDA `controllers/keda/scaledobject_controller.go`,
/// `pkg/scaling/executor/scale_scaledobjects.go`; Kubernetes `pkg/controller/podautoscaler/horizontal.go`.
const REMEDIES: [(&str, &str); 15] = [
    (
        "is forbidden",
        "KEDA or the HPA lacks permission to scale ModelServings; grant it get on modelservings, and get and update on modelservings/scale, in the API group workload.serving.volcano.sh",
    ),
    (
        "InvalidSelector",
        "status.labelSelector is empty, so the HPA cannot count pods; let Kthena or this operator patch modelservings/status, which fills it",
    ),
    ("AmbiguousSelector", "two HPAs select the same pods, so neither scales; delete the other HPA"),
    ("ScalingDisabled", "spec.replicas was set to 0, which disables the HPA; set it to at least 1"),
    (
        "no matches for kind",
        "the API server does not serve ModelServings, so KEDA cannot scale them; install Kthena's CRDs",
    ),
    (
        "could not find scale subresource",
        "the ModelServing CRD has no scale subresource, so KEDA cannot scale; upgrade Kthena's CRDs to release 0.3 or later",
    ),
    (
        "unable to handle the request",
        "the API service external.metrics.k8s.io does not belong to KEDA, or KEDA's metrics server is down, so replicas stay as they are; check kubectl get apiservice v1beta1.external.metrics.k8s.io",
    ),
    (
        "timeout while waiting to establish gRPC",
        "KEDA's metrics server cannot reach KEDA's operator, so replicas stay as they are; restore KEDA's operator or the connection",
    ),
    (
        "status: 401",
        "Prometheus requires credentials, so KEDA has no data and replicas stay as they are; set prometheus.authenticationRef and prometheus.authModes in the AutoscalingProfile",
    ),
    (
        "status: 403",
        "Prometheus rejects KEDA's credentials, so KEDA has no data and replicas stay as they are; correct them, or the tenant in prometheus.headers of the AutoscalingProfile",
    ),
    ("status: 414", TOO_LONG),
    ("status: 431", TOO_LONG),
    (
        "ErrorScalingTarget",
        "KEDA could not change the number of ServingGroups, so the model stays at its number, also at zero; resolve what KEDA reports, in most cases an admission webhook or a policy that rejects modelservings/scale",
    ),
    ("TriggerError", NO_DATA),
    ("FailedGetExternalMetric", NO_DATA),
];

/// Reasons of KEDA and the HPA for a Prometheus that does not answer or has no data: symptoms, whose cause
/// may be known.
const SYMPTOMS: [&str; 3] = ["TriggerError", "PartialTriggerError", "FailedGetExternalMetric"];

/// Puts causes before symptoms; otherwise the order is that of the chain.
pub(super) fn sort_causes_first(runtime_findings: &mut [Finding]) {
    let has_cause = runtime_findings
        .iter()
        .any(|found| matches!(found.reason, Reason::RouterNotScraped | Reason::EngineNotScraped));
    if has_cause {
        runtime_findings.sort_by_key(|found| found.is_symptom);
    }
}

/// Rejections by the API server, and bad conditions of the ScaledObject and the HPA. In shadow those objects, if there are
/// any, are not the operator's.
pub(super) fn runtime_findings(observed: &Observed, is_shadowed: bool) -> Vec<Finding> {
    let rejection = observed.rejection.as_deref().map(Finding::rejected);
    if is_shadowed {
        return rejection.into_iter().collect();
    }
    rejection.into_iter().chain(scaled_object_trouble(observed)).chain(hpa_troubles(observed)).collect()
}

fn scaled_object_trouble(observed: &Observed) -> Option<Finding> {
    let Some(ready) = find_condition(&observed.scaled_object.as_ref()?.conditions, "Ready") else {
        return observed.keda_is_silent.then(Finding::keda_silent);
    };
    (ready.status != "True").then(|| trouble(Reason::ScaledObjectNotReady, "KEDA", ready))
}

fn hpa_troubles(observed: &Observed) -> impl Iterator<Item = Finding> {
    observed
        .hpa
        .iter()
        .flat_map(|hpa| {
            ["AbleToScale", "ScalingActive"]
                .into_iter()
                .filter_map(|kind| find_condition(&hpa.conditions, kind))
        })
        .filter(|condition| condition.status == "False" && !is_at_zero(observed, condition))
        .map(|condition| trouble(Reason::HpaNotScaling, "the HPA", condition))
}

/// A selector that does not match one pod per ServingGroup, for a metric that the HPA multiplies by the pods
/// that it matches.
pub(super) fn selector(observed: &Observed, triggers: &Triggers) -> Option<Finding> {
    observed.mismatch.filter(|_| uses_value_metric(triggers)).map(Finding::selector_mismatch)
}

/// The same mismatch as a warning, for signals that do not depend on the number of pods.
pub(super) fn harmless_mismatch(observed: &Observed, triggers: &Triggers) -> Option<String> {
    let mismatch = observed.mismatch.filter(|_| !uses_value_metric(triggers))?;
    Some(finding::selector_mismatch(mismatch, "which affects no signal of this model"))
}

/// Warns of each pause that KEDA still reports after its end. It scales the model all the same: it decides by the annotations alone
/// (`pkg/scaling/executor/scale_scaledobjects.go`).
pub(super) fn outdated_pauses(observed: &Observed, intent: &Intent) -> Vec<String> {
    if !observed.pause_is_outdated || intent.pause.is_some() {
        return Vec::new();
    }
    let warning = |name: &String| finding::outdated_pause(observed.namespace(), name);
    observed.ended_pauses().iter().map(warning).collect()
}

/// Warns of ServingGroups that do not become ready. The words of other components, which may change at any time, are not part of it.
pub(super) fn waiting(observed: &Observed) -> Option<String> {
    let (problem, remedy) = match observed.waiting.as_ref()? {
        WaitingPods::Unschedulable(_) => (
            "pods of this ModelServing cannot be scheduled",
            "add nodes or free resources, or lower the maximum",
        ),
        WaitingPods::NoScheduler(_) => (
            "no scheduler has taken the pods of this ModelServing",
            "install the scheduler that spec.schedulerName names, or correct that field",
        ),
        WaitingPods::ImagePull(_) => (
            "an image of this ModelServing cannot be pulled",
            "correct the image, or the credentials of its registry",
        ),
        WaitingPods::NotReady => (
            "ServingGroups of this ModelServing do not become ready, and none of its pods waits for a node or an image",
            "check the logs of the engines, and the events of the ModelServing for pods that could not be created",
        ),
    };
    Some(format!(
        "{problem}, so requested ServingGroups serve no requests; {remedy}; see {HELP}#servinggroups-that-do-not-become-ready"
    ))
}

/// `true` if a signal is a level, by which the HPA multiplies the pods that the selector matches.
pub(super) fn uses_value_metric(triggers: &Triggers) -> bool {
    triggers.triggers.iter().any(|trigger| trigger.metric_type == MetricType::Value)
}

/// `true` if the HPA is disabled because the model is at zero, from where KEDA wakes it.
fn is_at_zero(observed: &Observed, condition: &ConditionDigest) -> bool {
    condition.reason == "ScalingDisabled" && observed.model_serving.replicas() == 0
}

fn trouble(reason: Reason, reporter: &str, condition: &ConditionDigest) -> Finding {
    let is_symptom = SYMPTOMS.contains(&condition.reason.as_str());
    Finding { is_symptom, ..Finding::external(reason, reporter, condition, remedy(condition)) }
}

fn remedy(condition: &ConditionDigest) -> Option<&'static str> {
    REMEDIES
        .iter()
        .find(|(text, _)| condition.reason == *text || condition.message.contains(text))
        .map(|(_, remedy)| *remedy)
}

/// Result of the operator's own check of the signals.
#[derive(Default)]
pub(super) struct ProbeFindings {
    /// Problems that keep signals from having data.
    pub(super) runtime_findings: Vec<Finding>,
    /// Error of a check that could not run.
    pub(super) error: Option<String>,
}

/// Checks that the signals of the model have data. Without an answer of Prometheus only the routes are
/// checked.
pub(super) fn signals(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> ProbeFindings {
    if intent.profile.prometheus.is_none() {
        return ProbeFindings::default();
    }
    match probe_of(observed, intent, triggers) {
        None => {
            ProbeFindings { runtime_findings: routed(observed, intent).into_iter().collect(), error: None }
        }
        Some(Err(error)) => {
            let effect = if intent.shadow {
                "its number in shadow does not change meanwhile"
            } else {
                "the model is scaled as before"
            };
            let error = format!(
                "Prometheus could not be queried ({}), so missing signals are not detected; {effect}; see {HELP}#prometheus-unreachable",
                normalize_message(error)
            );
            ProbeFindings {
                runtime_findings: routed(observed, intent).into_iter().collect(),
                error: Some(error),
            }
        }
        Some(Ok(probe)) => {
            let runtime_findings = scraping::router(observed, intent, triggers, probe)
                .into_iter()
                .chain(scraping::engines(observed, triggers, probe))
                .chain(model_seen(observed, intent, probe));
            ProbeFindings { runtime_findings: runtime_findings.collect(), error: None }
        }
    }
}

pub(super) fn probe_of<'a>(
    observed: &'a Observed,
    intent: &Intent,
    triggers: &Triggers,
) -> Option<Result<&'a ProbeResult, &'a String>> {
    let prometheus = intent.profile.prometheus.clone()?;
    let target = ProbeTarget { prometheus, router: triggers.router.clone() };
    observed.probes.get(&target).map(|result| result.as_ref().map(AsRef::as_ref))
}

/// Warnings about a Prometheus whose answers are not those of one whole cluster.
pub(super) fn ambiguous_series(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> Vec<String> {
    let Some(Ok(probe)) = probe_of(observed, intent, triggers) else { return Vec::new() };
    let labels: Vec<&str> = probe.ambiguous_labels.iter().map(String::as_str).collect();
    let clusters = (!labels.is_empty()).then(|| finding::several_clusters(&labels));
    let shards = probe.is_shard.then(finding::one_of_several_shards);
    clusters.into_iter().chain(shards).collect()
}

/// Warning about a Prometheus that answers the operator and is too slow for KEDA.
pub(super) fn slow_prometheus(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> Option<String> {
    let Some(Ok(probe)) = probe_of(observed, intent, triggers) else { return None };
    let limit = intent.profile.prometheus.as_ref()?.kedas_limit();
    probe.is_slow.then(|| finding::slow_prometheus(limit))
}

/// Checks that requests of clients can reach the model: by its routes, or, in a cluster without routes, by
/// the requests that the router has received.
fn model_seen(observed: &Observed, intent: &Intent, probe: &ProbeResult) -> Option<Finding> {
    if !depends_on_names(intent) || !probe.router_is_scraped() {
        return None;
    }
    if let Some(unreached) = unreached(observed, Some(probe)) {
        return unreached.is_certain.then(|| unreached.finding());
    }
    if intent.models.iter().any(|name| is_served(name, probe)) {
        return None;
    }
    if observed.routing.is_known {
        return not_routed(observed, Some(probe));
    }
    let names: Vec<&str> = intent.models.iter().collect();
    let requested: Vec<&str> = probe
        .names
        .iter()
        .filter(|(_, traffic)| **traffic == NameTraffic::Otherwise)
        .map(|(name, _)| name.as_str())
        .collect();
    let similar =
        names.iter().take(SUGGESTIONS_MAX).find_map(|name| nearest(name, requested.iter().copied()));
    Some(Finding::not_requested(&names, similar, &requested))
}

fn is_served(name: &str, probe: &ProbeResult) -> bool {
    probe.names.get(name) == Some(&NameTraffic::Otherwise)
}

/// The routes alone, before Prometheus has answered.
///
/// The router may know a name without a ModelRoute, by an `HTTPRoute` and an `InferencePool`, and a ModelServer
/// may select pods by labels that the pod templates do not show. So these are reported only while the model
/// waits for KEDA anyway, or if the condition reports them already.
fn routed(observed: &Observed, intent: &Intent) -> Option<Finding> {
    if !depends_on_names(intent) {
        return None;
    }
    let is_reported =
        observed.model_serving.condition().is_some_and(|found| found.reason == Reason::ModelNotSeen.as_str());
    let is_due = is_reported || (!has_reported(observed) && !intent.shadow);
    match unreached(observed, None) {
        Some(unreached) => (is_due || unreached.is_certain).then(|| unreached.finding()),
        None if is_due => not_routed(observed, None),
        None => None,
    }
}

/// Reports a model without any routed name. One routed name is enough: the others may be aliases that are not
/// in use yet.
fn not_routed(observed: &Observed, probe: Option<&ProbeResult>) -> Option<Finding> {
    let (unrouted, listed) = (observed.routing.unrouted(), observed.routing.listed().count());
    if unrouted.is_empty() || unrouted.len() != listed {
        return None;
    }
    let is_requested =
        probe.is_some_and(|probe| unrouted.iter().any(|found| probe.names.contains_key(&found.name)));
    let others = observed.routing.names.iter().filter(|name| name.leads_here());
    let others: Vec<&str> = others.map(|name| name.name.as_str()).collect();
    Some(Finding::not_routed(&unrouted, is_requested, &others))
}

/// Routes that carry the model's names and lead to none of its pods.
struct Unreached {
    causes: Vec<String>,
    /// `false` if the requests may be served nevertheless, by pods with labels that the pod templates do not
    /// show.
    is_certain: bool,
}

impl Unreached {
    fn finding(&self) -> Finding {
        let causes: Vec<&str> = self.causes.iter().map(String::as_str).collect();
        Finding::not_reached(&causes)
    }
}

fn unreached(observed: &Observed, probe: Option<&ProbeResult>) -> Option<Unreached> {
    let routing = &observed.routing;
    if routing.names.iter().any(RoutedName::leads_here) {
        return None;
    }
    let carried: Vec<&RoutedName> = routing.listed().filter(|name| !name.carried_by.is_empty()).collect();
    if carried.is_empty() {
        return None;
    }
    let may_be_served = |name: &RoutedName| probe.is_none_or(|probe| is_served(&name.name, probe));
    let mut served = carried.iter().filter(|name| may_be_served(name)).flat_map(|name| &name.destinations);
    let is_certain = !served.any(selects_unknown_pods);
    let mut causes: Vec<String> =
        carried.iter().flat_map(|name| unreached_causes(&observed.model_serving, name)).collect();
    causes.dedup();
    Some(Unreached { causes, is_certain })
}

fn selects_unknown_pods(destination: &Destination) -> bool {
    matches!(&destination.backend, Backend::Server(server) if !server.labels.is_empty())
}

/// The same as a warning, where no signal depends on the routes or requests are served nevertheless.
pub(super) fn unreached_warning(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> Option<String> {
    let probe = probe_of(observed, intent, triggers).and_then(Result::ok);
    let unreached = unreached(observed, probe)?;
    (!depends_on_names(intent) || (probe.is_some() && !unreached.is_certain))
        .then(|| unreached.finding().message)
}

/// Listed names that no route carries, beside others that are routed.
pub(super) fn unrouted_warning(
    observed: &Observed,
    ResolvedIntent { intent, triggers, .. }: &ResolvedIntent,
) -> Option<String> {
    let probe = probe_of(observed, intent, triggers).and_then(Result::ok);
    let routing = &observed.routing;
    let (unrouted, routed): (Vec<_>, Vec<_>) = routing.listed().partition(|name| name.carried_by.is_empty());
    if !depends_on_names(intent) || routed.is_empty() {
        return None;
    }
    let is_served = |name: &RoutedName| probe.is_some_and(|probe| is_served(&name.name, probe));
    let unrouted: Vec<&RoutedName> = unrouted.into_iter().filter(|name| !is_served(name)).collect();
    (!unrouted.is_empty()).then(|| finding::unrouted(&unrouted))
}

/// Listed names whose routes lead nowhere, beside others that lead to the model.
pub(super) fn dead_names_warning(observed: &Observed, intent: &Intent) -> Option<String> {
    let routing = &observed.routing;
    if !depends_on_names(intent) || !routing.names.iter().any(RoutedName::leads_here) {
        return None;
    }
    let is_dead = |name: &&RoutedName| {
        !name.carried_by.is_empty() && !name.leads_here() && name.elsewhere().next().is_none()
    };
    let dead = routing.listed().filter(is_dead);
    let causes: Vec<String> = dead.flat_map(|name| unreached_causes(&observed.model_serving, name)).collect();
    let causes: Vec<&str> = causes.iter().map(String::as_str).collect();
    (!causes.is_empty()).then(|| {
        format!("{}, so requests for it are rejected; correct the ModelRoute", finding::listed(&causes))
    })
}

fn unreached_causes(model_serving: &ModelServing, name: &RoutedName) -> Vec<String> {
    let used: Vec<&Destination> =
        name.destinations.iter().filter(|destination| destination.usage != Usage::Unused).collect();
    if used.is_empty() {
        let routes: Vec<&str> = name.carried_by.iter().map(String::as_str).collect();
        return vec![format!(
            "the ModelRoute {} has no rule with a destination for {}",
            finding::listed(&routes),
            quoted(&name.name)
        )];
    }
    used.into_iter().map(|destination| unreached_cause(model_serving, name, destination)).collect()
}

fn unreached_cause(model_serving: &ModelServing, name: &RoutedName, destination: &Destination) -> String {
    let Destination { route, backend, .. } = destination;
    let older = if name.carried_by.contains(route) {
        String::new()
    } else {
        format!(", which kthena-router uses in place of {},", name.carried_by.join(", "))
    };
    let receiver = match backend {
        Backend::Missing(server) => format!("the ModelServer {server}, which does not exist"),
        Backend::Outside => "a provider outside the cluster".to_owned(),
        Backend::Server(ServerBackend { name, labels, .. }) if labels.is_empty() => {
            format!("the ModelServer {name}, which does not select the pods of this ModelServing")
        }
        Backend::Server(ServerBackend { name, labels, .. }) => format!(
            "the ModelServer {name}, which selects pods by {}, but the pods of this ModelServing have {}",
            pairs(labels.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())))),
            pairs(labels.iter().flat_map(|(key, _)| pod_labels(model_serving, key)))
        ),
    };
    format!("the ModelRoute {route}{older} sends requests for {} to {receiver}", quoted(&name.name))
}

/// Values of a label of the entry pods of all roles; one without a value if no role has it.
fn pod_labels<'a>(model_serving: &'a ModelServing, key: &'a str) -> Vec<(&'a str, Option<&'a str>)> {
    let roles = model_serving.spec.template.roles.iter();
    let mut values: Vec<&str> = roles.filter_map(|role| model_serving.entry_pod_label(role, key)).collect();
    values.sort_unstable();
    values.dedup();
    if values.is_empty() {
        vec![(key, None)]
    } else {
        values.into_iter().map(|value| (key, Some(value))).collect()
    }
}

fn pairs<'a>(labels: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let labels: Vec<String> = labels
        .map(|(key, value)| value.map_or_else(|| format!("no label {key}"), |value| format!("{key}={value}")))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    finding::listed(&labels)
}
