//! Results of the signal probe for the models to explain, and the measurements of one.

use std::sync::Arc;

use crate::{
    cli::{
        cluster_view::{ClusterView, Seen},
        prometheus_route::{NO_ADDRESS, PrometheusRoute},
    },
    controllers::{measurements, signal_probe},
};
use kthena_keda_core::{
    api::kthena::ModelServing,
    domain::ServiceTimeSetting,
    intent::Profile,
    observed::{Observed, ProbeTarget},
    plan::{self, ResolvedIntent},
};

/// Observed state of one model, and the target of its signal probe.
pub(super) struct SignalCheck {
    pub(super) observed: Observed,
    pub(super) defaults: Profile,
    target: Option<ProbeTarget>,
    /// Settings and triggers, before anything was measured.
    resolved: Option<ResolvedIntent>,
    /// Source of the address of Prometheus.
    pub(super) source: String,
}

impl SignalCheck {
    pub(super) fn of(view: &ClusterView, model: &ModelServing) -> Self {
        let Seen { observed, defaults, prometheus_from: mut source } = view.observe(model);
        if let Err(ambiguity) = &view.operator
            && view.route.url.is_none()
        {
            source = format!("{source}; {ambiguity}");
        }
        let plan = plan::plan(&observed, view.served.capabilities, &defaults);
        let resolved = plan.explanation.and_then(|found| found.resolved);
        let target = resolved.as_ref().and_then(probe_target);
        let of_operator = defaults.prometheus.as_ref().map(|settings| &settings.url);
        if target.as_ref().is_some_and(|target| of_operator != Some(&target.prometheus.url)) {
            source = format!("the AutoscalingProfile {}", model.profile());
        }
        Self { observed, defaults, target, resolved, source }
    }

    /// The target, if it can be queried by this route.
    fn reachable(&self, route: &PrometheusRoute) -> Option<&ProbeTarget> {
        self.target.as_ref().filter(|target| route.has_address(&target.prometheus))
    }
}

fn probe_target(resolved: &ResolvedIntent) -> Option<ProbeTarget> {
    Some(ProbeTarget {
        prometheus: resolved.intent.profile.prometheus.clone()?,
        router: resolved.triggers.router.clone(),
    })
}

/// Probes the signals: once for each target, however many models share it.
pub(super) async fn probe(checks: &mut [SignalCheck], route: &PrometheusRoute) {
    let reachable = checks.iter().filter_map(|check| check.reachable(route));
    let results = signal_probe::probe(&route.querier, reachable.map(|target| route.target(target))).await;
    for SignalCheck { observed, target, .. } in checks {
        let result = target.as_ref().map(|target| {
            let result = results.get(&route.target(target)).cloned();
            (target.clone(), result.unwrap_or_else(|| Err(NO_ADDRESS.to_owned())))
        });
        observed.probes = Arc::new(result.into_iter().collect());
    }
}

/// Reads the history of one model for the doubts about its settings. A service time that the operator measures stays as it is: only the operator
/// adopts another, at its daily look.
pub(super) async fn measure(check: &mut SignalCheck, route: &PrometheusRoute) {
    let (Some(target), Some(ResolvedIntent { intent, triggers, .. })) =
        (check.reachable(route), &check.resolved)
    else {
        return;
    };
    let settings = route.settings(&target.prometheus);
    let mut measured = measurements::measure(&route.querier, &settings, triggers).await.unwrap_or_default();
    if intent.backlog.service_time == ServiceTimeSetting::Auto {
        measured.service_time = None;
    }
    check.observed.measured = measured;
}
