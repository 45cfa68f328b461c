//! Warnings: notices about a plan that is applied.

use std::collections::BTreeSet;

use kube_core::Resource as _;

use super::{
    ResolvedIntent, booster, external_status, latency, pod_labels, pod_monitor, query_length, roles,
    scaled_object, scraping, service_time, shadow, unread,
};
use crate::{
    api::{
        annotations::PREFIX,
        keda::{MetricType, ScaledObject},
        monitoring::PodMonitor,
    },
    domain::{Capabilities, Keda, field_path, listed, quoted},
    observed::Observed,
};

/// Fields of one object that a warning lists at most.
const LISTED_FIELDS: usize = 4;

/// Notices of an applied plan, in the order of the message.
pub(super) fn of(
    observed: &Observed,
    resolved: &ResolvedIntent,
    capabilities: Capabilities,
    keda: Keda,
) -> Vec<String> {
    let ResolvedIntent { intent, triggers, .. } = resolved;
    let mut warnings: Vec<String> = scaled_object::ignored_by_keda(keda, intent).into_iter().collect();
    if pod_monitor::is_needed(resolved) && !capabilities.pod_monitors {
        warnings.push(
            "the cluster does not serve PodMonitors, so the operator cannot have the engines scraped; install the Prometheus Operator, or scrape them yourself".to_owned(),
        );
    }
    warnings.extend(observed.model_serving.misplaced_pause().map(|key| {
        format!("the annotation {} pauses nothing on a ModelServing; use {PREFIX}paused", quoted(key))
    }));
    if intent.shadow {
        warnings.extend(shadow::warnings(observed, intent));
    } else {
        warnings.extend(external_status::outdated_pauses(observed, intent));
        if intent.roles.is_some() {
            warnings.extend(roles::warnings(observed));
        }
        warnings
            .extend(observed.second_writer.iter().map(|manager| booster::second_writer(observed, manager)));
    }
    warnings.extend(unread::warnings(observed, resolved));
    warnings.extend(scraping::warnings(observed, resolved));
    warnings.extend(persistent_fields(observed));
    warnings.extend(triggers.warnings.iter().cloned());
    warnings.extend(service_time::warnings(observed, resolved));
    warnings.extend(query_length::warning(&triggers.triggers));
    warnings.extend(external_status::unrouted_warning(observed, resolved));
    warnings.extend(external_status::unreached_warning(observed, resolved));
    warnings.extend(external_status::dead_names_warning(observed, intent));
    warnings.extend(external_status::harmless_mismatch(observed, triggers));
    warnings.extend(external_status::waiting(observed));
    warnings.extend(external_status::ambiguous_series(observed, resolved));
    warnings.extend(external_status::slow_prometheus(observed, resolved));
    warnings.extend(unsigned_queries(resolved));
    warnings.extend(latency::warnings(observed, resolved));
    warnings.extend(pod_labels::overwritten(observed, resolved));
    let values = triggers.triggers.iter().filter(|trigger| trigger.metric_type == MetricType::Value);
    warnings.extend(values.map(|trigger| {
        format!(
            "signal {} has metricType Value, so the HPA reads it as 0 and goes to the minimum while no ServingGroup is ready; use AverageValue if the query is a total",
            trigger.name
        )
    }));
    warnings
}

/// Signals that the operator does not check, since only KEDA signs queries for AWS.
fn unsigned_queries(ResolvedIntent { intent, .. }: &ResolvedIntent) -> Option<String> {
    let region = intent.profile.prometheus.as_ref()?.aws_region.as_ref()?;
    Some(format!(
        "queries to {region} need a signature for AWS, which the operator cannot make, so it does not check the signals; check them with kthena-keda explain --prometheus-url and the address of a proxy that signs"
    ))
}

/// Fields of the generated objects that are not the operator's and that it cannot remove.
fn persistent_fields(observed: &Observed) -> impl Iterator<Item = String> {
    let (known, model_serving) = (&observed.persistent_fields, &observed.model_serving);
    let scaled_object = (
        ScaledObject::kind(&()),
        model_serving.scaled_object_name(),
        observed.scaled_object_digest(),
        &known.scaled_object,
    );
    let pod_monitor = (
        PodMonitor::kind(&()),
        model_serving.pod_monitor_name(),
        observed.pod_monitor.as_ref(),
        &known.pod_monitor,
    );
    [scaled_object, pod_monitor].into_iter().filter_map(|(kind, name, digest, persistent)| {
        let defaulted = digest.into_iter().flat_map(|digest| &digest.defaulted_fields);
        let fields: BTreeSet<String> =
            persistent.iter().chain(defaulted).map(|field| field_path(field)).collect();
        let fields = Vec::from_iter(fields);
        (!fields.is_empty()).then(|| {
            format!(
                "{kind} {name} has fields that a webhook, a default of the CRD or another client keeps setting, so the operator leaves them alone although they may change how the model scales: {}; remove them at their source",
                listed(&fields, LISTED_FIELDS)
            )
        })
    })
}
