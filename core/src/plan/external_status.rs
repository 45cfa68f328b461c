//! What KEDA and the HPA say of a model that is planned well, with the known cure for what they say.

use super::{Finding, ResolvedIntent, finding::mismatch_words, triggers::Triggers};
use crate::{
    api::keda::MetricType,
    domain::{Reason, names::ROUTER_SERVICE_MONITOR, nearest},
    intent::{Intent, SignalSource, SignalTarget},
    observed::{
        ConditionDigest, NameTraffic, Observed, ProbeResult, ProbeTarget, find_condition, normalize_message,
    },
    signals::Signal,
};

/// What is known of something that they say: words of theirs, and what to do.
///
/// Sources: KEDA `controllers/keda/scaledobject_controller.go`, `pkg/scaling/executor/scale_scaledobjects.go`;
/// Kubernetes `pkg/controller/podautoscaler/horizontal.go`.
const CURES: [(&str, &str); 12] = [
    (
        "is forbidden",
        "KEDA or the HPA may not scale ModelServings; grant it get on modelservings, and get and update on modelservings/scale, in group workload.serving.volcano.sh",
    ),
    (
        "InvalidSelector",
        "the scale subresource has no selector; it is filled as soon as Kthena or this operator may write modelservings/status",
    ),
    ("AmbiguousSelector", "two HPAs select the same pods; remove the other one"),
    ("ScalingDisabled", "the ServingGroups were set to 0 by somebody; set them to at least 1"),
    ("no matches for kind", "the API server does not serve ModelServings; install Kthena's definitions"),
    ("could not find scale subresource", "upgrade Kthena's definitions to release 0.3 or later"),
    (
        "unable to handle the request",
        "the API service external.metrics.k8s.io is not KEDA's, or KEDA's metrics server is down; see kubectl get apiservice v1beta1.external.metrics.k8s.io",
    ),
    (
        "timeout while waiting to establish gRPC",
        "KEDA's operator is down, or its metrics server cannot reach it",
    ),
    (
        "status: 401",
        "Prometheus lets nobody in without credentials; set prometheus.authenticationRef and authModes in the AutoscalingProfile",
    ),
    (
        "status: 403",
        "Prometheus refuses the credentials; correct them, or the tenant in prometheus.headers of the AutoscalingProfile",
    ),
    (
        "TriggerError",
        "Prometheus does not answer KEDA, or has no data for the query; the count stays as it is until it does",
    ),
    (
        "FailedGetExternalMetric",
        "Prometheus does not answer KEDA, or has no data for the query; the count stays as it is until it does",
    ),
];

/// What they say when Prometheus does not answer, or has no data: a symptom, whose cause may be known.
const SYMPTOMS: [&str; 3] = ["TriggerError", "PartialTriggerError", "FailedGetExternalMetric"];

/// Puts causes before symptoms; otherwise the order is that of the chain.
pub(super) fn sort_causes_first(troubles: &mut [Finding]) {
    let is_cause =
        |found: &Finding| matches!(found.reason, Reason::RouterNotScraped | Reason::EngineNotScraped);
    if troubles.iter().any(is_cause) {
        troubles.sort_by_key(|found| found.is_symptom);
    }
}

/// Everything that they complain about.
pub(super) fn troubles(observed: &Observed) -> Vec<Finding> {
    let scaled_object =
        observed.scaled_object.iter().filter_map(|found| find_condition(&found.conditions, "Ready"));
    let scaled_object = scaled_object
        .filter(|ready| ready.status != "True")
        .map(|ready| complaint(Reason::ScaledObjectNotReady, "KEDA", ready));
    let hpa = observed.hpa.iter().flat_map(|hpa| {
        ["AbleToScale", "ScalingActive"].into_iter().filter_map(|kind| find_condition(&hpa.conditions, kind))
    });
    let hpa = hpa.filter(|told| told.status == "False" && !is_at_zero(observed, told));
    let hpa = hpa.map(|told| complaint(Reason::HpaNotScaling, "the HPA", told));
    let rejection = observed.rejection.as_deref().map(Finding::refused);
    rejection.into_iter().chain(scaled_object).chain(hpa).collect()
}

/// A selector that does not match, where a level is multiplied by the pods that it does.
pub(super) fn selector(observed: &Observed, triggers: &Triggers) -> Option<Finding> {
    observed.mismatch.filter(|_| uses_value_metric(triggers)).map(Finding::selector_mismatch)
}

/// The same where no pod is counted: good to know, and no reason to call the model badly scaled.
pub(super) fn harmless_mismatch(observed: &Observed, triggers: &Triggers) -> Option<String> {
    observed.mismatch.filter(|_| !uses_value_metric(triggers)).map(mismatch_words)
}

fn uses_value_metric(triggers: &Triggers) -> bool {
    triggers.triggers.iter().any(|trigger| trigger.metric_type == MetricType::Value)
}

/// The HPA leaves a target at zero alone; KEDA wakes it.
fn is_at_zero(observed: &Observed, told: &ConditionDigest) -> bool {
    told.reason == "ScalingDisabled" && observed.model_serving.replicas() == 0
}

fn complaint(reason: Reason, who: &str, told: &ConditionDigest) -> Finding {
    let is_symptom = SYMPTOMS.contains(&told.reason.as_str());
    Finding { is_symptom, ..Finding::told(reason, who, told, cure(told)) }
}

fn cure(told: &ConditionDigest) -> Option<&'static str> {
    CURES
        .iter()
        .find(|(words, _)| told.reason == *words || told.message.contains(words))
        .map(|(_, cure)| *cure)
}

/// What the operator's own look at Prometheus showed.
#[derive(Default)]
pub(super) struct SignalCheck {
    /// What keeps the signals from being what they should be.
    pub(super) troubles: Vec<Finding>,
    /// Why it could not look.
    pub(super) check: Option<String>,
}

/// Whether the signals are there that the model is scaled by. Routes tell something even where Prometheus does not.
pub(super) fn signals(
    observed: &Observed,
    ResolvedIntent { intent, triggers }: &ResolvedIntent,
) -> SignalCheck {
    let Some(prometheus) = intent.profile.prometheus.clone() else { return SignalCheck::default() };
    let source = ProbeTarget { prometheus, router: triggers.router.clone() };
    match observed.probes.get(&source) {
        None => SignalCheck { troubles: not_routed(observed, None).into_iter().collect(), check: None },
        Some(Err(error)) => {
            let check = format!(
                "the operator's own check of the signals could not run: {}",
                normalize_message(error)
            );
            SignalCheck { troubles: not_routed(observed, None).into_iter().collect(), check: Some(check) }
        }
        Some(Ok(probe)) => {
            let scraped = router_scraped(intent, triggers, probe)
                .into_iter()
                .chain(engines_scraped(observed, triggers, probe));
            SignalCheck { troubles: scraped.chain(seen(observed, intent, probe)).collect(), check: None }
        }
    }
}

fn router_scraped(intent: &Intent, triggers: &Triggers, probe: &ProbeResult) -> Option<Finding> {
    let namespace = &triggers.router.namespace;
    let is_demand =
        |wanted: &SignalTarget| matches!(wanted.measure, SignalSource::BuiltIn(Signal::Demand(_)));
    let is_needed = intent.replicas.min() == 0 || intent.signals.iter().any(is_demand);
    let monitor = format!("the ServiceMonitor {namespace}/{ROUTER_SERVICE_MONITOR}, or your own");
    (is_needed && !probe.router_is_scraped).then(|| Finding::router_not_scraped(namespace, &monitor))
}

fn engines_scraped(observed: &Observed, triggers: &Triggers, probe: &ProbeResult) -> Option<Finding> {
    let engines = triggers.engines?;
    let metadata = &observed.model_serving.metadata;
    let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let serving = observed.model_serving.status.available_replicas.unwrap_or_default();
    match probe.engines.get(&key) {
        // Targets come with pods, whether or not these are ready.
        None if serving > 0 => Some(Finding::engine_not_scraped(&observed.model_serving.pod_monitor_name())),
        Some(false) if serving > 0 => Some(Finding::engine_does_not_answer(engines.port)),
        _ => None,
    }
}

/// Whether clients' requests can be for this model at all. With a route they can, asked for or not.
fn seen(observed: &Observed, intent: &Intent, probe: &ProbeResult) -> Option<Finding> {
    let is_answered = intent.models.iter().any(|name| probe.names.get(name) == Some(&NameTraffic::Otherwise));
    if is_answered || !probe.router_is_scraped {
        return None;
    }
    if observed.routing.is_known {
        return not_routed(observed, Some(probe));
    }
    let names: Vec<&str> = intent.models.iter().collect();
    let asked: Vec<&str> = probe
        .names
        .iter()
        .filter(|(_, asked)| **asked == NameTraffic::Otherwise)
        .map(|(name, _)| name.as_str())
        .collect();
    let similar = names.iter().find_map(|name| nearest(name, asked.iter().copied()));
    Some(Finding::not_asked_for(&names, similar, &asked))
}

/// Some of the names may be aliases that nobody uses yet; without any that is routed nothing can come.
fn not_routed(observed: &Observed, probe: Option<&ProbeResult>) -> Option<Finding> {
    let unrouted = &observed.routing.unrouted;
    let all = !unrouted.is_empty() && unrouted.len() == observed.model_serving.model_names().count();
    let is_asked_for =
        || probe.is_some_and(|probe| unrouted.iter().any(|(name, _)| probe.names.contains_key(name)));
    all.then(|| Finding::not_routed(unrouted, is_asked_for()))
}
