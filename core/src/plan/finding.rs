//! What keeps a model from being scaled, in words that say what to do.

use kube_core::Resource;

use crate::domain::Reason;
use crate::{
    api::annotations::{MODEL_NAME, PREFIX},
    intent::AnnotationError,
    observed::{CompetingAutoscaler, ConditionDigest, SelectorMismatch, normalize_message},
    promql::QueryError,
};

/// One thing that keeps a model from being scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why, in one word.
    pub reason: Reason,
    /// What was seen and what to do.
    pub message: String,
    /// Whether it is known to keep the model from being scaled, or just not known that it does not.
    pub is_certain: bool,
    /// Whether it follows from something else, which may be known.
    pub is_symptom: bool,
}

impl Finding {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_certain: true, is_symptom: false }
    }

    /// Whatever somebody else says, and the cure if there is a known one.
    pub(super) fn told(reason: Reason, who: &str, told: &ConditionDigest, cure: Option<&str>) -> Self {
        let ConditionDigest { reason: why, message, status, kind: _ } = told;
        let cure = cure.map(|cure| format!("; {cure}")).unwrap_or_default();
        let message = format!("{who} says {why}: {}{cure}", message.trim_end_matches('.'));
        Self { is_certain: status == "False", ..Self::new(reason, message) }
    }

    /// The API server, or a webhook of it, does not take what is planned.
    pub(super) fn refused(why: &str) -> Self {
        Self::new(Reason::ScaledObjectNotReady, format!("{}; it is tried again", normalize_message(why)))
    }

    /// What the HPA multiplies a level by is not the number of ServingGroups.
    pub(super) fn selector_mismatch(found: SelectorMismatch) -> Self {
        Self::new(Reason::SelectorMismatch, mismatch_words(found))
    }

    /// Prometheus answers, and nothing of the router is there.
    pub(super) fn router_not_scraped(namespace: &str, monitor: &str) -> Self {
        Self::new(
            Reason::RouterNotScraped,
            format!(
                "Prometheus has no data of kthena-router in namespace {namespace}, so nobody knows what is asked for and the count stays as it is; see that the Prometheus selects {monitor}: monitors.labels of the AutoscalingProfile named default must be what its serviceMonitorSelector wants, such as release: kube-prometheus-stack"
            ),
        )
    }

    /// Prometheus answers, and there are no targets of the engines.
    pub(super) fn engine_not_scraped(monitor: &str) -> Self {
        Self::new(
            Reason::EngineNotScraped,
            format!(
                "Prometheus has no target of this ModelServing's engines; see that it selects the PodMonitor {monitor}: monitors.labels of the AutoscalingProfile must be what its podMonitorSelector wants, such as release: kube-prometheus-stack"
            ),
        )
    }

    /// There are targets, and none answers although the pods serve.
    pub(super) fn engine_does_not_answer(port: u16) -> Self {
        Self::new(
            Reason::EngineNotScraped,
            format!(
                "the engines serve but none answers Prometheus at /metrics on port {port}; correct {PREFIX}engine-port, or workloadPort of the ModelServer"
            ),
        )
    }

    /// No route carries any of the names.
    pub(super) fn not_routed(unrouted: &[(String, Option<String>)], is_asked_for: bool) -> Self {
        let names: Vec<String> = unrouted
            .iter()
            .map(|(name, nearest)| match nearest {
                Some(nearest) => {
                    format!("{name:?} (the most similar one that is routed here is {nearest:?})")
                }
                None => format!("{name:?}"),
            })
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let asked = if is_asked_for { "; clients ask for it and are answered 404" } else { "" };
        Self::new(
            Reason::ModelNotSeen,
            format!(
                "no ModelRoute of this namespace carries the model name {}{asked}; correct {MODEL_NAME}, or add the route",
                listed(&names)
            ),
        )
    }

    /// The router was never asked for any of the names, and there are no routes to tell whether it ever will be.
    pub(super) fn not_asked_for(names: &[&str], nearest: Option<&str>, seen: &[&str]) -> Self {
        let similar = match nearest {
            Some(nearest) => format!("; the most similar one that it was asked for is {nearest:?}"),
            None if seen.is_empty() => String::new(),
            None => format!("; it was asked for {}", listed(seen)),
        };
        Self::new(
            Reason::ModelNotSeen,
            format!(
                "since it started, kthena-router was never asked for {}{similar}; correct {MODEL_NAME}, or send a request",
                listed(names)
            ),
        )
    }

    pub(super) fn conflicting(competing: &[CompetingAutoscaler]) -> Self {
        let names: Vec<String> =
            competing.iter().map(|competitor| format!("{} {}", competitor.kind, competitor.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Self::new(
            Reason::ConflictingAutoscaler,
            format!(
                "it is also scaled by {}, and two autoscalers would undo each other's work; delete the other, or take {MODEL_NAME} from this ModelServing",
                listed(&names)
            ),
        )
    }

    pub(super) fn invalid(errors: &[AnnotationError]) -> Self {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self::new(Reason::InvalidConfiguration, errors.join("; "))
    }

    pub(super) fn would_cut_running_fleet(current: i32, max: i32) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!(
                "{current} ServingGroups run and at most {max} are allowed, so opting in would cut them at once; set {PREFIX}max-replicas to at least {current}, or lower to accept the cut"
            ),
        )
    }

    pub(super) fn needs_newer_keda(what: &str, version: &str) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("{what} needs KEDA {version} or later; upgrade KEDA or change the annotation"),
        )
    }

    pub(super) fn profile_not_found(name: &str) -> Self {
        Self::new(
            Reason::ProfileNotFound,
            format!(
                "there is no AutoscalingProfile {name:?}; correct {PREFIX}profile, or remove it to use the defaults"
            ),
        )
    }

    pub(super) fn profile_unusable(name: &str, errors: &str) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("the AutoscalingProfile {name:?} cannot be used: {errors}"),
        )
    }

    pub(super) fn prometheus_not_configured() -> Self {
        Self::new(
            Reason::PrometheusNotConfigured,
            "no Prometheus address is known; set prometheus.url in the AutoscalingProfile, or start kthena-keda with --prometheus-url",
        )
    }

    /// Several ModelServings say that a name is theirs, or are routed to, and no route leads to this one.
    pub(super) fn shared_model_name(others: &[&str]) -> Self {
        Self::new(
            Reason::SharedModelName,
            format!(
                "the model name is also that of {}, and no ModelRoute and ModelServer in this namespace tell which requests come here; route the name to a ModelServer that selects this ModelServing's pods alone, or take {MODEL_NAME} from one of them",
                listed(others)
            ),
        )
    }

    /// A ModelServer selects the pods of several ModelServings.
    pub(super) fn shared_model_server<'a>(servers: impl Iterator<Item = &'a str>, others: &[&str]) -> Self {
        let servers: Vec<&str> = servers.collect();
        Self::new(
            Reason::SharedModelName,
            format!(
                "the ModelServer {} also selects the pods of {}, so that nothing tells which requests come here; give each ModelServing a ModelServer of its own, by the label modelserving.volcano.sh/name",
                listed(&servers),
                listed(others)
            ),
        )
    }

    /// The router counts a part of the demand in one way only.
    pub(super) fn signal_not_split(signal: &str) -> Self {
        Self::new(
            Reason::SharedModelName,
            format!(
                "other ModelServings serve the model name, too, and the router does not tell whose part of {signal} is whose; use active-requests, or signals of the engines"
            ),
        )
    }

    pub(super) fn no_engines_at_zero() -> Self {
        Self::new(
            Reason::CannotWakeFromZero,
            format!(
                "signals of the engines vanish with them, so at zero nothing would be left to wake the model; add a signal of the router such as active-requests, or set {PREFIX}min-replicas to at least 1"
            ),
        )
    }

    pub(super) fn split_at_zero() -> Self {
        Self::new(
            Reason::CannotWakeFromZero,
            format!(
                "other ModelServings serve the model name, too, so at zero nothing tells whether it is this one's turn; set {PREFIX}min-replicas to at least 1"
            ),
        )
    }

    pub(super) fn custom_signal(name: &str, error: &QueryError) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("the profile's signal {name} cannot be measured here: {error}"),
        )
    }

    pub(super) fn name_conflict<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        let kind = K::kind(&());
        Self::new(
            Reason::NameConflict,
            format!(
                "{kind} {name} exists and belongs to somebody else, so it was not touched; rename or delete it, or remove {MODEL_NAME} from this ModelServing"
            ),
        )
    }

    pub(super) fn keda_not_installed() -> Self {
        Self::new(
            Reason::KedaNotInstalled,
            "the cluster does not serve keda.sh/v1alpha1 ScaledObjects; install KEDA 2.14 or later",
        )
    }

    pub(super) fn scale_subresource_missing() -> Self {
        Self::new(
            Reason::ScaleSubresourceMissing,
            "the cluster does not serve modelservings/scale; upgrade Kthena's CRDs to release 0.3 or later (helm upgrade does not do that)",
        )
    }
}

/// What does not fit, and why that comes about.
pub(super) fn mismatch_words(SelectorMismatch { pods, groups }: SelectorMismatch) -> String {
    format!(
        "status.labelSelector matches {pods} pods and status.replicas says {groups} ServingGroups; restart Kthena's controller manager where the status is out of date, or delete a ServingGroup's pods where the instance 0 of its first role was lost, which Kthena up to 1.0 does not bring back"
    )
}

/// The most names in one message.
const NAMED: usize = 5;

fn listed(names: &[&str]) -> String {
    match names.get(..NAMED) {
        // No number: it would change with every one that comes or goes.
        Some(first) if names.len() > NAMED => format!("{} and others", first.join(", ")),
        _ => names.join(", "),
    }
}
