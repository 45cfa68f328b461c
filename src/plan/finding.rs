//! What keeps a model from being scaled, in words that say what to do.

use kube::Resource;

use crate::{
    intent::{AnnotationError, MODEL_NAME, PREFIX},
    promql::QueryError,
};

/// Why, in one word; the order is the order of the chain, so that the first is what to cure first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Bad annotations.
    InvalidConfiguration,
    /// The profile that is named does not exist.
    ProfileNotFound,
    /// There is no Prometheus to ask.
    PrometheusNotConfigured,
    /// Others serve the same model name, and nothing tells whose demand is whose.
    SharedModelName,
    /// Nothing tells when to wake it once it has gone to zero.
    CannotWakeFromZero,
    /// An object of our name belongs to somebody else.
    NameConflict,
    /// The API lacks ScaledObjects.
    KedaNotInstalled,
    /// The API lacks `modelservings/scale`.
    ScaleSubresourceMissing,
}

impl Reason {
    /// The word as conditions and events carry it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidConfiguration => "InvalidConfiguration",
            Self::ProfileNotFound => "ProfileNotFound",
            Self::PrometheusNotConfigured => "PrometheusNotConfigured",
            Self::SharedModelName => "SharedModelName",
            Self::CannotWakeFromZero => "CannotWakeFromZero",
            Self::NameConflict => "NameConflict",
            Self::KedaNotInstalled => "KedaNotInstalled",
            Self::ScaleSubresourceMissing => "ScaleSubresourceMissing",
        }
    }
}

/// One thing that keeps a model from being scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why, in one word.
    pub reason: Reason,
    /// What was seen and what to do.
    pub message: String,
}

impl Finding {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
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

    pub(super) fn beyond_keda(what: &str, version: &str) -> Self {
        Self::new(Reason::InvalidConfiguration, format!("{what} needs KEDA {version} or later; upgrade KEDA or change the annotation"))
    }

    pub(super) fn profile_not_found(name: &str) -> Self {
        Self::new(
            Reason::ProfileNotFound,
            format!("there is no AutoscalingProfile {name:?}; correct {PREFIX}profile, or remove it to use the defaults"),
        )
    }

    pub(super) fn profile_unusable(name: &str, errors: &str) -> Self {
        Self::new(Reason::InvalidConfiguration, format!("the AutoscalingProfile {name:?} cannot be used: {errors}"))
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
        Self::new(Reason::InvalidConfiguration, format!("the profile's signal {name} cannot be measured here: {error}"))
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
        Self::new(Reason::KedaNotInstalled, "the cluster does not serve keda.sh/v1alpha1 ScaledObjects; install KEDA 2.14 or later")
    }

    pub(super) fn scale_subresource_missing() -> Self {
        Self::new(
            Reason::ScaleSubresourceMissing,
            "the cluster does not serve modelservings/scale; upgrade Kthena's CRDs to release 0.3 or later (helm upgrade does not do that)",
        )
    }
}

/// The most names in one message.
const NAMED: usize = 5;

fn listed(names: &[&str]) -> String {
    match names.get(..NAMED) {
        Some(first) if names.len() > NAMED => format!("{} and {} more", first.join(", "), names.len() - NAMED),
        _ => names.join(", "),
    }
}
