//! The PodMonitor by which Prometheus scrapes the engines of one ModelServing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};

use super::{Desired, Finding, ResolvedIntent, owner, removal};
use crate::{
    api::{
        kthena::ModelServing,
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::{Endpoint, NamespaceSelector, PodMonitor, PodMonitorSpec, Relabeling},
    },
    domain::Capabilities,
    intent::CreateMonitors,
    observed::{Observed, Ownership, Readable},
    promql::{metrics_pattern, re2_quote},
    signals::ENGINE_OF,
};

/// Labels of Kthena's pods (`pkg/apis/workload/v1alpha1/labels.go`).
const NAME: &str = "modelserving.volcano.sh/name";
const GROUP: &str = "modelserving.volcano.sh/group-name";
const ROLE: &str = "modelserving.volcano.sh/role";
const ENTRY: &str = "modelserving.volcano.sh/entry";

/// Samples of one scrape of an engine that Prometheus accepts: room for a gauge of every rank, and for histograms
/// of custom queries.
const SAMPLE_LIMIT: u64 = 2000;

/// `true` if a signal needs the engines scraped and the profile does not turn monitors off.
pub(super) fn is_needed(resolved: &ResolvedIntent) -> bool {
    resolved.triggers.engines.is_some() && resolved.intent.profile.monitors.create() != CreateMonitors::Never
}

/// An object of another owner with the name of a needed PodMonitor.
pub(super) fn conflict(observed: &Observed, resolved: &ResolvedIntent) -> Option<Finding> {
    if !is_needed(resolved) {
        return None;
    }
    let name = observed.model_serving.pod_monitor_name();
    Finding::ownership::<PodMonitor>(observed.pod_monitor_ownership(), &name)
}

/// Desired PodMonitor. A needed one stays as it is while it is being deleted, while the cluster does not
/// serve PodMonitors, or while they cannot be read.
pub(super) fn desired(
    observed: &Observed,
    resolved: &ResolvedIntent,
    capabilities: Capabilities,
) -> Desired<Box<PodMonitor>> {
    if observed.pod_monitor.is_none() && observed.readable.pod_monitors != Readable::Yes {
        return Desired::Keep;
    }
    match (resolved.triggers.engines, observed.pod_monitor_ownership()) {
        (Some(engines), Ownership::Absent | Ownership::Owned)
            if is_needed(resolved) && capabilities.pod_monitors =>
        {
            Desired::Apply(Box::new(build(&observed.model_serving, resolved, engines.port)))
        }
        (Some(_), _) if is_needed(resolved) => Desired::Keep,
        _ => removal(observed, observed.pod_monitor.as_ref()),
    }
}

/// Complete object: the engines of the entry pods, on one port.
///
/// Pods without a ServingGroup are no engines. The pods, their labels and their metrics are the model team's, so
/// the monitor bounds what they can add to Prometheus: it keeps only metrics that the queries read, at most
/// [`SAMPLE_LIMIT`] samples of a scrape, and only pods that the ModelServing controls, under its name.
fn build(model_serving: &ModelServing, resolved: &ResolvedIntent, port: u16) -> PodMonitor {
    let settings = &resolved.intent.profile.monitors;
    let namespace = model_serving.metadata.namespace.clone();
    let mut labels = settings.labels.clone();
    labels.insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
    let pods = BTreeMap::from([
        (NAME.to_owned(), model_serving.name().to_owned()),
        (ENTRY.to_owned(), "true".to_owned()),
    ]);
    PodMonitor {
        metadata: ObjectMeta {
            name: Some(model_serving.pod_monitor_name()),
            namespace: namespace.clone(),
            labels: Some(labels),
            owner_references: owner(model_serving).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: PodMonitorSpec {
            namespace_selector: NamespaceSelector {
                any: false,
                match_names: namespace.into_iter().collect(),
            },
            selector: LabelSelector {
                match_labels: Some(pods),
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: GROUP.to_owned(),
                    operator: "Exists".to_owned(),
                    values: None,
                }]),
            },
            sample_limit: Some(SAMPLE_LIMIT),
            pod_target_labels: labels_of_series(resolved),
            pod_metrics_endpoints: vec![Endpoint {
                path: Some("/metrics".to_owned()),
                interval: Some(settings.interval.to_string()),
                relabelings: [controlled_by(model_serving), one_target_for_each_pod(port)].concat(),
                metric_relabelings: used_metrics(resolved).into_iter().collect(),
                ..Endpoint::default()
            }],
        },
    }
}

/// Pod labels that the series keep.
fn labels_of_series(resolved: &ResolvedIntent) -> Vec<String> {
    let role = (!resolved.roles.is_empty()).then_some(ROLE);
    [NAME, GROUP].into_iter().chain(role).map(str::to_owned).collect()
}

/// Relabelings that drop pods of other controllers, which may carry the same labels, and set the series label
/// with the ModelServing, which a pod label of a similar spelling would otherwise set too.
fn controlled_by(model_serving: &ModelServing) -> Vec<Relabeling> {
    vec![
        Relabeling {
            action: "keep".to_owned(),
            source_labels: ["__meta_kubernetes_pod_controller_kind", "__meta_kubernetes_pod_controller_name"]
                .map(str::to_owned)
                .to_vec(),
            regex: Some(format!("ModelServing;{}", re2_quote(model_serving.name()))),
            ..Relabeling::default()
        },
        Relabeling {
            action: "replace".to_owned(),
            target_label: Some(ENGINE_OF.to_owned()),
            replacement: Some(model_serving.name().to_owned()),
            ..Relabeling::default()
        },
    ]
}

/// Drops metrics that no query of the model reads. Series of the router do not come from engines.
fn used_metrics(resolved: &ResolvedIntent) -> Option<Relabeling> {
    let triggers = &resolved.triggers;
    let history = triggers.history.as_ref().and_then(|history| history.by_engines.as_ref());
    let history = history.map(ToString::to_string);
    let queries = triggers.triggers.iter().map(|trigger| &trigger.query).chain(&history);
    let queries = queries.map(String::as_str);
    let is_of_engines = |name: &str| name != "up" && !name.starts_with("kthena_router_");
    let pattern = metrics_pattern(queries, is_of_engines)?;
    Some(Relabeling {
        action: "keep".to_owned(),
        source_labels: vec!["__name__".to_owned()],
        regex: Some(pattern),
        ..Relabeling::default()
    })
}

/// Relabelings that leave one target per pod.
///
/// Prometheus creates a target for every port that a container declares, and one for every container that
/// declares none. Selecting a port by name would find declared ports only, and engines often declare none. So
/// all become the same target, which is scraped once.
fn one_target_for_each_pod(port: u16) -> Vec<Relabeling> {
    vec![
        Relabeling {
            action: "drop".to_owned(),
            source_labels: vec!["__meta_kubernetes_pod_container_init".to_owned()],
            regex: Some("true".to_owned()),
            ..Relabeling::default()
        },
        address("([0-9.]+)", format!("$1:{port}")),
        address("(.*:.*)", format!("[$1]:{port}")),
        Relabeling {
            action: "labeldrop".to_owned(),
            regex: Some("container|endpoint".to_owned()),
            ..Relabeling::default()
        },
    ]
}

/// Sets the address of pods whose IP matches `regex`.
fn address(regex: &str, replacement: String) -> Relabeling {
    Relabeling {
        action: "replace".to_owned(),
        source_labels: vec!["__meta_kubernetes_pod_ip".to_owned()],
        regex: Some(regex.to_owned()),
        target_label: Some("__address__".to_owned()),
        replacement: Some(replacement),
        ..Relabeling::default()
    }
}
