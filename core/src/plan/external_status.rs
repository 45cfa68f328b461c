//! Problems that KEDA, the HPA and Prometheus report of a plan that is valid, with the remedy if it is known.

use super::{Finding, ResolvedIntent, finding, triggers::Triggers};
use crate::{
    api::keda::MetricType,
    domain::{Reason, SUGGESTIONS_MAX, names::ROUTER_SERVICE_MONITOR, nearest},
    intent::{Intent, SignalSource, SignalTarget},
    observed::{
        ConditionDigest, NameTraffic, Observed, ProbeResult, ProbeTarget, find_condition, normalize_message,
    },
    signals::Signal,
};

/// Effect and remedy of a trigger without data.
const NO_DATA: &str = "Prometheus does not answer KEDA, or has no data for a query, so replicas stay as they are; run kthena-keda explain to see which query has no data";

/// Known external errors: a reason or a part of a message, with its effect and remedy.
///
/// Sources: KEDA `controllers/keda/scaledobject_controller.go`,
/// `pkg/scaling/executor/scale_scaledobjects.go`; Kubernetes `pkg/controller/podautoscaler/horizontal.go`.
const REMEDIES: [(&str, &str); 12] = [
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

/// Rejections by the API server, and bad conditions of the ScaledObject and the HPA.
pub(super) fn runtime_findings(observed: &Observed) -> Vec<Finding> {
    let rejection = observed.rejection.as_deref().map(Finding::rejected);
    rejection.into_iter().chain(scaled_object_trouble(observed)).chain(hpa_troubles(observed)).collect()
}

fn scaled_object_trouble(observed: &Observed) -> Option<Finding> {
    let ready = find_condition(&observed.scaled_object.as_ref()?.conditions, "Ready")?;
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

fn uses_value_metric(triggers: &Triggers) -> bool {
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
    ResolvedIntent { intent, triggers }: &ResolvedIntent,
) -> ProbeFindings {
    let Some(prometheus) = intent.profile.prometheus.clone() else { return ProbeFindings::default() };
    let target = ProbeTarget { prometheus, router: triggers.router.clone() };
    match observed.probes.get(&target) {
        None => {
            ProbeFindings { runtime_findings: not_routed(observed, None).into_iter().collect(), error: None }
        }
        Some(Err(error)) => {
            let error = format!(
                "the operator could not check the signals, so it cannot detect missing ones: {}",
                normalize_message(error)
            );
            ProbeFindings {
                runtime_findings: not_routed(observed, None).into_iter().collect(),
                error: Some(error),
            }
        }
        Some(Ok(probe)) => {
            let runtime_findings = router_scraped(intent, triggers, probe)
                .into_iter()
                .chain(engines_scraped(observed, triggers, probe))
                .chain(model_seen(observed, intent, probe));
            ProbeFindings { runtime_findings: runtime_findings.collect(), error: None }
        }
    }
}

fn router_scraped(intent: &Intent, triggers: &Triggers, probe: &ProbeResult) -> Option<Finding> {
    let namespace = &triggers.router.namespace;
    let is_needed = intent.replicas.min() == 0 || intent.signals.iter().any(is_demand);
    let monitor = format!("the ServiceMonitor {namespace}/{ROUTER_SERVICE_MONITOR}, or your own");
    (is_needed && !probe.router_is_scraped).then(|| Finding::router_not_scraped(namespace, &monitor))
}

const fn is_demand(signal: &SignalTarget) -> bool {
    matches!(signal.source, SignalSource::BuiltIn(Signal::Demand(_)))
}

fn engines_scraped(observed: &Observed, triggers: &Triggers, probe: &ProbeResult) -> Option<Finding> {
    let engines = triggers.engines?;
    let metadata = &observed.model_serving.metadata;
    let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let available = observed.model_serving.status.available_replicas.unwrap_or_default();
    match probe.engines.get(&key) {
        // Prometheus has a target for every pod, ready or not.
        None if available > 0 => {
            Some(Finding::engine_not_scraped(&observed.model_serving.pod_monitor_name()))
        }
        Some(false) if available > 0 => Some(Finding::engine_unreachable(engines.port)),
        _ => None,
    }
}

/// Checks that requests of clients can reach the model: by its routes, or, in a cluster without routes, by
/// the requests that the router has received.
fn model_seen(observed: &Observed, intent: &Intent, probe: &ProbeResult) -> Option<Finding> {
    let is_served = intent.models.iter().any(|name| probe.names.get(name) == Some(&NameTraffic::Otherwise));
    if is_served || !probe.router_is_scraped {
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

/// Reports a model without any routed name. One routed name is enough: the others may be aliases that are not
/// in use yet.
fn not_routed(observed: &Observed, probe: Option<&ProbeResult>) -> Option<Finding> {
    let unrouted = &observed.routing.unrouted;
    if unrouted.is_empty() || unrouted.len() != observed.model_serving.model_names().count() {
        return None;
    }
    let is_requested =
        probe.is_some_and(|probe| unrouted.iter().any(|(name, _)| probe.names.contains_key(name)));
    Some(Finding::not_routed(unrouted, is_requested))
}
