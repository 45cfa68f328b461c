//! Problems that keep a model from being scaled, each as a reason and a message.
//!
//! A message names the problem and the object, its effect on scaling, and the remedy. Parts are separated by
//! `; `, and no part holds a number that changes with load, since every change of a condition is a write.

use std::time::Duration;

use kube_core::Resource;

use crate::{
    api::annotations::{AnnotationKey, DEFAULT_PROFILE, MODEL_NAME, PREFIX},
    domain::{self, Reason, cut, printable, quoted, shortened},
    intent::AnnotationError,
    observed::{
        CompetingAutoscaler, ConditionDigest, Ownership, RoutedName, SelectorMismatch, UnreadKind,
        normalize_message,
    },
    promql::QueryError,
};

/// Longest message of one finding, in bytes.
const MESSAGE_MAX: usize = 1400;

/// Most names in one message.
const MAX_LISTED: usize = 5;

/// Remedy for an external error that [`super::external_status`] has none for.
const UNKNOWN_ERROR: &str = "replicas may not follow the load until this error is resolved";

/// One problem that keeps a model from being scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Reason, as conditions, events and metrics carry it.
    pub reason: Reason,
    /// Problem, effect and remedy.
    pub message: String,
    /// `true` if the problem is known to keep the model from being scaled; `false` if that is not known yet.
    pub is_certain: bool,
    /// `true` if the problem follows from another one, which may be among the findings.
    pub is_symptom: bool,
}

impl Finding {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = cut(&printable(&message.into()), MESSAGE_MAX).into_owned();
        Self { reason, message, is_certain: true, is_symptom: false }
    }

    /// A condition reported by another controller, with the remedy if it is known.
    pub(super) fn external(
        reason: Reason,
        reporter: &str,
        condition: &ConditionDigest,
        remedy: Option<&str>,
    ) -> Self {
        let ConditionDigest { reason: cause, message, status, kind: _ } = condition;
        let remedy = remedy.unwrap_or(UNKNOWN_ERROR);
        let (cause, message) = (shortened(cause), message.trim_end_matches('.'));
        let message = format!("{reporter} reports {cause}: {message}; {remedy}");
        Self { is_certain: status == "False", ..Self::new(reason, message) }
    }

    /// A ScaledObject that KEDA has not reported on for minutes.
    pub(super) fn keda_silent() -> Self {
        Self::new(
            Reason::ScaledObjectNotReady,
            "KEDA has reported nothing on the ScaledObject since it was created minutes ago, so nothing scales this model; check that KEDA's operator runs, and that its WATCH_NAMESPACE (Helm value watchNamespace) includes this namespace",
        )
    }

    /// An object that the API server or an admission webhook rejects.
    pub(super) fn rejected(error: &str) -> Self {
        Self::new(
            Reason::ScaledObjectNotReady,
            format!(
                "{}, so the object keeps its last accepted settings or is not created; change what the error names, and the operator retries",
                normalize_message(error)
            ),
        )
    }

    /// A kind that the plan depends on and that could not be read; the effect completes "so …".
    pub(super) fn unread(unread: &UnreadKind, effect: &str) -> Self {
        let reason = if unread.is_forbidden { Reason::MissingPermission } else { Reason::NotListed };
        Self { is_certain: false, ..Self::new(reason, unread.message(effect)) }
    }

    /// The ModelBooster that an owner reference names does not exist, or not yet in the cache.
    pub(super) fn booster_absent(name: &str) -> Self {
        let message = format!(
            "the ModelBooster {}, which controls this ModelServing by its owner reference, does not exist, so its annotations are unknown; wait for the garbage collector, or remove the owner reference",
            quoted(name)
        );
        Self { is_certain: false, ..Self::new(Reason::NotListed, message) }
    }

    /// A selector by which the HPA computes a wrong number from a `Value` metric.
    pub(super) fn selector_mismatch(mismatch: SelectorMismatch) -> Self {
        Self::new(
            Reason::SelectorMismatch,
            selector_mismatch(
                mismatch,
                "so the HPA computes a wrong number of ServingGroups for queries of metricType Value",
            ),
        )
    }

    /// No ModelRoute carries any of the listed names; `others` are names that routes lead to the model.
    pub(super) fn not_routed(unrouted: &[&RoutedName], is_requested: bool, others: &[&str]) -> Self {
        let effect = match (others, is_requested) {
            ([], true) => {
                "so kthena-router answers requests for it with 404 and the model goes to its minimum"
                    .to_owned()
            }
            ([], false) => "so no request can reach this model and the model goes to its minimum".to_owned(),
            (others, _) => {
                format!("so it is scaled on the names that routes lead to it alone: {}", listed(others))
            }
        };
        Self::new(
            Reason::ModelNotSeen,
            format!(
                "no ModelRoute in this namespace carries the model name {}, {effect}; correct {MODEL_NAME}, or add the route",
                with_suggestions(unrouted)
            ),
        )
    }

    /// ModelRoutes carry the names, and none leads to the pods of the ModelServing.
    pub(super) fn not_reached(causes: &[&str]) -> Self {
        Self::new(
            Reason::ModelNotSeen,
            format!(
                "{}, so no request reaches the pods of this ModelServing and the model goes to its minimum; correct the ModelRoute, or workloadSelector of the ModelServer",
                listed(causes)
            ),
        )
    }

    /// The router never received a request for any of the names, and the cluster has no ModelRoutes that
    /// could show more.
    pub(super) fn not_requested(names: &[&str], nearest: Option<&str>, requested: &[&str]) -> Self {
        let similar = match nearest {
            Some(nearest) => format!(" (most similar requested name: {})", quoted(nearest)),
            None if requested.is_empty() => String::new(),
            None => format!(" (requested names: {})", listed(requested)),
        };
        Self::new(
            Reason::ModelNotSeen,
            format!(
                "kthena-router has received no request for {} since it started{similar}, so the model goes to its minimum; correct {MODEL_NAME}, or send a request",
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
                "this ModelServing is also scaled by {}, so the operator keeps no ScaledObject for it; delete the other autoscaler, or remove {MODEL_NAME} from this ModelServing",
                listed(&names)
            ),
        )
    }

    pub(super) fn invalid(errors: &[AnnotationError]) -> Self {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self::new(Reason::InvalidConfiguration, errors.join("; "))
    }

    pub(super) fn would_remove_running_groups(current: i32, max: i32) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!(
                "spec.replicas is {current} and the maximum is {max}, so opting in would remove the difference at once; set {PREFIX}max-replicas to at least {current}, or to a lower number to accept the reduction"
            ),
        )
    }

    pub(super) fn needs_newer_keda(feature: &str, version: &str, alternative: &str) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("{feature} requires KEDA {version} or later; upgrade KEDA, or {alternative}"),
        )
    }

    pub(super) fn profile_not_found(name: &str) -> Self {
        Self::new(
            Reason::ProfileNotFound,
            format!(
                "AutoscalingProfile {} does not exist; correct {PREFIX}profile, or remove it to use the profile named default",
                quoted(name)
            ),
        )
    }

    pub(super) fn profile_not_allowed(name: &str, namespace: &str) -> Self {
        Self::new(
            Reason::ProfileNotFound,
            format!(
                "AutoscalingProfile {} does not allow the namespace {namespace}; name another profile in {PREFIX}profile, or have the platform team add the namespace to spec.allowedNamespaces",
                quoted(name)
            ),
        )
    }

    /// The profile named default does not exist, and the built-in maximum is below the running ServingGroups.
    pub(super) fn default_would_remove_groups(max: i32) -> Self {
        Self::default_profile_gone(
            &format!("maximum of {max} would remove running ServingGroups"),
            "max-replicas",
        )
    }

    /// The profile named default does not exist, and the built-in minimum would wake the model.
    pub(super) fn default_would_wake(min: i32) -> Self {
        Self::default_profile_gone(&format!("minimum of {min} would wake this model from 0"), "min-replicas")
    }

    fn default_profile_gone(bound: &str, annotation: &str) -> Self {
        Self::new(
            Reason::ProfileNotFound,
            format!(
                "AutoscalingProfile {DEFAULT_PROFILE:?} does not exist, and the built-in {bound}; create the profile, or set {PREFIX}{annotation}"
            ),
        )
    }

    pub(super) fn profile_invalid(name: &str, errors: &str) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("AutoscalingProfile {} is invalid: {errors}; correct the profile", quoted(name)),
        )
    }

    pub(super) fn prometheus_not_configured() -> Self {
        Self::new(
            Reason::PrometheusNotConfigured,
            "no Prometheus address is configured, so no signal can be measured; set prometheus.url in the AutoscalingProfile, or start kthena-keda with --prometheus-url",
        )
    }

    /// Several ModelServings have a name, or are routed to for it by these routes, and no route leads to this
    /// one.
    pub(super) fn shared_model_name(others: &[&str], routes: &[&str]) -> Self {
        let routes = match routes {
            [] => String::new(),
            routes => format!(" (kthena-router uses the ModelRoute {})", listed(routes)),
        };
        Self::new(
            Reason::SharedModelName,
            format!(
                "the model name is shared with {}, and no ModelRoute in this namespace separates their requests{routes}; route the name to a ModelServer that selects only the pods of this ModelServing, or remove {MODEL_NAME} from all but one of them",
                listed(others)
            ),
        )
    }

    /// A ModelServer selects the pods of several ModelServings.
    pub(super) fn shared_model_server(servers: &[&str], others: &[&str]) -> Self {
        Self::new(
            Reason::SharedModelName,
            format!(
                "the ModelServer {} also selects the pods of {}, so their requests cannot be separated; give each ModelServing its own ModelServer, with the label modelserving.volcano.sh/name in its selector",
                listed(servers),
                listed(others)
            ),
        )
    }

    /// A signal that the router does not count by ModelServer.
    pub(super) fn signal_not_split(signal: &str, routes: &[String]) -> Self {
        Self::new(
            Reason::SharedModelName,
            format!(
                "requests for the model name also go elsewhere{}, and kthena-router does not count {signal} by ModelServer, so the share of this ModelServing is unknown; use active-requests, or signals of the engines",
                by_routes(routes)
            ),
        )
    }

    pub(super) fn no_engines_at_zero() -> Self {
        Self::new(
            Reason::CannotWakeFromZero,
            format!(
                "all signals come from the engines and have no data at zero, so none could size the model when a request wakes it; add a signal of the router such as active-requests, or set {PREFIX}min-replicas to at least 1"
            ),
        )
    }

    pub(super) fn split_at_zero(routes: &[String]) -> Self {
        Self::new(
            Reason::CannotWakeFromZero,
            format!(
                "requests for the model name also go elsewhere{}, so a request at zero may not be for this ModelServing and nothing could wake it; set {PREFIX}min-replicas to at least 1",
                by_routes(routes)
            ),
        )
    }

    pub(super) fn custom_signal(name: &str, error: &QueryError) -> Self {
        Self::new(
            Reason::InvalidConfiguration,
            format!("the profile's signal {name} cannot be measured for this ModelServing: {error}"),
        )
    }

    /// An object of another owner under the name of a generated one.
    pub(super) fn ownership<K: Resource<DynamicType = ()>>(ownership: Ownership, name: &str) -> Option<Self> {
        match ownership {
            Ownership::Foreign => Some(Self::name_conflict::<K>(name)),
            Ownership::Orphaned => Some(Self::owner_deleted::<K>(name)),
            Ownership::Absent | Ownership::Owned | Ownership::Terminating => None,
        }
    }

    fn owner_deleted<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        let kind = K::kind(&());
        let message = format!(
            "{kind} {name} belongs to a ModelServing of the same name that was deleted, so a new one is created once Kubernetes' garbage collector has deleted it; if it stays, delete the {kind}"
        );
        Self { is_certain: false, ..Self::new(Reason::OwnerDeleted, message) }
    }

    fn name_conflict<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        let kind = K::kind(&());
        Self::new(
            Reason::NameConflict,
            format!(
                "{kind} {name} exists and has another owner, so the operator does not change it; rename or delete it, or remove {MODEL_NAME} from this ModelServing"
            ),
        )
    }

    /// The same problem of one role.
    #[must_use]
    pub(super) fn of_role(self, role: &str) -> Self {
        let message = format!("role {}: {}", shortened(role), self.message);
        Self { message: cut(&message, MESSAGE_MAX).into_owned(), ..self }
    }

    /// A role that cannot be scaled within its bounds.
    pub(super) fn role_unfit(problem: &str) -> Self {
        Self::new(Reason::InvalidConfiguration, problem)
    }

    pub(super) fn roles_not_enabled() -> Self {
        Self::role_unfit(&format!(
            "{} asks for the roles to be scaled, and the operator may not change ModelServings, so nothing is scaled; set roles.enabled of the chart, or remove the annotation or spec.roles of the AutoscalingProfile",
            AnnotationKey::Roles
        ))
    }

    pub(super) fn roles_not_served() -> Self {
        Self::new(
            Reason::ScaleSubresourceMissing,
            "the cluster does not serve modelservingroles/scale, so no role can be scaled; install the CRDs of this release with kthena-keda crds (helm upgrade does not install CRDs)",
        )
    }

    pub(super) fn instances_unreadable() -> Self {
        let finding = Self::new(
            Reason::MissingPermission,
            "no permission to list pods, so the number of instances of each role is unknown and no number is carried over; grant list on pods in this namespace",
        );
        Self { is_certain: false, ..finding }
    }

    /// A ModelServing that Kthena rewrites.
    pub(super) fn roles_of_booster(name: &str) -> Self {
        Self::role_unfit(&format!(
            "the ModelBooster {} controls this ModelServing, so Kthena resets the number of each role with every change of spec.backend and rejects smaller ones; scale ServingGroups, or manage the ModelServing without a ModelBooster",
            quoted(name)
        ))
    }

    pub(super) fn roles_scaled_by_others(autoscalers: &[CompetingAutoscaler]) -> Self {
        let names: Vec<String> =
            autoscalers.iter().map(|found| format!("{} {}", found.kind, found.name)).collect();
        Self::new(
            Reason::ConflictingAutoscaler,
            format!(
                "the roles of this ModelServing are also scaled by {}, so the operator does not scale them; delete the other autoscaler, or remove {}",
                listed(&names),
                AnnotationKey::Roles
            ),
        )
    }

    pub(super) fn keda_not_installed() -> Self {
        Self::new(
            Reason::KedaNotInstalled,
            "the cluster does not serve keda.sh/v1alpha1 ScaledObjects, so no model can be scaled; install KEDA 2.14 or later",
        )
    }

    pub(super) fn scale_subresource_missing() -> Self {
        Self::new(
            Reason::ScaleSubresourceMissing,
            "the cluster does not serve modelservings/scale, so no model can be scaled; upgrade Kthena's CRDs to release 0.3 or later (helm upgrade does not upgrade CRDs)",
        )
    }
}

/// Mismatch, effect and remedy. No numbers: both change whenever the model is scaled.
pub(super) fn selector_mismatch(SelectorMismatch { pods, groups }: SelectorMismatch, effect: &str) -> String {
    let relation = if usize::try_from(groups).is_ok_and(|groups| pods > groups) { "more" } else { "fewer" };
    format!(
        "status.labelSelector matches {relation} pods than status.replicas counts ServingGroups, {effect}; restart Kthena's controller manager if the status is stale, or delete the other pods of a ServingGroup that lost instance 0 of its first role, which Kthena up to 1.0 does not recreate"
    )
}

/// The router's series differ in labels that tell clusters apart.
pub(super) fn several_clusters(labels: &[&str]) -> String {
    let quoted: Vec<String> = labels.iter().map(|label| quoted(label)).collect();
    let quoted: Vec<&str> = quoted.iter().map(String::as_str).collect();
    format!(
        "the router's series in Prometheus have several values of the label {}, so this model is scaled for the requests of all of them; if they are of different clusters, set prometheus.matchers of the AutoscalingProfile to the value of this one",
        listed(&quoted)
    )
}

/// A Prometheus that takes longer for a small query than KEDA waits.
pub(super) fn slow_prometheus(limit: Duration) -> String {
    format!(
        "Prometheus took more than {} s for a small query, after which KEDA gives up by default, so replicas may stay as they are; give Prometheus more resources, or raise prometheus.timeout of the AutoscalingProfile",
        limit.as_secs()
    )
}

/// KEDA did not notice the end of a pause, or wrote the old condition back.
pub(super) fn outdated_pause(namespace: &str, name: &str) -> String {
    format!(
        "KEDA still reports the condition Paused on ScaledObject {name} although no annotation pauses it, so kubectl and other clients show a pause while this model is scaled; to clear the condition, run: kubectl annotate scaledobject {name} -n {namespace} --overwrite autoscaling.keda.sh/paused=false"
    )
}

/// Prometheus has the targets of one shard.
pub(super) fn one_of_several_shards() -> String {
    "prometheus.url leads to one of several Prometheus shards, each of which has only a part of the targets, so queries miss routers or engines; set prometheus.url to a store that holds the series of all shards, such as Thanos Query".to_owned()
}

/// Listed names without a route beside others that have one, with effect and remedy.
pub(super) fn unrouted(unrouted: &[&RoutedName]) -> String {
    format!(
        "no ModelRoute in this namespace carries {}, so kthena-router does not know it; add the route, or remove the name from {MODEL_NAME}",
        with_suggestions(unrouted)
    )
}

fn with_suggestions(names: &[&RoutedName]) -> String {
    let names: Vec<String> = names.iter().map(|name| with_suggestion(name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    listed(&names)
}

fn with_suggestion(RoutedName { name, similar, .. }: &RoutedName) -> String {
    match similar {
        Some(similar) => format!("{} (most similar routed name: {})", quoted(name), quoted(similar)),
        None => quoted(name),
    }
}

fn by_routes(routes: &[String]) -> String {
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    if routes.is_empty() { String::new() } else { format!(" by the ModelRoute {}", listed(&routes)) }
}

/// The first few names.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    domain::listed(names, MAX_LISTED)
}
