//! The PodMonitor by which Prometheus scrapes the engines of one ModelServing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Desired, Finding, ResolvedIntent, owner, removal};
use crate::{
    api::{
        kthena::ModelServing,
        metadata::{MANAGED_BY, OPERATOR},
        monitoring::{Endpoint, NamespaceSelector, PodMonitor, PodMonitorSpec, Relabeling},
    },
    domain::Capabilities,
    intent::{CreateMonitors, MonitorSettings},
    observed::{Observed, Ownership, Readable},
};

/// Labels of Kthena's pods (`pkg/apis/workload/v1alpha1/labels.go`).
const NAME: &str = "modelserving.volcano.sh/name";
const GROUP: &str = "modelserving.volcano.sh/group-name";
const ENTRY: &str = "modelserving.volcano.sh/entry";

/// `true` if a signal needs the engines scraped and the profile does not turn monitors off.
pub(super) fn is_needed(resolved: &ResolvedIntent) -> bool {
    resolved.triggers.engines.is_some() && resolved.intent.profile.monitors.create() != CreateMonitors::Never
}

/// A foreign object with the name of a needed PodMonitor.
pub(super) fn conflict(observed: &Observed, resolved: &ResolvedIntent) -> Option<Finding> {
    let is_foreign = observed.pod_monitor_ownership() == Ownership::Foreign;
    (is_foreign && is_needed(resolved))
        .then(|| Finding::name_conflict::<PodMonitor>(&observed.model_serving.pod_monitor_name()))
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
            Desired::Apply(Box::new(build(
                &observed.model_serving,
                &resolved.intent.profile.monitors,
                engines.port,
            )))
        }
        (Some(_), _) if is_needed(resolved) => Desired::Keep,
        _ => removal(observed, observed.pod_monitor.as_ref()),
    }
}

/// Complete object: the engines of the entry pods, on one port.
fn build(model_serving: &ModelServing, settings: &MonitorSettings, port: u16) -> PodMonitor {
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
            selector: LabelSelector { match_labels: Some(pods), match_expressions: None },
            pod_target_labels: vec![NAME.to_owned(), GROUP.to_owned()],
            pod_metrics_endpoints: vec![Endpoint {
                path: Some("/metrics".to_owned()),
                interval: Some(settings.interval.to_string()),
                relabelings: one_target_for_each_pod(port),
                ..Endpoint::default()
            }],
        },
    }
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
